//! Why the kernel module did not do what marsd wanted.

use std::path::{Path, PathBuf};

use mars_kmod_core::client::ClientError;
use mars_tree::control_socket::ControlError;
use nix::errno::Errno;

/// Why the module could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KmodError {
    /// The module refuses, or its control device cannot be used.
    #[error(transparent)]
    Module(#[from] ClientError),
    /// An operation of the system failed.
    #[error("{operation} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// The connection inside marsd failed.
    #[error(transparent)]
    Socket(#[from] ControlError),
    /// Something does not fit.
    #[error("{0}")]
    Invalid(String),
}

impl KmodError {
    /// An operation on a path that failed.
    pub fn io(operation: &'static str, path: &Path, cause: std::io::Error) -> Self {
        Self::Io {
            operation,
            path: path.into(),
            cause,
        }
    }

    /// The error number of a refused request.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Module(e) => e.errno(),
            _ => None,
        }
    }
}
