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
        // The logs of one part have room; how fast the other node follows decides nothing.
        let (parts, blocks) = (5, 1600);
        let writes = WRITES / parts;
        for part in 0..parts {
            let first = part * blocks;
            let load = format!("mars-node load {DEVICE} 1 {first} {blocks} {writes} 20");
            a.try_run_for(&load, Duration::from_secs(120))?.good()?;
            cluster.wait_caught_up(RESOURCE, a, b, 120)?;
        }
        for part in 0..parts {
            let first = part * blocks;
            let state = a.run(&format!("mars-node state {DEVICE} 1 {first} {blocks}"))?;
            assert_eq!(state.trim(), writes.to_string(), "part {part}");
        }
        assert!(
            a.link_is(&format!("jammed-{}", a.name()), "0"),
            "logging had to stop"
        );
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
    logging_is_back(cluster, a)?;
    cluster.wait_caught_up(RESOURCE, a, b, 120)?;
    holds_all(a, DEVICE, 1)?;
    same_disks(a, b, DISK)
}

fn logging_is_back(cluster: &Cluster, a: &Node) -> Result {
    cluster
        .wait("logging is back", 60, || {
            a.link_is(&format!("jammed-{}", a.name()), "0")
        })
        .map(drop)
}

/// Runs fio on the device; it reads back and verifies all that it has written.
fn fio(node: &Node, name: &str, from_mib: u64, size_mib: u64, options: &str) -> Result {
    let script = format!(
        "fio --name={name} --filename={DEVICE} --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16 \
         --offset={from_mib}M --size={size_mib}M --verify=crc32c --verify_fatal=1 --output-format=terse {options}"
    );
    let text = node
        .try_run_for(&script, Duration::from_secs(120))?
        .good()?;
    assert!(!text.contains("verify:"), "{text}");
    Ok(())
}

/// Bytes compared and received by the last sync that a node has reported.
fn last_sync(node: &Node) -> (u64, u64) {
    let log = node.log("marsd");
    let line = log.lines().rev().find(|l| l.contains("bytes compared"));
    let numbers: Vec<u64> = line
        .and_then(|l| l.split_once("synced: "))
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    (numbers[0], numbers[1])
}

/// Fills `/mars` while the cable is cut, until writes go past the logs.
fn run_full(cluster: &Cluster, a: &Node, name: &str) -> Result {
    fio(a, name, 0, 8, "--loops=10")?;
    let jammed = format!("jammed-{}", a.name());
    cluster
        .wait("the emergency is shown", 30, || a.link_is(&jammed, "1"))
        .map(drop)
}

/// Without giving up a device that is open; one that nobody holds goes away for a moment.
fn log_again(cluster: &Cluster, a: &Node) -> Result {
    a.run("rm -f /mars/.ballast")?;
    a.run(&format!("marsadm secondary {RESOURCE}"))?;
    a.run(&format!("marsadm primary {RESOURCE}"))?;
    logging_is_back(cluster, a)?;
    cluster.wait_device(a)
}

#[test]
fn the_way_back_syncs_what_was_written_meanwhile_and_no_more() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        small_mars(a)?;
        a.run("fallocate -l 40M /mars/.ballast")?;
        cluster.replicate(256 << 20)?;
        let mut holder = a.spawn("holder", &format!("exec 3<>{DEVICE}; echo open; sleep 600"))?;
        cluster.wait("the device is open", 10, || {
            holder.output().contains("open")
        })?;
        cluster.cut(a, b)?;
        run_full(cluster, a, "fill")?;
        // Both processes die in the middle of it, one after the other.
        let written = 16u64 << 20;
        fio(a, "first", 64, 8, "")?;
        a.kill9("mars-shim")?;
        fio(a, "second", 128, 4, "")?;
        a.kill9("marsd")?;
        let mut marsd = a.start_marsd()?;
        fio(a, "third", 192, 4, "")?;
        cluster.heal(a, b)?;
        cluster.wait("the other node is marked", 60, || !b.is_synced(RESOURCE))?;
        log_again(cluster, a)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        let (compared, received) = last_sync(b);
        println!(
            "written in the emergency: {written} bytes and the end of the filling; compared {compared}, received {received}"
        );
        assert!(received < 3 * written, "{received} bytes for {written}");
        assert!(compared < 3 * written, "{compared} bytes for {written}");
        assert!(holder.runs(), "the device was open all the time");
        same_disks(a, b, DISK)?;
        cluster.wait("nothing is left to be known of the gap", 30, || {
            a.own(RESOURCE, "unlogged").as_deref() == Some("none")
        })?;
        assert!(marsd.runs());
        a.kill9("sleep").map(drop)
    })
}

#[test]
fn a_second_emergency_before_the_way_back_and_a_damaged_map() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        small_mars(a)?;
        a.run("fallocate -l 40M /mars/.ballast")?;
        cluster.replicate(64 << 20)?;
        cluster.cut(a, b)?;
        run_full(cluster, a, "fill")?;
        fio(a, "first", 16, 2, "")?;
        log_again(cluster, a)?;
        fio(a, "between", 20, 2, "")?;
        a.run("dd if=/dev/zero of=/mars/.ballast bs=64k status=none; true")?;
        run_full(cluster, a, "again")?;
        fio(a, "second", 24, 2, "")?;
        log_again(cluster, a)?;
        cluster.heal(a, b)?;
        cluster.wait("all gaps are crossed", 90, || {
            a.own(RESOURCE, "unlogged").as_deref() == Some("none")
        })?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)?;
        let log = b.log("marsd");
        assert_eq!(log.matches("past its logs in place of log").count(), 2);
        assert!(!log.contains("everything is synced"), "{log}");
        cluster.cut(a, b)?;
        a.run("dd if=/dev/zero of=/mars/.ballast bs=64k status=none; true")?;
        run_full(cluster, a, "third")?;
        a.run(&format!(
            "printf x | dd of=/mars/resource-{RESOURCE}/.unlogged bs=1 seek=5000 conv=notrunc status=none"
        ))?;
        log_again(cluster, a)?;
        cluster.heal(a, b)?;
        cluster.wait("everything is synced", 60, || {
            b.log("marsd").contains("everything is synced anew")
        })?;
        cluster.wait_caught_up(RESOURCE, a, b, 90)?;
        same_disks(a, b, DISK)
    })
}
