//! The exit codes (`symlink-spec.md` section 11.3).

use std::process::ExitCode;

use mars_core::status::{Alive, Code};

use crate::model::Model;
use crate::options::{Options, Show};

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(u8);

impl Exit {
    /// All is well.
    pub const OK: Self = Self(0);
    /// No resources, no marsd, no such resource.
    pub const FAILED: Self = Self(1);
    /// The command line is wrong.
    pub const USAGE: Self = Self(2);
    /// Nagios: WARNING.
    pub const WARNING: Self = Self(1);
    /// Nagios: CRITICAL.
    pub const CRITICAL: Self = Self(2);
    /// Nagios: UNKNOWN.
    pub const UNKNOWN: Self = Self(3);

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.0.into()
    }
}

/// The code where nothing can be shown at all.
pub fn unusable(options: &Options) -> Exit {
    if options.is_monitor() {
        Exit::UNKNOWN
    } else {
        Exit::FAILED
    }
}

/// The code for what was shown.
pub fn code(model: &Model) -> Exit {
    match model.show {
        Show::Versions => Exit::OK,
        Show::Lines { monitor: true, .. } => monitor(model),
        Show::Lines { .. } | Show::Screen => {
            let is_single = model.show != Show::Screen;
            let unknown = is_single && model.resources.iter().any(|r| state(r).is_none());
            if model.resources.is_empty() || model.daemon != Alive::Yes || unknown {
                Exit::FAILED
            } else {
                Exit::OK
            }
        }
    }
}

fn state(resource: &crate::model::Resource) -> Option<Code> {
    resource.status.local().and_then(|node| node.code())
}

fn monitor(model: &Model) -> Exit {
    if model.daemon != Alive::Yes {
        return Exit::CRITICAL;
    }
    match model.resources.iter().filter_map(state).max() {
        None => Exit::UNKNOWN,
        Some(Code::UpToDate | Code::UpDateIng) => Exit::OK,
        Some(Code::OutDate | Code::SwitchOff) => Exit::WARNING,
        Some(Code::InvaliDate | Code::Failed) => Exit::CRITICAL,
    }
}
