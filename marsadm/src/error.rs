//! The one error of the tool: what is wrong, which link says so, what to do about it.

use std::fmt;

use mars_tree::TreeError;

use crate::exit::Exit;

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) struct AdmError {
    /// Exit code.
    pub(crate) code: Exit,
    what: String,
    link: Option<String>,
    remedy: Option<String>,
}

/// Result of a step of a command.
pub(crate) type Result<T> = std::result::Result<T, AdmError>;

impl AdmError {
    /// An error with this exit code.
    pub(crate) fn new(code: Exit, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            link: None,
            remedy: None,
        }
    }

    /// A check failed.
    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::new(Exit::Refused, what)
    }

    /// Something needed does not exist.
    pub(crate) fn missing(what: impl Into<String>) -> Self {
        Self::new(Exit::Missing, what)
    }

    /// The system failed at `operation` on `object`.
    pub(crate) fn system(
        operation: &str,
        object: impl fmt::Display,
        cause: impl fmt::Display,
    ) -> Self {
        Self::new(
            Exit::System,
            format!("cannot {operation} {object}: {cause}"),
        )
    }

    /// Names the link that says so.
    #[must_use]
    pub(crate) fn link(mut self, link: impl fmt::Display) -> Self {
        self.link = Some(link.to_string());
        self
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for AdmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(link) = &self.link {
            write!(f, "\n  link: {link}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  do:   {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for AdmError {}

impl From<TreeError> for AdmError {
    fn from(error: TreeError) -> Self {
        let code = match &error {
            TreeError::Io { cause, .. } if cause.kind() == std::io::ErrorKind::PermissionDenied => {
                Exit::Permission
            }
            TreeError::Value { .. } | TreeError::Outside { .. } => Exit::Refused,
            TreeError::Locked { .. } => Exit::Timeout,
            _ => Exit::System,
        };
        Self::new(code, error.to_string())
    }
}
