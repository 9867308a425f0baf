//! Figures of replication: catching up, sync, handover, how fast a switch is seen.

use std::time::{Duration, Instant};

use mars_tests::setup::{DEVICE, DISK, RESOURCE};
use mars_tests::{Cluster, Result};

use crate::Args;
use crate::report::Report;

/// Data written while the secondary is away, in MiB.
const AWAY_MIB: u64 = 512;

/// Measures all figures that are asked for.
pub(crate) fn measure(cluster: &Cluster, args: &Args, report: &mut Report) -> Result {
    type Measure = fn(&Cluster, &Args, &mut Report) -> Result;
    let all: [(&str, Measure); 4] = [
        ("catch-up", catch_up),
        ("sync", sync),
        ("switch visible", switch_visible),
        ("planned handover", handover),
    ];
    for (name, measure) in all.into_iter().filter(|m| m.0.contains(&args.only)) {
        println!("measuring: {name}");
        measure(cluster, args, report)?;
    }
    Ok(())
}

fn mib_per_sec(mib: u64, time: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let mib = mib as f64;
    mib / time.as_secs_f64()
}

fn catch_up(cluster: &Cluster, args: &Args, report: &mut Report) -> Result {
    let (a, b) = (&cluster[0], &cluster[1]);
    let amount = AWAY_MIB.min(args.size_mib);
    let mut rates = Vec::new();
    for _ in 0..args.rounds {
        b.stop_marsd()?;
        a.run(&format!("dd if=/dev/urandom of={DEVICE} bs=1M count={amount} oflag=direct conv=fsync status=none"))?;
        let begin = Instant::now();
        let _marsd = b.start_marsd()?;
        cluster.wait_caught_up(RESOURCE, a, b, 600)?;
        rates.push(mib_per_sec(amount, begin.elapsed()));
    }
    report.figure("catch-up rate", "MiB/s", &rates);
    Ok(())
}

fn sync(cluster: &Cluster, args: &Args, report: &mut Report) -> Result {
    let (a, b) = (&cluster[0], &cluster[1]);
    for (name, percent) in [("sync of equal data", 0), ("sync of 1% different data", 1)] {
        let mut rates = Vec::new();
        for _ in 0..args.rounds {
            b.run(&format!(
                "marsadm pause-sync-local {RESOURCE} && marsadm invalidate {RESOURCE}"
            ))?;
            b.stop_marsd()?;
            // 4 KiB blocks, spread evenly.
            let count = args.size_mib * 256 * percent / 100;
            if count > 0 {
                b.run(&format!(
                    "fio --name=scribble --filename={DISK} --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite \
                     --bs=4k --io_size={}k --randrepeat=0 >/dev/null",
                    count * 4
                ))?;
            }
            let _marsd = b.start_marsd()?;
            let begin = Instant::now();
            b.run(&format!("marsadm resume-sync-local {RESOURCE}"))?;
            cluster.wait("the sync has ended", 600, || b.is_synced(RESOURCE))?;
            rates.push(mib_per_sec(args.size_mib, begin.elapsed()));
            cluster.wait_caught_up(RESOURCE, a, b, 300)?;
        }
        report.figure(name, "MiB/s", &rates);
    }
    Ok(())
}

fn switch_visible(cluster: &Cluster, _: &Args, report: &mut Report) -> Result {
    let (a, b) = (&cluster[0], &cluster[1]);
    let link = format!("resource-{RESOURCE}/todo-{}/sync", a.name());
    let mut times = Vec::new();
    for (command, value) in [("pause-sync", "0"), ("resume-sync", "1")]
        .into_iter()
        .cycle()
        .take(10)
    {
        a.run(&format!("marsadm {command} {RESOURCE}"))?;
        let begin = Instant::now();
        cluster.wait("the switch is seen", 10, || b.link_is(&link, value))?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    report.figure("switch visible after", "ms", &times);
    Ok(())
}

fn handover(cluster: &Cluster, args: &Args, report: &mut Report) -> Result {
    let mut times = Vec::new();
    for round in 0..args.rounds * 2 {
        let (from, to) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        let begin = Instant::now();
        cluster.hand_over(&cluster[from], &cluster[to])?;
        times.push(begin.elapsed().as_secs_f64());
    }
    report.figure("planned handover", "s", &times);
    Ok(())
}
