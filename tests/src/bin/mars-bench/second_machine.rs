//! The secondary has a machine of its own in life: here it must take as little as possible from the primary.
//!
//! Its disk and its logs are kept in memory, so that the disk of this machine works for the primary alone, its
//! threads get only what the primary leaves of the processors, and a line of 1 Gbit/s leads to it while the data path is
//! measured: what goes faster than a line over long distances costs the primary more than it ever would in life.

use std::fs;

use mars_tests::error::Context;
use mars_tests::{Cluster, Node, Result};
use nix::mount::{MsFlags, mount};

/// Keeps the files of a booted node, which has no disks yet, in memory; they go with the cluster.
pub(crate) fn keep_in_memory(cluster: &Cluster, node: &Node) -> Result {
    node.power_off()?;
    for sub in ["mars", "disks"] {
        let place = node.dir().join(sub);
        fs::create_dir_all(&place).context(format!("create {}", place.display()))?;
        mount(
            Some("tmpfs"),
            &place,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .context(format!("mount tmpfs at {}", place.display()))?;
    }
    cluster.boot(node)
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
