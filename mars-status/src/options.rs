//! The command line: the documented options, in all the spellings that are accepted.

use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use mars_core::ResourceName;

use crate::exit::Exit;

const NO_RESOURCE: &str =
    "Syntax-Error: Option resource is missing by --cstate / --dstate / --role!";

/// Shows the state of the resources of this node and of the nodes it shares them with.
///
/// Long options may be shortened and may begin with a single dash (-monitor).
///
/// Exit codes: 0; not 0 without resources, without a running marsd, or for a resource that does not exist. With
/// --monitor as Nagios has them: 0 OK (UpToDate, UpDateIng), 1 WARNING (OutDate, SwitchOff), 2 CRITICAL (InvaliDate,
/// Failed, no marsd), 3 UNKNOWN. A resource that this node has not joined counts only if it is named by --resource.
#[derive(Debug, Parser)]
#[command(
    name = "mars-status",
    disable_help_flag = true,
    disable_version_flag = true,
    infer_long_args = true
)]
struct Args {
    /// Only this resource
    #[arg(
        long,
        value_name = "RESOURCE",
        alias = "ressource",
        alias = "res",
        alias = "ress"
    )]
    resource: Option<ResourceName>,
    /// Show again every SECONDS, until interrupted
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interval: Option<u64>,
    /// Also show the logfiles and what each node says about them
    #[arg(long)]
    history: bool,
    /// Also show the parameters and the space on all nodes
    #[arg(long)]
    system: bool,
    /// Also show warnings and errors
    #[arg(long)]
    debug: bool,
    /// Only role, state and connection of this node, one line each, and an exit code for Nagios
    #[arg(long)]
    monitor: bool,
    /// Only Connect or Disconnect (needs --resource)
    #[arg(long)]
    cstate: bool,
    /// Only UpToDate, UpDateIng, OutDate, SwitchOff, InvaliDate or Failed (needs --resource)
    #[arg(long)]
    dstate: bool,
    /// Only Primary or Secondary (needs --resource)
    #[arg(long)]
    role: bool,
    /// This text
    #[arg(long, short, alias = "h")]
    help: bool,
    /// Only the versions
    #[arg(long, short, alias = "v", visible_short_alias = 'V')]
    version: bool,
}

/// What is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// Everything, for people.
    Screen,
    /// Only the header.
    Versions,
    /// Lines for programs.
    Lines {
        /// Asked for by `--monitor`: the exit code is that of Nagios.
        monitor: bool,
        /// The role.
        role: bool,
        /// The state.
        dstate: bool,
        /// The connection.
        cstate: bool,
    },
}

/// The command line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Only this resource.
    pub resource: Option<ResourceName>,
    /// Again and again, with this pause.
    pub interval: Option<Duration>,
    /// With the history of the logs.
    pub history: bool,
    /// With parameters and space.
    pub system: bool,
    /// With warnings and errors.
    pub debug: bool,
    /// What is to be shown.
    pub show: Show,
}

impl Options {
    /// Whether lines for programs are wanted.
    pub fn is_lines(&self) -> bool {
        matches!(self.show, Show::Lines { .. })
    }

    /// Whether the exit code is that of Nagios.
    pub fn is_monitor(&self) -> bool {
        matches!(self.show, Show::Lines { monitor: true, .. })
    }
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// To show something.
    Run(Options),
    /// To print this text.
    Help(String),
    /// It is wrong.
    Wrong {
        /// What is wrong with it.
        text: String,
        /// The code to end with.
        exit: Exit,
    },
}

/// Reads a command line; the first argument is the name of the program.
pub fn parse(args: &[OsString]) -> Parsed {
    let args: Vec<OsString> = args.iter().map(long_dashes).collect();
    let wants_monitor = args.iter().any(|a| a == "--monitor");
    let exit = if wants_monitor {
        Exit::UNKNOWN
    } else {
        Exit::USAGE
    };
    let wrong = |text: String| Parsed::Wrong { text, exit };
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => return wrong(e.render().to_string()),
    };
    if args.help {
        return Parsed::Help(Args::command().render_long_help().to_string());
    }
    let single = args.role || args.dstate || args.cstate;
    if single && args.resource.is_none() {
        let usage = Args::command().render_long_help();
        return wrong(format!("{NO_RESOURCE}\n\n{usage}"));
    }
    Parsed::Run(args.into())
}

impl From<Args> for Options {
    fn from(args: Args) -> Self {
        let single = args.role || args.dstate || args.cstate;
        let show = if args.version {
            Show::Versions
        } else if single || args.monitor {
            Show::Lines {
                monitor: args.monitor,
                role: args.role || !single,
                dstate: args.dstate || !single,
                cstate: args.cstate || !single,
            }
        } else {
            Show::Screen
        };
        Self {
            resource: args.resource,
            interval: args.interval.map(Duration::from_secs),
            history: args.history,
            system: args.system,
            debug: args.debug,
            show,
        }
    }
}

/// `-monitor`, and `–monitor` as it is printed in the documentation, mean `--monitor`.
fn long_dashes(arg: &OsString) -> OsString {
    let Some(text) = arg.to_str() else {
        return arg.clone();
    };
    let is_long = |name: &str| name.len() > 1 && name.starts_with(|c: char| c.is_ascii_lowercase());
    for dash in ["-", "\u{2013}", "\u{2014}"] {
        if let Some(name) = text.strip_prefix(dash).filter(|name| is_long(name)) {
            return format!("--{name}").into();
        }
    }
    arg.clone()
}
