//! The one error type of the harness: a text that says what was tried, where, and what went wrong.

use std::fmt;

/// Why a step failed.
#[derive(thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Result of a step.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// An error with this text.
pub fn fail(what: impl Into<String>) -> Error {
    Error(what.into())
}

/// Says what was tried when something failed.
pub trait Context<T> {
    /// Puts `what` before the cause.
    ///
    /// # Errors
    /// The error it was called on, with the text.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| fail(format!("{what}: {cause}")))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| fail(what.to_string()))
    }
}
