//! The exit codes (`symlink-spec.md` section 11.3).

use std::process::ExitCode;

use mars_core::status::{Alive, Code};

use crate::model::{Model, Resource};
use crate::options::{Options, Show};

/// The table for `--help` and the manual page.
pub const TABLE: &str = "\
Exit codes:
  0  all is shown, marsd is running
  1  no resources, no such resource, or no running marsd;
     with --role, --dstate, --cstate also: not joined
  2  wrong command line
With --monitor as Nagios has them, the worst of all resources:
  0  OK        UpToDate, UpDateIng
  1  WARNING   OutDate, SwitchOff, or above --warn-lag, --warn-behind
  2  CRITICAL  InvaliDate, Failed, no running marsd,
               or above --crit-lag, --crit-behind
  3  UNKNOWN   no resources, no such resource, not joined, wrong command line
A resource that this node has not joined counts only if --resource names it.
Limits print a first line 'MARS OK|WARNING|CRITICAL|UNKNOWN - ...' with
performance data. With --warn-lag or --crit-lag these decide about delays, not
the 60 seconds of OutDate. --interval ends with 0 when it is interrupted.

Environment:
  MARS_DIR   the tree, default /mars
  MARS_HOST  name of this node, default uname -n
  MARS_RUN   run directory, default /run/mars
  NO_COLOR   no colours";

/// An exit code; of two for Nagios the greater one is worse, but for UNKNOWN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    /// Its name for Nagios.
    pub const fn nagios(self) -> &'static str {
        match self.0 {
            0 => "OK",
            1 => "WARNING",
            2 => "CRITICAL",
            _ => "UNKNOWN",
        }
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

fn state(resource: &Resource) -> Option<Code> {
    resource.status.local().and_then(|node| node.code())
}

fn monitor(model: &Model) -> Exit {
    if model.daemon != Alive::Yes {
        return Exit::CRITICAL;
    }
    let codes = model.resources.iter().filter_map(|r| of_resource(model, r));
    codes.max().unwrap_or(Exit::UNKNOWN)
}

/// The code of Nagios for one resource; `None` if this node has not joined it.
pub fn of_resource(model: &Model, resource: &Resource) -> Option<Exit> {
    let node = resource.status.local()?;
    let code = if model.limits.lag_secs.any() {
        node.code_without_delay()
    } else {
        node.code()
    };
    let by_state = match code? {
        Code::UpToDate | Code::UpDateIng => Exit::OK,
        Code::OutDate | Code::SwitchOff => Exit::WARNING,
        Code::InvaliDate | Code::Failed => Exit::CRITICAL,
    };
    let replay = &node.member.as_ref()?.replay;
    Some(by_state.max(model.limits.judge(replay)))
}
