//! The whole primary dies at arbitrary moments: nothing that was flushed is lost, and what is there is a prefix.

use std::time::Duration;

use mars_tests::load::last_reported;
use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Context, Node, Result, fail, scenario};

const ROUNDS: u64 = 20;
/// Blocks per round: each round has a region of its own, so that all of them can be looked at in the end.
const BLOCKS: u64 = 512;

#[test]
fn twenty_power_cuts_of_the_primary() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        let mut states = Vec::new();
        for round in 0..ROUNDS {
            let state = cut_once(cluster, a, round).context(format!("round {round}"))?;
            states.push(state);
        }
        check_all(a, &states)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)?;
        cluster.hand_over(a, b)?;
        check_all(b, &states)
    })
}

/// One power cut under load; returns the write number that the region stands at afterwards.
fn cut_once(cluster: &Cluster, a: &Node, round: u64) -> Result<u64> {
    let first = round * BLOCKS;
    let log = format!("load{round}");
    let load = a.spawn(
        &log,
        &format!("exec mars-node load {DEVICE} {round} {first} {BLOCKS} 1000000 7"),
    )?;
    // A different number of writes, and so a different moment, in every round.
    let wanted = 7 * (1 + (round * 37) % 101);
    cluster.wait("the load has begun", 30, || {
        last_reported(&load.output()) >= wanted
    })?;
    a.power_off()?;
    let flushed = last_reported(&load.output());
    cluster.boot(a)?;
    a.start_marsd()?;
    cluster.wait_device(a)?;
    let found = state(a, round)?;
    if found < flushed {
        return Err(fail(format!(
            "write {flushed} was flushed, but the device stands at write {found}"
        )));
    }
    Ok(found)
}

fn state(node: &Node, round: u64) -> Result<u64> {
    let first = round * BLOCKS;
    let text = node.run(&format!(
        "mars-node state {DEVICE} {round} {first} {BLOCKS}"
    ))?;
    text.trim()
        .parse()
        .context(format!("state of round {round}"))
}

fn check_all(node: &Node, states: &[u64]) -> Result {
    for (round, expected) in (0..).zip(states) {
        let found = state(node, round)?;
        if found != *expected {
            return Err(fail(format!(
                "region {round} on {} stands at write {found}, expected {expected}",
                node.name()
            )));
        }
    }
    Ok(())
}

/// The primary does not come back: what had reached the other node is a prefix of what was written.
#[test]
fn a_lost_primary_leaves_a_prefix() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        let load = a.spawn(
            "load",
            &format!("exec mars-node load {DEVICE} 0 0 {BLOCKS} 1000000 7"),
        )?;
        cluster.wait("some of the load has been replayed", 60, || {
            b.replay(RESOURCE).is_some_and(|at| at.pos > 1 << 20)
        })?;
        a.power_off()?;
        let flushed = last_reported(&load.output());
        b.run(&format!("marsadm primary --force {RESOURCE}"))?;
        cluster.wait_device(b)?;
        let found = state(b, 0)?;
        println!("flushed on the lost primary: {flushed}, there on the other node: {found}");
        assert!(found > 0, "nothing was replicated");
        // Writing goes on there.
        b.run(&format!(
            "mars-node load {DEVICE} 1 {BLOCKS} {BLOCKS} 1000 10"
        ))?;
        let deadline = Duration::from_secs(30);
        let status = b.try_run_for("mars-status", deadline)?;
        assert!(
            status.text.contains("Primary Node is istore-test-bap7"),
            "{}",
            status.text
        );
        Ok(())
    })
}
