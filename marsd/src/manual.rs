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
  MARS_RUN   sockets, mount points and parameters (sys/), default /run/mars
  MARS_CONF  file of permanent parameters, default /etc/mars.conf
  MARS_LOG   as --log-level

SIGTERM ends it in good order: devices that nobody uses are given up, the others are served on by their shims. A second one
ends it at once. With NOTIFY_SOCKET and WATCHDOG_USEC it works as a service of systemd of Type=notify.

Messages go to stderr (or the journal), warnings and errors also to MARS_RUN/sys for mars-status --debug, and all of them to
MARS_DIR/log.txt if that file exists.";

const PARAMETERS: &str = "\
One file each in MARS_RUN/sys (or /proc/sys/mars, where a kernel module has it), to be read and, until the next
start, written at any time. Permanent values come from lines NAME = VALUE of the configuration, else from the
links /mars/defaults-HOST/NAME, else from /mars/defaults/NAME. Those marked R also exist for one resource, as
such links below resource-NAME/. 0 is no limit, unless said otherwise.
  loadavg_limit             R  load at which data transfer pauses on this node
  network_traffic_limit_kb  R  KiB/s of logs and disk data, sent and received
  network_io_timeout           seconds until a silent peer is given up, default 30, 0 never
  percent_mem_limit_kb         percent of the memory for data on its way to the disks
  server_io_limit_mb        R  MiB/s read for other nodes
  free_space_mb                MiB of /mars that are left free, default 8
  logdel_auto_gb            R  GiB above that from which unneeded logs are deleted, default 8, 0 when nothing is left
  logrot_auto_gb            R  GiB at which a log is rotated, default 32";

const EXAMPLES: &str = "\
In the foreground, with all messages:
    marsd --log-level debug
As a service that is started again whenever it ends:
    systemctl enable --now marsd
On another port (which the own ips/ip-HOST has to name as well):
    marsd --port 7778
No more than 20 MiB/s to and from the other nodes, until it is started again:
    echo 20480 > /run/mars/sys/network_traffic_limit_kb";

/// Prints one of man, bash, zsh and fish.
pub(crate) fn generate(command: Command, word: Option<OsString>) -> ExitCode {
    let section = |title, text| Section { title, text };
    let sections = [
        section("EXIT STATUS AND ENVIRONMENT", EXIT_AND_ENVIRONMENT),
        section("PARAMETERS", PARAMETERS),
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
