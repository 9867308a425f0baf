//! Both sides of a partition become primary: it is shown, nothing is overwritten, and invalidate repairs it.

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Node, Result, scenario};

/// Blocks per load; each has a region of its own.
const BLOCKS: u64 = 1024;

fn write(node: &Node, seed: u64) -> Result {
    node.run(&format!(
        "mars-node load {DEVICE} {seed} {} {BLOCKS} 700 50",
        seed * BLOCKS
    ))
    .map(drop)
}

fn stands_at(node: &Node, path: &str, seed: u64) -> Result<String> {
    Ok(node
        .run(&format!(
            "mars-node state {path} {seed} {} {BLOCKS}",
            seed * BLOCKS
        ))?
        .trim()
        .to_owned())
}

/// Both nodes have what was written, then the line between them is cut; the primary comes first.
fn part(cluster: &Cluster) -> Result<(&Node, &Node)> {
    cluster.replicate(32 << 20)?;
    let (a, b) = (&cluster[0], &cluster[1]);
    write(a, 1)?;
    cluster.wait_caught_up(RESOURCE, a, b, 60)?;
    cluster.cut(a, b)?;
    Ok((a, b))
}

/// The other node becomes primary too, both are written to, and they hear of each other again.
fn force_and_heal(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    b.run(&format!("marsadm --force primary {RESOURCE}"))?;
    cluster.wait_device(b)?;
    write(a, 2)?;
    write(b, 3)?;
    cluster.heal(a, b)
}

#[test]
fn a_split_brain_is_shown_and_repaired_by_decision() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = part(cluster)?;
        // Without --force nobody becomes primary behind the other's back.
        b.try_run(&format!("marsadm --timeout 3 primary {RESOURCE}"))?
            .refused()?;
        force_and_heal(cluster, a, b)?;

        cluster.wait("the newer decision has reached the other node", 60, || {
            a.link_is(&format!("resource-{RESOURCE}/primary"), b.name())
        })?;
        cluster.wait("the loser stops once its device is closed", 60, || {
            !a.serves(RESOURCE)
        })?;
        cluster.wait("the split brain is shown", 60, || {
            a.try_run("mars-status --history")
                .is_ok_and(|o| o.text.contains("SPLIT-BRAIN") || o.text.contains("split brain"))
                || [a, b].iter().any(|n| {
                    n.actual(RESOURCE, "error")
                        .is_some_and(|e| e.to_lowercase().contains("split brain"))
                })
        })?;
        // Both histories are still there.
        assert_eq!(stands_at(a, DISK, 2)?, "700");
        assert_eq!(stands_at(b, DEVICE, 3)?, "700");
        write(b, 4)?;

        a.run(&format!("marsadm invalidate {RESOURCE}"))?;
        cluster.wait_caught_up(RESOURCE, b, a, 120)?;
        same_disks(a, b, DISK)?;
        assert_eq!(stands_at(a, DISK, 4)?, "700");
        // And the role may move again.
        cluster.hand_over(b, a)?;
        assert_eq!(stands_at(a, DEVICE, 4)?, "700");
        write(a, 5)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn the_older_side_can_be_kept_too() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = part(cluster)?;
        force_and_heal(cluster, a, b)?;
        let copy = format!("log-000000002-{}", b.name());
        let has_copy = || {
            let looked = a.try_run(&format!("test -s /mars/resource-{RESOURCE}/{copy}"));
            looked.is_ok_and(|o| o.code == 0)
        };
        cluster.wait("the log of the other side has arrived", 60, has_copy)?;

        a.run(&format!("marsadm --force primary {RESOURCE}"))?;
        cluster.wait_device(a)?;
        write(a, 4)?;
        cluster.wait("the copy is gone", 30, || !has_copy())?;
        cluster.wait("the other side is asked to be invalidated", 60, || {
            let error = b.actual(RESOURCE, "error").unwrap_or_default();
            error.contains("SPLIT BRAIN") && error.contains("marsadm invalidate")
        })?;
        assert_eq!(stands_at(b, DISK, 3)?, "700");
        b.run(&format!("marsadm invalidate {RESOURCE}"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 120)?;
        same_disks(a, b, DISK)?;
        for seed in [1, 2, 4] {
            assert_eq!(stands_at(b, DISK, seed)?, "700");
        }
        cluster.hand_over(a, b)
    })
}
