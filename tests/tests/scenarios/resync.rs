//! A disk whose content cannot be trusted is made the same again by `invalidate`, and only what differs travels.

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Context, Node, Result, scenario};

fn damage(node: &Node) -> Result {
    // Behind the back of everybody, as a failing disk would.
    node.run(&format!(
        "dd if=/dev/urandom of={DISK} bs=64k seek=16 count=3 oflag=direct conv=notrunc status=none"
    ))
    .map(drop)
}

/// Blocks of 4 KiB that the last sync found different.
fn differing(node: &Node) -> Result<u64> {
    let value = node.own(RESOURCE, "verifystatus").context("verifystatus")?;
    let (_, bad) = value.split_once(',').context("verifystatus")?;
    bad.parse().context(value.clone())
}

#[test]
fn invalidate_repairs_a_damaged_secondary() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        a.run(&format!("mars-node load {DEVICE} 1 0 8192 3000 100"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)?;

        damage(b)?;
        assert!(same_disks(a, b, DISK).is_err());
        a.try_run(&format!("marsadm invalidate {RESOURCE}"))?
            .refused()?;
        b.run(&format!("marsadm invalidate {RESOURCE}"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)?;
        assert_eq!(differing(b)?, 3 * 16, "only what differed was sent");

        damage(b)?;
        a.run(&format!("marsadm invalidate-remote {RESOURCE}"))?;
        cluster.wait("the other node has begun anew", 30, || {
            !b.is_synced(RESOURCE) || same_disks(a, b, DISK).is_ok()
        })?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn a_node_killed_while_syncing_goes_on_where_it_was() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        cluster.create_resource(512 << 20)?;
        a.run(&format!(
            "dd if=/dev/urandom of={DEVICE} bs=1M count=400 oflag=direct status=none"
        ))?;
        cluster.limit(b, "400mbit")?;
        cluster.join_resource(b)?;
        let synced = || {
            b.own(RESOURCE, "syncstatus")
                .and_then(|v| v.parse::<u64>().ok())
                .unwrap_or(0)
        };
        cluster.wait("a part is synced", 120, || synced() > 100 << 20)?;
        b.power_off()?;
        let before = synced();
        assert!(
            before < 512 << 20,
            "the sync was too fast to be interrupted"
        );
        cluster.boot(b)?;
        b.start_marsd()?;
        let mut lowest = u64::MAX;
        cluster.wait("the sync has ended", 120, || {
            lowest = lowest.min(synced());
            b.is_synced(RESOURCE)
        })?;
        assert!(
            lowest >= before,
            "the sync began again at {lowest} instead of {before}"
        );
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}
