//! The manual page and the completions.

use clap::CommandFactory;
use mars_manual::{Kind, Section};

use crate::exit;
use crate::options::Args;

const EXAMPLES: &str = "\
Every resource, every node:
    mars-status
One resource with the history of its logs, again every 2 seconds:
    mars-status --resource Mars-ResA --history --interval 2
One word for scripts (Connect, UpToDate, Primary, ...):
    mars-status --dstate --resource=Mars-ResA
As a check of Nagios, alarm above 5 minutes or 10 GB:
    mars-status --monitor --warn-lag 60 --crit-lag 300 --crit-behind 10000000000
Names of all resources that need somebody:
    mars-status --json | jq -r '.resources[] | select(.nagios_code != 0) | .name'";

const FILES: &str = "\
/mars/              the symlink tree that is shown (MARS_DIR)
/run/mars/sys/      current parameters, warnings and errors, one file each (MARS_RUN)
/proc/sys/mars/     the same, where a kernel module publishes it";

/// Makes one of them.
///
/// # Errors
/// Those of the generators, which write to memory only.
pub fn generate(kind: Kind) -> std::io::Result<Vec<u8>> {
    let section = |title, text| Section { title, text };
    let sections = [
        section("EXIT STATUS AND ENVIRONMENT", exit::TABLE),
        section("EXAMPLES", EXAMPLES),
        section("FILES", FILES),
        section("SEE ALSO", "marsadm(8), marsd(8)"),
    ];
    mars_manual::generate(kind, Args::command(), &sections)
}
