//! The manual page and the completions: hidden, called by `make install`.

use std::ffi::OsString;
use std::io::Write;

use clap::Command;
use mars_manual::{Kind, Section};

use crate::error::{AdmError, Result};
use crate::exit::{Exit, TABLE};

const EXAMPLES: &str = "\
A cluster of two nodes and its first resource:
    first#  marsadm create-cluster
    first#  marsadm create-resource Mars-ResA /dev/vg-test/LV-ResA
    second# marsadm join-cluster first
    second# marsadm join-resource Mars-ResA /dev/vg-test/LV-ResA
Wait until the copy is good:
    second# marsadm wait-sync Mars-ResA
Hand over:
    first#  umount /srv
    first#  marsadm secondary Mars-ResA
    second# marsadm primary Mars-ResA
    second# mount /dev/mars/Mars-ResA /srv
The primary is lost for good:
    second# marsadm primary Mars-ResA --force
What went wrong there is thrown away, once it is back:
    first#  marsadm invalidate Mars-ResA
Maintenance of the network, on all nodes:
    first#  marsadm disconnect all
    first#  marsadm connect all
Make room:
    first#  marsadm log-rotate all
    first#  marsadm log-delete-all all
What would be done:
    first#  marsadm leave-resource Mars-ResA --dry-run";

const FILES: &str = "\
/mars/        the symlink tree that is read and written (MARS_DIR)
/dev/mars/    the devices of the resources that this node serves";

/// Prints one of man, bash, zsh and fish.
pub(crate) fn generate(command: Command, words: &[OsString]) -> Result<()> {
    let [word] = words else {
        return Err(AdmError::new(
            Exit::Usage,
            "'generate' takes one word: man, bash, zsh or fish",
        ));
    };
    let kind: Kind = word
        .to_string_lossy()
        .parse()
        .map_err(|e: mars_manual::UnknownKind| AdmError::new(Exit::Usage, e.to_string()))?;
    let section = |title, text| Section { title, text };
    let sections = [
        section("EXIT STATUS AND ENVIRONMENT", TABLE),
        section("EXAMPLES", EXAMPLES),
        section("FILES", FILES),
        section("SEE ALSO", "mars-status(8), marsd(8)"),
    ];
    mars_manual::generate(kind, command, &sections)
        .and_then(|text| std::io::stdout().lock().write_all(&text))
        .map_err(|e| AdmError::new(Exit::System, format!("cannot print: {e}")))
}
