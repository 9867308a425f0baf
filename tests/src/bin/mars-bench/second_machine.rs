//! The secondary has a machine of its own in life: here it must take as little as possible from the primary.
//!
//! Its disk and its logs are kept in memory, so that the disk of this machine works for the primary alone, its
//! threads get only what the primary leaves of the processors, and a line of 1 Gbit/s leads to it while the data path is
//! measured: what goes faster than a line over long distances costs the primary more than it ever would in life.

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

/// Makes the line from and to a node one of 1 Gbit/s.
pub(crate) fn slow_line(nodes: &[Node]) -> Result {
    line(
        nodes,
        "replace dev eth0 root tbf rate 1gbit burst 1mb latency 50ms",
    )
}

/// Takes that back.
pub(crate) fn fast_line(nodes: &[Node]) -> Result {
    line(nodes, "del dev eth0 root")
}

fn line(nodes: &[Node], order: &str) -> Result {
    nodes
        .iter()
        .try_for_each(|node| node.run(&format!("tc qdisc {order}")).map(drop))
}

/// Lets marsd of a node run only when nothing else wants to.
pub(crate) fn yield_the_processor(node: &Node) -> Result {
    node.run("for task in /proc/$(pidof marsd)/task/*; do chrt --idle --pid 0 ${task##*/}; done")
        .map(drop)
}
