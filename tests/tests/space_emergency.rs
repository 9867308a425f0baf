//! `/mars` runs full: the application never sees an error; who cannot follow any more is marked and synced anew.

use std::time::Duration;

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Node, Result, scenario};

/// Size of the primary's `/mars`.
const MARS_BYTES: u64 = 96 << 20;
/// Writes whose records are more than twice of that.
const WRITES: u64 = 40_000;

fn small_mars(node: &Node) -> Result {
    node.add_disk("/dev/vg/mars", MARS_BYTES)?;
    node.run("mkfs.ext4 -q /dev/vg/mars && mount /dev/vg/mars /mars && rmdir /mars/lost+found")
        .map(drop)
}

fn fill(node: &Node, seed: u64) -> Result {
    // So many flushes that the other node, on the same two processors, can follow.
    let script = format!("mars-node load {DEVICE} {seed} 0 8192 {WRITES} 20");
    node.try_run_for(&script, Duration::from_secs(300))?
        .good()
        .map(drop)
}

fn holds_all(node: &Node, path: &str, seed: u64) -> Result {
    let state = node.run(&format!("mars-node state {path} {seed} 0 8192"))?;
    assert_eq!(
        state.trim(),
        WRITES.to_string(),
        "{path} on {}",
        node.name()
    );
    Ok(())
}

#[test]
fn logs_that_nobody_needs_make_room() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        small_mars(a)?;
        cluster.replicate(64 << 20)?;
        fill(a, 1)?;
        holds_all(a, DEVICE, 1)?;
        assert!(
            a.link_is(&format!("jammed-{}", a.name()), "0"),
            "logging had to stop"
        );
        cluster.wait("the other node has all of it", 120, || {
            b.is_synced(RESOURCE)
                && a.replay(RESOURCE).map(|r| r.order()) == b.replay(RESOURCE).map(|r| r.order())
        })?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn a_primary_without_room_goes_on_and_the_other_syncs_anew() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        small_mars(a)?;
        a.run("fallocate -l 40M /mars/.ballast")?;
        cluster.replicate(64 << 20)?;
        cluster.cut(a, b)?;
        fill(a, 1)?;
        let jammed = format!("jammed-{}", a.name());
        cluster.wait("the emergency is shown", 30, || a.link_is(&jammed, "1"))?;
        let status = a.try_run("mars-status --system")?.text;
        assert!(
            status.contains("full") || status.contains("Failed"),
            "{status}"
        );
        holds_all(a, DEVICE, 1)?;
        cluster.heal(a, b)?;
        cluster.wait("the other node is marked for resync", 60, || {
            b.own(RESOURCE, "syncstatus").as_deref() == Some("0") || !b.is_synced(RESOURCE)
        })?;
        come_back(cluster, a, b)
    })
}

/// As documented: free space (here the disk is made larger by what else lay on it), then `secondary` and `primary`.
fn come_back(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    a.run(&format!("marsadm secondary {RESOURCE}"))?;
    cluster.wait("the device is given up", 60, || !a.serves(RESOURCE))?;
    a.run("rm /mars/.ballast")?;
    a.run(&format!("marsadm primary {RESOURCE}"))?;
    cluster.wait_device(a)?;
    cluster.wait("logging is back", 60, || {
        a.link_is(&format!("jammed-{}", a.name()), "0")
    })?;
    cluster.wait_caught_up(RESOURCE, a, b, 120)?;
    holds_all(a, DEVICE, 1)?;
    same_disks(a, b, DISK)
}
