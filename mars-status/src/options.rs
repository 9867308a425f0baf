//! The command line: the documented options, in all the spellings that are accepted.

use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use mars_core::ResourceName;
use mars_manual::Kind;

use crate::exit::{Exit, TABLE};
use crate::limits::{Limit, Limits};

const NO_RESOURCE: &str =
    "Syntax-Error: Option resource is missing by --cstate / --dstate / --role!";
const NO_MONITOR: &str =
    "error: --warn-lag, --crit-lag, --warn-behind and --crit-behind need --monitor";

/// Shows the state of the resources of this node and of the nodes it shares them with.
///
/// Options may be combined, shortened while that is unambiguous, written in capitals, and begin with a single dash
/// (-monitor). Of an option given twice the last one counts.
#[derive(Debug, Parser)]
#[command(
    name = "mars-status",
    version,
    after_help = TABLE,
    disable_help_flag = true,
    disable_version_flag = true,
    infer_long_args = true,
    args_override_self = true
)]
pub(crate) struct Args {
    /// Only this resource
    #[arg(
        long,
        value_name = "RESOURCE",
        alias = "ressource",
        alias = "res",
        alias = "ress",
        alias = "re"
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
    #[arg(long, alias = "c")]
    cstate: bool,
    /// Only UpToDate, UpDateIng, OutDate, SwitchOff, InvaliDate or Failed (needs --resource)
    #[arg(long)]
    dstate: bool,
    /// Only Primary or Secondary (needs --resource)
    #[arg(long)]
    role: bool,
    /// The same as one JSON object, schema 1; with --interval one line each time
    #[arg(long)]
    json: bool,
    /// With --monitor: WARNING above this lag of replay (default: no limit, but OutDate from 60 s of delay on)
    #[arg(long, value_name = "SECONDS")]
    warn_lag: Option<u64>,
    /// With --monitor: CRITICAL above this lag of replay (default: no limit)
    #[arg(long, value_name = "SECONDS")]
    crit_lag: Option<u64>,
    /// With --monitor: WARNING above this many bytes of logs not replayed (default: no limit)
    #[arg(long, value_name = "BYTES")]
    warn_behind: Option<u64>,
    /// With --monitor: CRITICAL above this many bytes of logs not replayed (default: no limit)
    #[arg(long, value_name = "BYTES")]
    crit_behind: Option<u64>,
    /// This text
    #[arg(long, short, alias = "h", short_alias = '?')]
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
    /// As JSON.
    pub json: bool,
    /// When `--monitor` raises the alarm.
    pub limits: Limits,
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
    /// To print the manual page, or completions.
    Generate(Kind),
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
    let is_monitor = |arg: &OsString| {
        let text = arg.to_str().unwrap_or_default();
        text.len() > 2 && "--monitor".starts_with(text)
    };
    let exit = if args.iter().any(is_monitor) {
        Exit::UNKNOWN
    } else {
        Exit::USAGE
    };
    let wrong = |text: String| Parsed::Wrong { text, exit };
    // Hidden, for `make install`: as an option of clap it would turn up in the completions.
    if let [_, flag, word] = args.as_slice()
        && flag == "--generate"
    {
        return match word.to_string_lossy().parse::<Kind>() {
            Ok(kind) => Parsed::Generate(kind),
            Err(e) => wrong(format!("error: {e}")),
        };
    }
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => return wrong(e.render().to_string()),
    };
    if args.help {
        return Parsed::Help(Args::command().render_long_help().to_string());
    }
    let limits = args.limits();
    if limits.any() && !args.monitor {
        return wrong(NO_MONITOR.into());
    }
    if let Err(text) = limits.check() {
        return wrong(format!("error: {text}"));
    }
    let single = args.role || args.dstate || args.cstate;
    if single && args.resource.is_none() && !args.version {
        let usage = Args::command().render_long_help();
        return wrong(format!("{NO_RESOURCE}\n\n{usage}"));
    }
    Parsed::Run(args.into())
}

impl Args {
    fn limits(&self) -> Limits {
        let limit = |warn, crit| Limit { warn, crit };
        Limits {
            lag_secs: limit(self.warn_lag, self.crit_lag),
            behind_bytes: limit(self.warn_behind, self.crit_behind),
        }
    }
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
            limits: args.limits(),
            resource: args.resource,
            interval: args.interval.map(Duration::from_secs),
            history: args.history,
            system: args.system,
            debug: args.debug,
            show,
            json: args.json,
        }
    }
}

/// `-monitor`, `--MONITOR`, and `–monitor` as it is printed in the documentation, mean `--monitor`.
fn long_dashes(arg: &OsString) -> OsString {
    let Some(text) = arg.to_str() else {
        return arg.clone();
    };
    let is_name = |name: &&str| name.starts_with(|c: char| c.is_ascii_alphabetic());
    for dash in ["--", "-", "\u{2013}", "\u{2014}"] {
        if let Some(name) = text.strip_prefix(dash).filter(is_name) {
            let (name, value) = name.split_at(name.find('=').unwrap_or(name.len()));
            return format!("--{}{value}", name.to_ascii_lowercase()).into();
        }
    }
    arg.clone()
}
