//! The manual page and the completions: hidden, called by `make install`.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Command;
use mars_manual::{Kind, Section};

/// What stands below the options.
pub(crate) const EXIT_AND_ENVIRONMENT: &str = "\
Exit codes:
  0  ended by a signal
  1  could not run (the message says why)
  2  wrong command line

Environment:
  MARS_DIR   the tree, default /mars
  MARS_HOST  name of this node, default uname -n
  MARS_RUN   sockets and mount points, default /run/mars
  MARS_LOG   level of messages: error, warn, info, debug; default info";

const EXAMPLES: &str = "\
In the foreground, with all messages:
    MARS_LOG=debug marsd
As a service that is started again whenever it ends, without its shims:
    systemd-run --unit=marsd -p Restart=always -p KillMode=process marsd
On another port (which the own ips/ip-HOST has to name as well):
    marsd --port 7778";

/// Prints one of man, bash, zsh and fish.
pub(crate) fn generate(command: Command, word: Option<OsString>) -> ExitCode {
    let section = |title, text| Section { title, text };
    let sections = [
        section("EXIT STATUS AND ENVIRONMENT", EXIT_AND_ENVIRONMENT),
        section("EXAMPLES", EXAMPLES),
        section("SEE ALSO", "marsadm(8), mars-status(8)"),
    ];
    let kind = word.unwrap_or_default().to_string_lossy().parse::<Kind>();
    let text = match kind {
        Ok(kind) => mars_manual::generate(kind, command.name("marsd"), &sections),
        Err(e) => {
            eprintln!("marsd generate: {e}");
            return ExitCode::from(2);
        }
    };
    match text.and_then(|text| std::io::stdout().lock().write_all(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("marsd generate: cannot print: {e}");
            ExitCode::FAILURE
        }
    }
}
