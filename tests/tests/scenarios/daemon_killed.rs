//! `kill -9` of marsd costs nothing: no I/O error on the device, and replication goes on afterwards.

use std::time::Duration;

use mars_tests::load::last_reported;
use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Node, Result, scenario};

const WRITES: u64 = 20_000;

fn killed_under_load(victim: fn(&Cluster) -> &Node) -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        let mut load = a.spawn(
            "load",
            &format!("exec mars-node load {DEVICE} 1 0 8192 {WRITES} 16"),
        )?;
        for round in 1..=4u64 {
            cluster.wait("the load goes on", 30, || {
                last_reported(&load.output()) >= (round * WRITES / 6).min(WRITES)
            })?;
            victim(cluster).kill9("marsd")?;
            let before = last_reported(&load.output());
            if before < WRITES {
                cluster.wait("writes are acknowledged without marsd", 30, || {
                    last_reported(&load.output()) > before
                })?;
            }
            victim(cluster).start_marsd()?;
        }
        // The writer ends with an error if it has seen one.
        load.wait(Duration::from_secs(120))?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)?;
        let state = a.run(&format!("mars-node state {DEVICE} 1 0 8192"))?;
        assert_eq!(state.trim(), WRITES.to_string());
        Ok(())
    })
}

#[test]
fn on_the_primary() -> Result {
    killed_under_load(|cluster| &cluster[0])
}

#[test]
fn on_the_secondary() -> Result {
    killed_under_load(|cluster| &cluster[1])
}
