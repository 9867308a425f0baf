//! Three members: logs go when all have them, the role moves to any, and a member can leave.

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Node, Result, scenario};

fn write(node: &Node, seed: u64) -> Result {
    node.run(&format!("mars-node load {DEVICE} {seed} 0 4096 2000 64"))
        .map(drop)
}

#[test]
fn logs_the_role_and_leaving() -> Result {
    scenario(&[PAIR[0], PAIR[1], "db-1"], |cluster| {
        cluster.replicate(32 << 20)?;
        let (a, b, c) = (&cluster[0], &cluster[1], &cluster[2]);
        for seed in 1..=3 {
            write(a, seed)?;
            a.run(&format!("marsadm log-rotate {RESOURCE}"))?;
            cluster.wait("the log is rotated", 30, || {
                a.replay(RESOURCE).is_some_and(|at| at.log.seq == seed + 1)
            })?;
        }
        for node in [b, c] {
            cluster.wait_caught_up(RESOURCE, a, node, 60)?;
            same_disks(a, node, DISK)?;
        }
        a.run(&format!("marsadm log-delete-all {RESOURCE}"))?;
        for node in [a, b, c] {
            cluster.wait("only the last log is left", 30, || {
                node.logs(RESOURCE).len() == 1
            })?;
        }

        cluster.hand_over(a, c)?;
        write(c, 4)?;
        for node in [a, b] {
            cluster.wait_caught_up(RESOURCE, c, node, 60)?;
            same_disks(c, node, DISK)?;
        }

        b.run(&format!("marsadm down {RESOURCE}"))?;
        cluster.wait("all has come to rest, the member may leave", 30, || {
            b.try_run(&format!("marsadm leave-resource {RESOURCE}"))
                .is_ok_and(|o| o.code == 0)
        })?;
        for node in [a, c] {
            cluster.wait("the member is forgotten", 30, || {
                node.link(&format!("resource-{RESOURCE}/replay-{}", b.name()))
                    .is_none()
            })?;
        }
        // The switches of `down` were for all.
        c.run(&format!("marsadm up {RESOURCE}"))?;
        a.run(&format!("marsadm up {RESOURCE}"))?;
        cluster.wait_device(c)?;
        write(c, 5)?;
        cluster.wait_caught_up(RESOURCE, c, a, 60)?;
        same_disks(c, a, DISK)
    })
}
