//! `kill -9` of marsd costs nothing: no I/O error on the device, and replication goes on afterwards.

use std::time::Duration;

use mars_tests::kernel_module::served;
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

/// Holds the device open all the time, and verifies what it writes, again and again until it is told to stop.
const APPLICATION: &str = "exec 9<>$DEVICE
while [ ! -e /root/enough ]; do
    fio --name=verify --filename=$DEVICE --size=4m --direct=1 --rw=randwrite --bsrange=4k-64k --ioengine=libaio --iodepth=8 \
        --fsync=16 --verify=crc32c --do_verify=1 --randrepeat=0 || exit 1
done
dd iflag=direct bs=4096 count=1 of=/dev/null <&9";

/// What would change if the device went away and came back: its number, and its number in the kernel module.
fn identity(node: &Node) -> Result<(String, Vec<u64>)> {
    let file = format!("/sys/dev/block/$(stat -Lc %Hr:%Lr {DEVICE})/diskseq");
    Ok((node.run(&format!("cat {file}"))?, served()?))
}

/// Writes that the device has answered.
fn written(node: &Node) -> u64 {
    let script = format!("cat /sys/dev/block/$(stat -Lc %Hr:%Lr {DEVICE})/stat");
    let text = node.run(&script).unwrap_or_default();
    let count = text.split_whitespace().nth(4).and_then(|n| n.parse().ok());
    count.unwrap_or(0)
}

#[test]
fn under_an_application_that_verifies() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        let mut application = a.spawn("fio", &format!("DEVICE={DEVICE}\n{APPLICATION}"))?;
        let goes_on = |what| {
            let before = written(a);
            cluster.wait(what, 60, || written(a) > before).map(drop)
        };
        goes_on("the application writes")?;
        let device = identity(a)?;
        for _ in 0..3 {
            a.kill9("marsd")?;
            goes_on("writes are answered without marsd")?;
            a.start_marsd()?;
            goes_on("writes are answered with a new marsd")?;
            assert_eq!(identity(a)?, device);
        }
        a.run("touch /root/enough")?;
        application.wait(Duration::from_secs(120))?;
        assert_eq!(identity(a)?, device);
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}
