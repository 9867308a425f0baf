//! Bad input stops one thing, with an error that names place and cause; the daemon and other resources go on.

use mars_tests::oracle::{is_caught_up, same_disks};
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Context, Node, Result, scenario};

fn load(node: &Node, device: &str, seed: u64) -> Result {
    node.run(&format!("mars-node load {device} {seed} 0 1024 500 50"))
        .map(drop)
}

fn error(node: &Node, resource: &str) -> String {
    node.actual(resource, "error")
        .unwrap_or_else(|| "none".into())
}

/// A second resource, which must not be concerned.
fn other_resource(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    for node in [a, b] {
        node.add_disk("/dev/vg/other", 16 << 20)?;
    }
    a.run("marsadm create-resource other /dev/vg/other")?;
    cluster.wait("the other resource is known", 30, || {
        b.link(&format!("resource-other/replay-{}", a.name()))
            .is_some()
    })?;
    b.run("marsadm join-resource other /dev/vg/other")?;
    cluster.wait("the other resource is synced", 60, || b.is_synced("other"))?;
    Ok(())
}

/// Writes to both resources; the bad one stands still, the other goes on.
fn only_one_stops(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    load(a, "/dev/mars/other", 9)?;
    cluster.wait("the other resource goes on", 60, || {
        is_caught_up(a, b, "other")
    })?;
    assert_eq!(error(b, "other"), "none");
    same_disks(a, b, "/dev/vg/other")?;
    assert!(
        !is_caught_up(a, b, RESOURCE),
        "the damaged resource has gone on"
    );
    Ok(())
}

/// Lets the secondary fetch a log without replaying it, damages its copy, and lets it replay.
fn damaged_log(damage: &str) -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(16 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        other_resource(cluster, a, b)?;
        b.run(&format!("marsadm pause-replay-local {RESOURCE}"))?;
        let begin = b.replay(RESOURCE).context("replay position")?;
        load(a, DEVICE, 1)?;
        cluster.wait("the log is fetched", 60, || {
            let (here, there) = (a.logs(RESOURCE).pop(), b.logs(RESOURCE).pop());
            here == there && here.is_some_and(|(_, size)| size > begin.pos + 400 * 4180)
        })?;
        // From the 101st record on; each is 4180 bytes long. No connection may repair it meanwhile.
        b.run(&format!("marsadm disconnect-local {RESOURCE}"))?;
        let at = begin.pos + 100 * 4180;
        b.run(&format!(
            "log=$(ls /mars/resource-{RESOURCE}/log-*); at={at}; {damage}"
        ))?;
        b.run(&format!("marsadm resume-replay-local {RESOURCE}"))?;
        cluster.wait("replay has come to the damage", 60, || {
            b.replay(RESOURCE).is_some_and(|r| r.pos >= at)
        })?;
        let place = format!("invalid record at byte {at}");
        cluster.wait("the damage is reported with its place", 60, || {
            let log = b.log("marsd");
            log.lines()
                .any(|l| l.contains("log-000000001") && l.contains(&place))
        })?;
        // Exactly the good records are applied.
        assert_eq!(b.replay(RESOURCE).map(|r| r.pos), Some(at));
        let debug = b.try_run("mars-status --debug")?.text;
        assert!(debug.contains(&place), "{debug}");
        only_one_stops(cluster, a, b)
    })
}

#[test]
fn a_bit_flipped_record_stops_its_resource() -> Result {
    // The first byte of the magic.
    damaged_log("printf '\\x56' | dd of=$log bs=1 seek=$at conv=notrunc status=none")
}

#[test]
fn a_torn_record_stops_its_resource() -> Result {
    // The record's end and all that follows was never written.
    damaged_log("size=$(stat -c %s $log); truncate -s $((at + 2000)) $log; truncate -s $size $log")
}

#[test]
fn a_garbage_value_is_reported_and_stops_nothing_else() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(16 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        other_resource(cluster, a, b)?;
        let name = format!("resource-{RESOURCE}/replay-{}", b.name());
        b.run(&format!("ln -sfn garbage /mars/{name}"))?;
        cluster.wait("the link is reported with path and value", 30, || {
            let log = b.log("marsd");
            log.lines()
                .any(|l| l.contains(&name) && l.contains("garbage"))
        })?;
        load(a, DEVICE, 1)?;
        load(a, "/dev/mars/other", 9)?;
        cluster.wait("the other resource goes on", 60, || {
            is_caught_up(a, b, "other")
        })?;
        assert!(!b.processes("marsd")?.is_empty(), "marsd has ended");
        Ok(())
    })
}

#[test]
fn an_unknown_peer_and_a_wrong_key_get_no_byte() -> Result {
    scenario(&[PAIR[0], PAIR[1], "db-1"], |cluster| {
        let (a, b, stranger) = (&cluster[0], &cluster[1], &cluster[2]);
        cluster.create_resource(16 << 20)?;
        cluster.join_resource(b)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        // A cluster of its own that claims to know the others.
        stranger.run("marsadm create-cluster")?;
        for node in [a, b] {
            for kind in ["ip", "key"] {
                let path = format!("ips/{kind}-{}", node.name());
                let value = node.link(&path).context("address and key")?;
                stranger.run(&format!("ln -s {value} /mars/{path}"))?;
            }
        }
        stranger.start_marsd()?;
        cluster.wait("the stranger is refused", 30, || {
            a.log("marsd")
                .lines()
                .any(|l| l.contains("10.77.0.3") || l.contains("db-1"))
        })?;
        // A member whose key is not the one it had at the time of join-cluster.
        let key = format!("ips/key-{}", b.name());
        let wrong = "0123456789abcdef".repeat(4);
        a.run(&format!("marsd=$(pidof marsd); kill $marsd; while kill -0 $marsd 2>/dev/null; do sleep 0.05; done; ln -sfn {wrong} /mars/{key}; touch -h -d '+1 hour' /mars/{key}"))?;
        a.start_marsd()?;
        cluster.wait_device(a)?;
        load(a, DEVICE, 1)?;
        assert!(!is_caught_up(a, b, RESOURCE));
        cluster.wait("the wrong key is reported", 30, || {
            let log = a.log("marsd") + &b.log("marsd");
            log.lines().any(|l| l.to_lowercase().contains("key"))
        })?;
        assert!(
            stranger
                .link(&format!("resource-{RESOURCE}/size"))
                .is_none()
        );
        assert!(
            !is_caught_up(a, b, RESOURCE),
            "bytes were sent to a node with another key"
        );
        assert_eq!(
            a.run(&format!("test -b {DEVICE} && echo served"))?.trim(),
            "served"
        );
        cluster.wait("the primary has written back", 30, || {
            let end = a.logs(RESOURCE).pop();
            matches!((end, a.replay(RESOURCE)), (Some((log, size)), Some(at))
                if at.log.to_string() == log && at.pos == size && size > 0)
        })?;
        same_disks(a, b, DISK).expect_err("nothing was replicated");
        Ok(())
    })
}
