//! A secondary that was away, dead or cut off, catches up by itself.

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Node, Result, scenario};

fn write(node: &Node, seed: u64) -> Result {
    node.run(&format!("mars-node load {DEVICE} {seed} 0 4096 4000 64"))
        .map(drop)
}

#[test]
fn it_catches_up_after_its_death_over_a_rotated_log() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        write(a, 1)?;
        b.power_off()?;
        write(a, 2)?;
        a.run(&format!("marsadm log-rotate {RESOURCE}"))?;
        cluster.wait("the primary has rotated its log", 30, || {
            a.replay(RESOURCE).is_some_and(|at| at.log.seq == 2)
        })?;
        write(a, 3)?;
        // What the dead member still needs is not deleted.
        let refused = a
            .try_run(&format!("marsadm log-delete {RESOURCE}"))?
            .refused()?;
        assert!(refused.contains(b.name()), "{refused}");
        cluster.boot(b)?;
        b.start_marsd()?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn it_catches_up_after_a_cut() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        cluster.cut(a, b)?;
        write(a, 1)?;
        let at = b.replay(RESOURCE).map(|r| r.order());
        cluster.wait(
            "the primary has written back what the other lacks",
            30,
            || at < a.replay(RESOURCE).map(|r| r.order()),
        )?;
        cluster.heal(a, b)?;
        cluster.wait_caught_up(RESOURCE, a, b, 90)?;
        same_disks(a, b, DISK)
    })
}
