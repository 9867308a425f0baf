//! Wall clocks that are hours apart, jump to and fro, or stand still for days: replication goes by what was seen, not by time.

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Node, Result, scenario};

const HOUR: i64 = 3600;

fn write(node: &Node, seed: u64) -> Result {
    node.run(&format!("mars-node load {DEVICE} {seed} 0 2048 400 50"))
        .map(drop)
}

fn equal(cluster: &Cluster, from: &Node) -> Result {
    for node in cluster.nodes().iter().filter(|n| n.name() != from.name()) {
        cluster.wait_caught_up(RESOURCE, from, node, 60)?;
        same_disks(from, node, DISK)?;
    }
    Ok(())
}

/// A switch set on `by` is seen by all, on and off.
fn switch(cluster: &Cluster, by: &Node) -> Result {
    for (command, value) in [("pause-sync", "0"), ("resume-sync", "1")] {
        by.run(&format!("marsadm {command} {RESOURCE}"))?;
        cluster.wait(&format!("{command} is seen everywhere"), 30, || {
            cluster.nodes().iter().all(|n| {
                cluster.nodes().iter().all(|host| {
                    n.link_is(
                        &format!("resource-{RESOURCE}/todo-{}/sync", host.name()),
                        value,
                    )
                })
            })
        })?;
    }
    Ok(())
}

#[test]
fn clocks_hours_apart_that_jump() -> Result {
    scenario(&[PAIR[0], PAIR[1], "db-1"], |cluster| {
        let [a, b, c] = [0, 1, 2].map(|n| &cluster[n]);
        a.set_clock(-5 * HOUR)?;
        c.set_clock(3 * HOUR)?;
        cluster.replicate(16 << 20)?;
        for (seed, offsets) in [
            (1, [-5 * HOUR, 0, 3 * HOUR]),
            (2, [2 * HOUR, -9 * HOUR, 0]),
            (3, [-48 * HOUR, 9 * HOUR, -HOUR]),
            (4, [0, 0, 0]),
        ] {
            for (node, offset) in cluster.nodes().iter().zip(offsets) {
                node.set_clock(offset)?;
            }
            write(a, seed)?;
            for node in [a, b, c] {
                switch(cluster, node)?;
            }
            a.run(&format!("marsadm log-rotate {RESOURCE}"))?;
            equal(cluster, a)?;
        }
        // The node whose clock is furthest behind takes over, and one of the others after it.
        b.set_clock(-24 * HOUR)?;
        cluster.hand_over(a, b)?;
        write(b, 5)?;
        equal(cluster, b)?;
        b.run(&format!("marsadm log-delete-all {RESOURCE}"))?;
        for node in [a, b, c] {
            cluster.wait("old logs are deleted everywhere", 30, || {
                node.logs(RESOURCE).len() == 1
            })?;
        }
        cluster.hand_over(b, c)?;
        write(c, 6)?;
        c.run(&format!("marsadm invalidate-remote {RESOURCE}"))?;
        equal(cluster, c)
    })
}

#[test]
fn after_days_and_with_a_tree_of_another_version() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        cluster.replicate(16 << 20)?;
        write(a, 1)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        for node in [a, b] {
            node.power_off()?;
            node.set_clock(9 * 24 * HOUR)?;
            cluster.boot(node)?;
        }
        // What an older version has not written, and what a newer one might have.
        b.run(&format!(
            "cd /mars/resource-{RESOURCE}; rm -f syncpos-* actsize-* actual-*/error actual-*/verify verifystatus-*
             ln -s 1 future-{0}; ln -s 1 todo-{0}/future; ln -s text actual-{0}/future; mkdir future-dir; ln -s x future-dir/y; ln -s 7 /mars/future-{0}",
            b.name()
        ))?;
        for node in [a, b] {
            node.start_marsd()?;
        }
        cluster.wait_device(a)?;
        switch(cluster, b)?;
        write(a, 2)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        let status = a.try_run("mars-status")?;
        assert!(
            status.code == 0 && status.text.contains("UpToDate"),
            "{}",
            status.text
        );
        cluster.hand_over(a, b)?;
        write(b, 3)?;
        cluster.wait_caught_up(RESOURCE, b, a, 60)?;
        same_disks(a, b, DISK)?;
        let foreign = a.link(&format!("resource-{RESOURCE}/future-{}", b.name()));
        assert_eq!(
            foreign, None,
            "what no version here knows is not taken over"
        );
        Ok(())
    })
}
