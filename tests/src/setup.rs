//! Steps that most scenarios begin with: a resource on the first node, joined by others, and its handover.

use crate::cluster::{Cluster, patience};
use crate::error::Result;
use crate::node::{Node, Task};

/// The resource of the scenarios.
pub const RESOURCE: &str = "r1";
/// Its disk on every node.
pub const DISK: &str = "/dev/vg/lv";
/// Its device on the primary.
pub const DEVICE: &str = "/dev/mars/r1";
/// The nodes of most scenarios.
pub const PAIR: [&str; 2] = ["istore-test-bs7", "istore-test-bap7"];

impl Cluster {
    /// Makes the first node the primary of a new resource of `bytes` bytes.
    ///
    /// # Errors
    /// A step fails or the device does not appear.
    pub fn create_resource(&self, bytes: u64) -> Result<Task> {
        let a = &self[0];
        a.add_disk(DISK, bytes)?;
        a.run("marsadm create-cluster")?;
        let task = a.start_marsd()?;
        a.run(&format!("marsadm create-resource {RESOURCE} {DISK}"))?;
        self.wait_device(a)?;
        Ok(task)
    }

    /// Joins a node to the cluster and to the resource; its sync begins.
    ///
    /// # Errors
    /// A step fails.
    pub fn join_resource(&self, node: &Node) -> Result<Task> {
        let first = &self[0];
        let bytes: u64 = std::fs::metadata(first.disk(DISK)?.image).map_or(0, |m| m.len());
        node.add_disk(DISK, bytes)?;
        node.run(&format!("marsadm join-cluster {}", first.name()))?;
        let task = node.start_marsd()?;
        self.wait("the joined node knows the resource", 30, || {
            let link = |kind: &str| format!("resource-{RESOURCE}/{kind}-{}", first.name());
            node.link(&link("data")).is_some() && node.link(&link("replay")).is_some()
        })?;
        node.run(&format!("marsadm join-resource {RESOURCE} {DISK}"))?;
        Ok(task)
    }

    /// A resource that all nodes have joined and synced; the first is primary.
    ///
    /// # Errors
    /// A step fails or a sync does not end.
    pub fn replicate(&self, bytes: u64) -> Result {
        self.create_resource(bytes)?;
        for node in &self.nodes()[1..] {
            self.join_resource(node)?;
            self.wait_caught_up(RESOURCE, &self[0], node, 120)?;
        }
        self.wait("all nodes know all members", 30, || {
            let knows = |a: &Node, b: &Node| {
                ["replay-", "connect-", "todo-"].iter().all(|kind| {
                    let path = format!("resource-{RESOURCE}/{kind}{}", b.name());
                    a.mars().join(path).symlink_metadata().is_ok()
                }) && a.link_is(
                    &format!("resource-{RESOURCE}/todo-{}/allow-replay", b.name()),
                    "1",
                )
            };
            self.nodes()
                .iter()
                .all(|a| self.nodes().iter().all(|b| knows(a, b)))
        })
        .map(drop)
    }

    /// Waits until a node serves the device.
    ///
    /// # Errors
    /// It does not appear.
    pub fn wait_device(&self, node: &Node) -> Result {
        let what = format!("{DEVICE} appears on {}", node.name());
        self.wait(&what, 60, || {
            node.serves(RESOURCE)
                && node
                    .try_run(&format!("test -b {DEVICE}"))
                    .is_ok_and(|o| o.code == 0)
        })
        .map(drop)
    }

    /// Planned handover of the resource, whose device must not be in use.
    ///
    /// # Errors
    /// A command is refused or the device does not move.
    pub fn hand_over(&self, from: &Node, to: &Node) -> Result {
        from.run(&format!("marsadm secondary {RESOURCE}"))?;
        let secs = 60 * patience();
        to.run(&format!("marsadm --timeout {secs} primary {RESOURCE}"))?;
        self.wait_device(to)?;
        self.wait("the old primary has let go of the device", 30, || {
            !from.serves(RESOURCE)
        })
        .map(drop)
    }
}
