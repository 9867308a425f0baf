//! fio on the bare loop device and on `/dev/mars/R`, in turn.

use std::time::Duration;

use mars_tests::error::{Context, fail};
use mars_tests::setup::{DEVICE, RESOURCE};
use mars_tests::{Cluster, Node, Result};
use serde_json::Value;

use crate::Args;
use crate::report::Report;
use crate::second_machine;

const BARE: &str = "/dev/vg/bare";

/// Name, arguments of fio, and whether it writes.
const CASES: [(&str, &str, bool); 6] = [
    (
        "4k random write QD1",
        "--rw=randwrite --bs=4k --iodepth=1",
        true,
    ),
    (
        "4k random write QD32",
        "--rw=randwrite --bs=4k --iodepth=32",
        true,
    ),
    (
        "1M sequential write",
        "--rw=write --bs=1M --iodepth=1",
        true,
    ),
    (
        "4k O_SYNC write",
        "--rw=randwrite --bs=4k --iodepth=1 --sync=1",
        true,
    ),
    (
        "4k random read QD1",
        "--rw=randread --bs=4k --iodepth=1",
        false,
    ),
    (
        "4k random read QD32",
        "--rw=randread --bs=4k --iodepth=32",
        false,
    ),
];

/// Measures all cases; the secondary replays meanwhile, and has caught up before each next case.
pub(crate) fn measure(cluster: &Cluster, args: &Args, report: &mut Report) -> Result {
    let a = &cluster[0];
    a.add_disk(BARE, args.size_mib << 20)?;
    for device in [BARE, DEVICE] {
        a.run(&format!(
            "dd if=/dev/zero of={device} bs=1M oflag=direct status=none || test $? = 1"
        ))?;
    }
    for (name, words, writes) in CASES.into_iter().filter(|c| c.0.contains(&args.only)) {
        let mut pairs = Vec::new();
        for _ in 0..args.rounds {
            let speed = |device: &str| -> Result<f64> {
                rest(cluster, args)?;
                rotate(cluster, args)?;
                over_the_line(cluster, args, || {
                    iops(a, device, words, writes, args.seconds)
                })
            };
            pairs.push((speed(BARE)?, speed(DEVICE)?));
        }
        report.compare(name, "iops", &pairs);
    }
    if "ext4 4k fsync".contains(&args.only) {
        ext4(cluster, args, report)?;
    }
    Ok(())
}

/// Measures while the secondary is as far away as in life.
fn over_the_line<T>(cluster: &Cluster, args: &Args, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if args.alone {
        return work();
    }
    second_machine::slow_line(cluster.nodes())?;
    let done = work();
    second_machine::fast_line(cluster.nodes())?;
    done
}

/// The secondary has replayed everything.
fn rest(cluster: &Cluster, args: &Args) -> Result {
    if args.alone {
        return Ok(());
    }
    cluster.wait_caught_up(RESOURCE, &cluster[0], &cluster[1], 300)
}

/// Keeps the logs from filling the disk of the machine.
fn rotate(cluster: &Cluster, args: &Args) -> Result {
    let a = &cluster[0];
    a.run(&format!("marsadm log-rotate {RESOURCE}"))?;
    rest(cluster, args)?;
    // Nothing to delete is no failure here.
    a.try_run(&format!("marsadm log-delete-all {RESOURCE}"))
        .map(drop)
}

fn iops(node: &Node, target: &str, words: &str, writes: bool, seconds: u32) -> Result<f64> {
    let script = format!(
        "fio --name=bench --filename={target} --direct=1 --ioengine=libaio --time_based --runtime={seconds} \
         --randrepeat=0 --norandommap --output-format=json {words}"
    );
    let text = node
        .try_run_for(&script, Duration::from_secs(u64::from(seconds) + 120))?
        .good()?;
    let begin = text.find('{').context("fio printed no JSON")?;
    let value: Value = serde_json::from_str(&text[begin..]).context("read what fio printed")?;
    let side = if writes { "write" } else { "read" };
    value["jobs"][0][side]["iops"]
        .as_f64()
        .ok_or_else(|| fail("fio printed no iops"))
}

fn ext4(cluster: &Cluster, args: &Args, report: &mut Report) -> Result {
    let a = &cluster[0];
    let places = [(BARE, "/mnt/bare"), (DEVICE, "/mnt/mars")];
    for (device, dir) in places {
        a.run(&format!(
            "mkfs.ext4 -q -F {device} && mkdir -p {dir} && mount {device} {dir}"
        ))?;
    }
    let words = "--rw=randwrite --bs=4k --iodepth=1 --fsync=1 --size=64M";
    let mut pairs = Vec::new();
    for _ in 0..args.rounds {
        let speed = |dir: &str| -> Result<f64> {
            rest(cluster, args)?;
            over_the_line(cluster, args, || {
                iops(a, &format!("{dir}/file"), words, true, args.seconds)
            })
        };
        pairs.push((speed(places[0].1)?, speed(places[1].1)?));
    }
    for (_, dir) in places {
        a.run(&format!("umount {dir}"))?;
    }
    report.compare("ext4 4k fsync", "iops", &pairs);
    Ok(())
}
