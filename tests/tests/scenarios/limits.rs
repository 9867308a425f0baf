//! Parameters: half the limit gives half the rate, a high load pauses the data and nothing else, and who sets what.

use std::time::Instant;

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Context, Node, Result, scenario};

const MIB: u64 = 1 << 20;
/// Whatever the limit, half of it has to give half the rate within this part.
const TOLERANCE: f64 = 0.15;

fn set(node: &Node, name: &str, value: &str) -> Result {
    node.run(&format!("echo {value} > /run/mars/sys/{name}"))
        .map(drop)
}

fn says(node: &Node, name: &str) -> String {
    node.run(&format!("cat /run/mars/sys/{name}"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Sets a limit and waits until it has taken effect.
fn limit(cluster: &Cluster, node: &Node, name: &str, value: u64) -> Result {
    set(node, name, &value.to_string())?;
    let wanted = format!("{name} is {value} now");
    cluster
        .wait(&wanted, 10, || {
            let log = node.log("marsd");
            let last = log.lines().rfind(|l| l.contains(&format!("{name} is ")));
            last.is_some_and(|l| l.contains(&wanted))
        })
        .map(drop)
}

fn log_bytes(node: &Node) -> u64 {
    node.logs(RESOURCE).iter().map(|(_, size)| size).sum()
}

fn synced_bytes(node: &Node) -> u64 {
    let text = node.own(RESOURCE, "syncstatus").unwrap_or_default();
    text.parse().unwrap_or(0)
}

/// Bytes per second between two steps of what `bytes` tells, the second at least `len` bytes behind the first.
fn rate(cluster: &Cluster, len: u64, bytes: impl Fn() -> u64) -> Result<f64> {
    let mut seen = [(bytes(), Instant::now()); 2];
    for (n, step) in [(0, 1), (1, len)] {
        let from = seen[0].0 + step;
        cluster.wait("data comes", 60, || {
            seen[n] = (bytes(), Instant::now());
            seen[n].0 >= from
        })?;
    }
    let [(first, begin), (last, end)] = seen;
    let bytes = u32::try_from(last - first).context("too much data")?;
    Ok(f64::from(bytes) / (end - begin).as_secs_f64())
}

/// Halves a limit while data comes, and compares the rates. A machine that is busy for a moment makes one comparison
/// useless: of one that fails, and two more, the median counts.
fn halves(
    cluster: &Cluster,
    (node, name, whole): (&Node, &str, u64),
    bytes: impl Fn() -> u64,
) -> Result {
    let off = |ratio: f64| (ratio - 0.5).abs() > 0.5 * TOLERANCE;
    let mut ratios = vec![halved(cluster, (node, name, whole), &bytes)?];
    shows(node)?;
    if off(ratios[0]) {
        for _ in 0..2 {
            ratios.push(halved(cluster, (node, name, whole), &bytes)?);
        }
        ratios.sort_by(f64::total_cmp);
    }
    let ratio = ratios[ratios.len() / 2];
    assert!(!off(ratio), "{name}: {ratios:.3?}");
    limit(cluster, node, name, 0)
}

/// The rate under half of a limit as a part of that under the whole of it.
fn halved(
    cluster: &Cluster,
    (node, name, whole): (&Node, &str, u64),
    bytes: impl Fn() -> u64,
) -> Result<f64> {
    let mut rates = [0.0; 2];
    // The second is measured for longer than what mars-status shows looks back.
    for (n, (value, len)) in [(whole, 8 * MIB), (whole / 2, 14 * MIB)]
        .into_iter()
        .enumerate()
    {
        limit(cluster, node, name, value)?;
        rates[n] = rate(cluster, len, &bytes)?;
    }
    let [fast, slow] = rates.map(|r| r / f64::from(1 << 20));
    let ratio = rates[1] / rates[0];
    println!(
        "{name} {whole} and {}: {fast:.2} and {slow:.2} MiB/s, ratio {ratio:.3}",
        whole / 2
    );
    Ok(ratio)
}

/// Prints what is shown of the rates, which has to name a limit.
fn shows(node: &Node) -> Result {
    let shown = node.try_run("mars-status --system")?.text;
    let shown = shown.lines().find(|l| {
        l.contains("current")
            && (l.contains("Network-Traffic") || l.contains("Server-IO"))
            && l.contains(" is set to ")
    });
    let link = |key| node.actual(RESOURCE, key).unwrap_or_default();
    println!(
        "  {}; sync_rate {}, file_rate {}",
        shown.context("no line of mars-status shows the limit")?,
        link("sync_rate"),
        link("file_rate")
    );
    Ok(())
}

/// Lets the secondary fall behind by as much log as three comparisons need.
fn fall_behind(cluster: &Cluster, a: &Node, b: &Node, seed: u64) -> Result {
    cluster.wait_caught_up(RESOURCE, a, b, 60)?;
    b.run(&format!("marsadm disconnect {RESOURCE}"))?;
    cluster.wait("no log is fetched", 30, || {
        b.actual(RESOURCE, "logfile-update").as_deref() != Some("1")
    })?;
    a.run(&format!("mars-node load {DEVICE} {seed} 0 8192 25000 500"))
        .map(drop)
}

#[test]
fn half_the_limit_gives_half_the_rate() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        cluster.create_resource(128 * MIB)?;
        a.run(&format!(
            "dd if=/dev/urandom of={DEVICE} bs=1M oflag=direct status=none; marsadm log-rotate {RESOURCE}"
        ))?;
        cluster.wait("the second log is begun", 60, || {
            a.replay(RESOURCE).is_some_and(|at| at.log.seq == 2)
        })?;
        b.add_disk(DISK, 128 * MIB)?;
        b.run(&format!("marsadm join-cluster {}", a.name()))?;
        b.start_marsd()?;
        limit(cluster, b, "network_traffic_limit_kb", 8192)?;
        cluster.wait("the joined node knows the resource", 30, || {
            let link = |kind: &str| format!("resource-{RESOURCE}/{kind}-{}", a.name());
            b.link(&link("data")).is_some() && b.link(&link("replay")).is_some()
        })?;
        b.run(&format!("marsadm join-resource {RESOURCE} {DISK}"))?;
        let traffic = "network_traffic_limit_kb";
        halves(cluster, (b, traffic, 8192), || synced_bytes(b))?;
        for (seed, (node, name, whole)) in [
            (b, traffic, 8192),
            (a, traffic, 8192),
            (a, "server_io_limit_mb", 8),
        ]
        .into_iter()
        .enumerate()
        {
            fall_behind(cluster, a, b, u64::try_from(seed).unwrap_or(0))?;
            limit(cluster, node, name, whole)?;
            b.run(&format!("marsadm connect {RESOURCE}"))?;
            halves(cluster, (node, name, whole), || log_bytes(b))?;
        }
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn a_high_load_pauses_the_data_and_values_come_from_where_they_should() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(32 * MIB)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        for (seed, node) in (1..).zip([b, a]) {
            pause(cluster, a, b, node, seed)?;
        }
        exhaust(cluster, b)?;
        memory(cluster, a)?;
        permanent(cluster, a, b)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}

/// The load of `node` reaches its limit: the log stands still on the secondary, the state travels on.
fn pause(cluster: &Cluster, a: &Node, b: &Node, node: &Node, seed: u64) -> Result {
    node.run(
        "echo '9.50 9.00 8.00 1/100 1' > /tmp/loadavg; mount --bind /tmp/loadavg /proc/loadavg",
    )?;
    set(node, "loadavg_limit", "5")?;
    let text = format!(
        "data transfer pauses: the load average of {} has reached loadavg_limit 5",
        node.name()
    );
    cluster.wait(&text, 10, || node.log("marsd").contains(&text))?;
    cluster.wait("no log is fetched", 30, || {
        b.actual(RESOURCE, "logfile-update").as_deref() != Some("1")
    })?;
    let before = log_bytes(b);
    a.run(&format!("mars-node load {DEVICE} {seed} 0 4096 500 50"))?;
    let replay = format!("resource-{RESOURCE}/replay-{}", a.name());
    cluster.wait("state still travels", 30, || {
        let known = b.link(&replay);
        known == a.link(&replay) && a.replay(RESOURCE).is_some_and(|at| at.pos > before)
    })?;
    cluster.wait("the reason is shown", 60, || {
        b.actual(RESOURCE, "error")
            .is_some_and(|e| e.contains(&text))
    })?;
    assert_eq!(log_bytes(b), before, "log bytes came in spite of the load");
    node.run("echo '4.99 9.00 8.00 1/100 1' > /tmp/loadavg")?;
    cluster.wait_caught_up(RESOURCE, a, b, 60)?;
    cluster.wait("the reason is gone", 30, || {
        b.actual(RESOURCE, "error").as_deref() == Some("none")
    })?;
    node.run("umount /proc/loadavg")?;
    set(node, "loadavg_limit", "0")
}

/// More space is to be left free than there is.
fn exhaust(cluster: &Cluster, b: &Node) -> Result {
    let exhausted = format!("exhausted-{}", b.name());
    for (value, state) in [("1073741824", "1"), ("default", "0")] {
        set(b, "free_space_mb", value)?;
        cluster.wait("free_space_mb counts", 20, || b.link_is(&exhausted, state))?;
    }
    Ok(())
}

/// A shim that is started under a limit of memory is told its part of it.
fn memory(cluster: &Cluster, a: &Node) -> Result {
    for percent in ["2", "1"] {
        limit(
            cluster,
            a,
            "percent_mem_limit_kb",
            percent.parse().unwrap_or(0),
        )?;
        a.run(&format!("marsadm detach {RESOURCE}"))?;
        cluster.wait("the device is gone", 30, || !a.serves(RESOURCE))?;
        a.run(&format!("marsadm attach {RESOURCE}"))?;
        cluster.wait_device(a)?;
        let words = a.run("tr '\\0' ' ' < /proc/$(pgrep -x mars-shim)/cmdline")?;
        let table = a.run("cat /proc/meminfo")?;
        let memory = mars_core::limit::parse_memory(&table).context("no MemTotal")?;
        let mib = memory / 100 * percent.parse::<u64>().unwrap_or(0) / MIB;
        println!("percent_mem_limit_kb {percent}: {words}");
        assert!(words.contains(&format!("--dirty-mib {mib}")), "{words}");
    }
    limit(cluster, a, "percent_mem_limit_kb", 0)
}

fn permanent(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    let name = "network_io_timeout";
    let becomes = |node: &Node, value: &str| {
        let what = format!("{name} is {value} on {}", node.name());
        cluster.wait(&what, 20, || says(node, name) == value)
    };
    a.run(&format!("ln -s 60 /mars/defaults/{name}"))?;
    becomes(a, "60")?;
    becomes(b, "60")?;
    set(b, name, "5")?;
    let wanted = format!(
        "/run/mars/sys/{name}: {name} cannot be '5': allowed are seconds from 10 to 86400, or 0; it stays 60"
    );
    cluster.wait(&wanted, 10, || b.log("marsd").contains(&wanted))?;
    becomes(b, "60")?;
    set(b, name, "90")?;
    let status = b.run("cat /run/mars/sys/*_limit_*; mars-status --json --system")?;
    assert!(status.contains("\"network_io_timeout\""), "{status}");
    b.stop_marsd()?;
    b.start_marsd()?;
    becomes(b, "60")?;
    b.stop_marsd()?;
    b.run(&format!("echo '{name} = 70 # seconds' > /root/mars.conf"))?;
    b.spawn("marsd", "MARS_CONF=/root/mars.conf exec marsd")?;
    becomes(b, "70")?;
    becomes(a, "60")?;
    a.run(&format!("ln -sfn default /mars/defaults/{name}"))?;
    becomes(a, "30")?;
    cluster
        .wait("marsd is alive again", 30, || {
            b.link_is(&format!("alive-{}", b.name()), "1")
        })
        .map(drop)
}
