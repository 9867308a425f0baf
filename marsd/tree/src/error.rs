//! The one error type of the tree: operation, path and cause.

use std::io;
use std::path::{Path, PathBuf};

use mars_core::position::ValueError;

/// Why something could not be done with the tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A system call failed.
    #[error("cannot {operation} {path}: {cause}", path = path.display())]
    Io {
        /// What was tried ("read link").
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// A value breaks the grammar of its link.
    #[error("{path}: {cause}", path = path.display())]
    Value {
        /// The link.
        path: PathBuf,
        /// The rule.
        cause: ValueError,
    },
    /// Something else than a symlink stands where a link belongs.
    #[error("{path} is {what}, not a symlink; move it away", path = path.display())]
    NotALink {
        /// The place.
        path: PathBuf,
        /// What stands there.
        what: &'static str,
    },
    /// Somebody else holds the lock for too long.
    #[error("{path} is locked by another process for more than {secs} s; look for a hanging marsadm or marsd (fuser {path})", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long was waited, in seconds.
        secs: u64,
    },
    /// A path leads out of the tree.
    #[error("'{path}' is not a path inside the tree")]
    Outside {
        /// The path.
        path: String,
    },
    /// The private key of the node is unusable.
    #[error("{path} does not hold an Ed25519 key ({cause}); remove it to have a new one made, and join the cluster again", path = path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What the decoder says.
        cause: String,
    },
}

impl TreeError {
    /// An error of a system call.
    pub fn io(operation: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Self::Io {
            operation,
            path: path.to_path_buf(),
            cause: cause.into(),
        }
    }
}
