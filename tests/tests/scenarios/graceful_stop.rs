//! `SIGTERM` of marsd: what is in use is served on, what is not is given up in good order, and a restart takes over.

use std::time::Duration;

use mars_tests::load::last_reported;
use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Context, Node, Result, scenario};

const WRITES: u64 = 60_000;

fn todo(node: &Node, switch: &str) -> String {
    format!("resource-{RESOURCE}/todo-{}/{switch}", node.name())
}

#[test]
fn a_mounted_file_system_is_written_on_while_marsd_is_away() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        a.run(&format!(
            "mkfs.ext4 -q {DEVICE} && mount {DEVICE} /mnt && truncate -s 32m /mnt/file"
        ))?;
        let mut load = a.spawn(
            "load",
            &format!("exec mars-node load /mnt/file 1 0 8192 {WRITES} 8"),
        )?;
        let alive = format!("alive-{}", a.name());
        for round in 1..=2u64 {
            cluster.wait("the load goes on", 60, || {
                last_reported(&load.output()) >= round * WRITES / 8
            })?;
            a.stop_marsd()?;
            assert!(a.link_is(&alive, "0"));
            cluster.wait("the other node knows that it has stopped", 10, || {
                b.link_is(&alive, "0")
            })?;
            assert!(a.serves(RESOURCE), "the device is in use");
            let before = last_reported(&load.output());
            cluster.wait("writes are acknowledged without marsd", 30, || {
                last_reported(&load.output()) > before + 8
            })?;
            if round == 2 {
                change_while_away(a, b)?;
            }
            a.start_marsd()?;
            cluster.wait("the other node knows that it is back", 30, || {
                b.link_is(&alive, "1")
            })?;
        }
        cluster.wait("what was ordered meanwhile holds", 30, || {
            a.link_is(&todo(a, "sync"), "0")
        })?;
        load.wait(Duration::from_secs(300))?;
        assert_eq!(
            a.run("mars-node state /mnt/file 1 0 8192")?.trim(),
            WRITES.to_string()
        );
        a.run(&format!("umount /mnt && e2fsck -fn {DEVICE}"))?;
        // Newer than a stamp that is ahead of the clock.
        a.run(&format!("marsadm resume-sync-local {RESOURCE}"))?;
        cluster.wait("the last word is the newest", 30, || {
            b.link_is(&todo(a, "sync"), "1")
        })?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}

/// The other node gives an order, with a clock that is an hour ahead; and the node was away for days.
fn change_while_away(a: &Node, b: &Node) -> Result {
    let path = format!("/mars/{}", todo(a, "sync"));
    b.run(&format!(
        "ln -s 0 {path}.new && touch -h -d '+1 hour' {path}.new && mv -T {path}.new {path}"
    ))?;
    a.run("find /mars -type l -exec touch -h -d '-9 days' {} +")
        .map(drop)
}

#[test]
fn a_device_that_nobody_uses_is_given_up_and_the_other_node_can_take_over() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        a.run(&format!("mars-node load {DEVICE} 1 0 4096 2000 64"))?;
        a.stop_marsd()?;
        assert!(a.processes("mars-shim")?.is_empty(), "a shim is left");
        assert!(!a.serves(RESOURCE));
        let node = a.try_run(&format!("test -e {DEVICE}"))?;
        assert_eq!(node.code, 1, "the device is still there");
        let at = a.replay(RESOURCE).context("a position")?;
        assert_eq!(a.logs(RESOURCE), [(at.log.to_string(), at.pos)]);
        cluster.wait("the other node has all of it", 30, || {
            let there = b.replay(RESOURCE).map(|r| r.order());
            there == Some(at.order()) && !b.link_is(&served_by(a), "1")
        })?;

        // Back again, with a log of its own.
        a.start_marsd()?;
        cluster.wait_device(a)?;
        a.run(&format!("mars-node load {DEVICE} 2 4096 4096 500 64"))?;
        assert_eq!(a.logs(RESOURCE).len(), 2);
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;

        // Gone for good: no force is needed.
        a.stop_marsd()?;
        b.run(&format!("marsadm primary {RESOURCE}"))?;
        cluster.wait_device(b)?;
        let state = b.run(&format!("mars-node state {DEVICE} 2 4096 4096"))?;
        assert_eq!(state.trim(), "500");
        b.run(&format!("mars-node load {DEVICE} 3 8192 4096 500 64"))?;
        a.start_marsd()?;
        cluster.wait_caught_up(RESOURCE, b, a, 60)?;
        same_disks(a, b, DISK)
    })
}

fn served_by(node: &Node) -> String {
    format!("resource-{RESOURCE}/actual-{}/is-primary", node.name())
}
