//! What can go wrong in the shim, with operation, path and cause.

use std::io;
use std::path::{Path, PathBuf};

use mars_core::control::Refusal;
use mars_tree::TreeError;

/// An error of the shim.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// An operation of the system failed.
    #[error("{operation} {path}: {cause}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// The request does not fit the state or its arguments are wrong.
    #[error("{0}")]
    Invalid(String),
    /// The device is in use.
    #[error("{device} is in use: {by}")]
    Busy {
        /// The device.
        device: String,
        /// Who uses it.
        by: String,
    },
}

impl From<TreeError> for ShimError {
    fn from(e: TreeError) -> Self {
        match e {
            TreeError::Io {
                operation,
                path,
                cause,
            } => Self::Io {
                operation,
                path,
                cause,
            },
            other => Self::Invalid(other.to_string()),
        }
    }
}

impl ShimError {
    /// A failed system operation.
    pub fn io(operation: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.into(),
            cause,
        }
    }

    /// The same for the other side of the control socket.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Io {
                operation,
                path,
                cause,
            } => Refusal::Failed {
                operation: (*operation).into(),
                path: path.display().to_string(),
                cause: cause.to_string(),
            },
            Self::Invalid(why) => Refusal::Invalid { why: why.clone() },
            Self::Busy { device, by } => Refusal::Busy {
                device: device.clone(),
                by: by.clone(),
            },
        }
    }
}
