//! The secondary has a machine of its own in life: here it must take as little as possible from the primary.
//!
//! Its disk and its logs are kept in memory, so that the disk of this machine works for the primary alone, and its
//! threads get only what the primary leaves of the processors.

use std::fs;
use std::os::unix::fs::symlink;

use mars_tests::command::host;
use mars_tests::error::Context;
use mars_tests::{Cluster, Node, Result};
use tempfile::TempDir;

/// Moves the files of a booted node, which has no disks yet, into memory; they go when the guard is dropped.
pub(crate) fn keep_in_memory(cluster: &Cluster, node: &Node) -> Result<Memory> {
    let memory = tempfile::Builder::new()
        .prefix("mars-bench.")
        .tempdir_in("/dev/shm")
        .context("make a directory in memory")?;
    node.power_off()?;
    for sub in ["mars", "disks"] {
        let (place, real) = (node.dir().join(sub), memory.path().join(sub));
        fs::remove_dir_all(&place).context(format!("remove {}", place.display()))?;
        fs::create_dir(&real).context(format!("create {}", real.display()))?;
        symlink(&real, &place).context(format!("make {}", place.display()))?;
    }
    cluster.boot(node)?;
    Ok(Memory(memory))
}

/// The files; the loop devices on them go first, as soon as nobody uses them.
pub(crate) struct Memory(TempDir);

impl Drop for Memory {
    fn drop(&mut self) {
        let dir = self.0.path().to_string_lossy().into_owned();
        let list = host(&[
            "losetup",
            "--list",
            "--noheadings",
            "--output",
            "NAME,BACK-FILE",
        ]);
        for line in list.unwrap_or_default().lines() {
            if let Some((device, file)) = line.trim().split_once(' ')
                && file.trim().starts_with(&dir)
            {
                // Best effort.
                let _ = host(&["losetup", "--detach", device]);
            }
        }
    }
}

/// Lets marsd of a node run only when nothing else wants to.
pub(crate) fn yield_the_processor(node: &Node) -> Result {
    node.run("for task in /proc/$(pidof marsd)/task/*; do chrt --idle --pid 0 ${task##*/}; done")
        .map(drop)
}
