//! Chapter 7 of the documentation, "Betriebsfälle": every case that it names, on a live cluster, resolved the way that stands
//! there, with equal disks at the end.
//!
//! | chapter | case | scenario |
//! |---|---|---|
//! | 7.1 | log.txt fills `/mars`: shown, pass-through, secondaries marked; room, `secondary`, `primary`, sync | [`case_7_1_log_txt_or_anything_fills_the_tree`] |
//! | 7.1 | something foreign fills it to the last block, and the primary is started anew then | the same |
//! | 7.1 | logs fill it: what nobody needs is rotated and deleted | `space_emergency::logs_that_nobody_needs_make_room` |
//! | 7.1 | that does not suffice: pass-through, secondaries marked, way back | `space_emergency::a_primary_without_room_…`, `…::the_way_back_…` |
//! | 7.1 | twice in a row, a lost map, processes killed meanwhile | `space_emergency::a_second_emergency_…`, `…::the_way_back_…` |
//! | 7.1 | rotation and deletion by cron: `log-rotate all`, `log-delete-all all` | `chapters::chapter_3_7_logs` |
//! | 7.1, 5.5, 5.6 | rotation at a size, deletion below a rest of space | [`case_7_1_logs_are_rotated_and_deleted_at_their_limits`] |
//! | 7.2 | the copy of a log on the secondary is damaged | `log_damage`, `bad_input` (without a connection) |
//! | 7.2 | the log of the primary itself is damaged, the one that it writes | [`case_7_2_logs_that_are_damaged_or_missing`] |
//! | 7.2 | a log is missing on the secondary; on the primary, the one that it writes | the same |
//! | 7.2 | the primary has failed and comes back without logs that the secondary lacks | [`case_7_2_a_primary_comes_back_without_its_logs`] |
//! | 7.2 | the primary's `/mars` was full, so that logs were never written | 7.1 |
//! | 7.3 | split brain: shown, primary chosen by hand, the others synced | `split_brain`, `chaos` |

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Context, Node, Result, scenario};

/// Bytes of the record of a block.
const RECORD: u64 = 4180;

fn write(node: &Node, seed: u64) -> Result {
    node.run(&format!("mars-node load {DEVICE} {seed} 0 2048 600 50"))
        .map(drop)
}

/// Waits until the error of a node says all this, and that mars-status shows it as something to be done.
fn shows(cluster: &Cluster, node: &Node, words: &[&str]) -> Result {
    let what = format!("{} shows {words:?}", node.name());
    cluster.wait(&what, 60, || {
        let error = node.actual(RESOURCE, "error").unwrap_or_default();
        words.iter().all(|word| error.contains(word))
    })?;
    let status = node.try_run("mars-status")?.text;
    let mut todo = status.lines().filter(|line| line.contains("---> TODO: "));
    assert!(
        todo.any(|l| words.iter().all(|w| l.contains(w))),
        "{status}"
    );
    Ok(())
}

/// The repair of 7.2, on the primary, and the sync that follows; then all is well again.
fn invalidate_remote(cluster: &Cluster, a: &Node, b: &Node, seed: u64) -> Result {
    a.run(&format!("MARSADM invalidate-remote {RESOURCE}"))?;
    all_is_well(cluster, a, b, seed)
}

fn all_is_well(cluster: &Cluster, a: &Node, b: &Node, seed: u64) -> Result {
    write(a, seed)?;
    cluster.wait_caught_up(RESOURCE, a, b, 60)?;
    same_disks(a, b, DISK)?;
    cluster
        .wait("no error is shown any more", 30, || {
            [a, b].iter().all(|node| {
                let error = node.actual(RESOURCE, "error");
                error.is_none_or(|error| error == "none")
            })
        })
        .map(drop)
}

/// Path of the log in which a node stands.
fn log_of(node: &Node) -> Result<String> {
    let at = node.replay(RESOURCE).context("replay position")?;
    Ok(format!("/mars/resource-{RESOURCE}/{}", at.log))
}

fn rotate(cluster: &Cluster, node: &Node) -> Result {
    let before = node.replay(RESOURCE).map_or(0, |at| at.log.seq);
    node.run(&format!("marsadm log-rotate {RESOURCE}"))?;
    cluster
        .wait("the log is rotated", 30, || {
            node.replay(RESOURCE).is_some_and(|at| at.log.seq > before)
        })
        .map(drop)
}

#[test]
fn case_7_2_logs_that_are_damaged_or_missing() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(16 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        // Missing on the secondary, in the middle of replay: fetched again.
        write(a, 1)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        b.run(&format!("rm {}", log_of(b)?))?;
        all_is_well(cluster, a, b, 2)?;

        damaged_on_both(cluster, a, b)?;
        invalidate_remote(cluster, a, b, 4)?;

        // The one that the primary writes is removed there, before the secondary has all of it.
        b.run(&format!("marsadm disconnect-local {RESOURCE}"))?;
        cluster.wait("no log is fetched", 30, || {
            b.actual(RESOURCE, "logfile-update").as_deref() == Some("0")
        })?;
        write(a, 5)?;
        let lost = log_of(a)?;
        a.run(&format!("rm {lost}"))?;
        shows(cluster, a, &["is missing", "marsadm invalidate-remote r1"])?;
        write(a, 6)?;
        b.run(&format!("marsadm connect-local {RESOURCE}"))?;
        let name = lost.rsplit('/').next().unwrap_or_default();
        shows(cluster, b, &[name, "No such file"])?;
        invalidate_remote(cluster, a, b, 7)
    })
}

/// The log that the primary writes is damaged there, and the copy of the secondary as well, before the secondary has
/// replayed it: it does not go past that, and both say what to do.
fn damaged_on_both(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    b.run(&format!("marsadm pause-replay-local {RESOURCE}"))?;
    let begin = b.replay(RESOURCE).context("replay position")?.pos;
    write(a, 3)?;
    cluster.wait("the log is fetched", 60, || {
        let (here, there) = (a.logs(RESOURCE).pop(), b.logs(RESOURCE).pop());
        let is_whole = here
            .as_ref()
            .is_some_and(|(_, size)| *size == begin + 600 * RECORD);
        is_whole && here == there
    })?;
    let (log, at) = (log_of(a)?, begin + 200 * RECORD);
    for node in [a, b] {
        node.run(&format!(
            "printf x | dd of={log} bs=1 seek={} conv=notrunc status=none",
            at + 1000
        ))?;
    }
    b.run(&format!("marsadm resume-replay-local {RESOURCE}"))?;
    let place = format!("is damaged at byte {at}");
    shows(
        cluster,
        b,
        &["log-000000001", &place, "marsadm invalidate r1"],
    )?;
    shows(
        cluster,
        a,
        &["log-000000001", &place, "marsadm invalidate-remote r1"],
    )?;
    assert_eq!(
        b.replay(RESOURCE).map(|r| r.pos),
        Some(at),
        "all before it is replayed"
    );
    // It is not fetched again and again.
    let fetched = b.log("marsd").matches("invalid record at byte").count();
    assert!(fetched <= 8, "fetched {fetched} times");
    Ok(())
}

#[test]
fn case_7_2_a_primary_comes_back_without_its_logs() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(16 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        // An old log that the secondary does not have yet.
        cluster.cut(a, b)?;
        let old = log_of(a)?;
        for seed in 1..=2 {
            write(a, seed)?;
            rotate(cluster, a)?;
        }
        write(a, 3)?;
        come_back_without(cluster, a, b, &old)?;
        cluster.wait_device(a)?;
        shows(cluster, b, &["log-000000001", "marsadm invalidate r1"])?;
        invalidate_remote(cluster, a, b, 4)?;

        // The log that it was writing: what is in no other place is lost, and it goes on only by order.
        cluster.cut(a, b)?;
        write(a, 5)?;
        cluster.wait("all is written back", 30, || {
            a.replay(RESOURCE)
                .is_some_and(|at| at.dirty_len == 0 && at.pos > 600 * RECORD)
        })?;
        let newest = log_of(a)?;
        come_back_without(cluster, a, b, &newest)?;
        shows(
            cluster,
            a,
            &[
                "is missing",
                "marsadm log-rotate r1",
                "marsadm invalidate-remote r1",
            ],
        )?;
        assert!(!a.serves(RESOURCE), "it goes on by itself");
        a.run(&format!("MARSADM log-rotate {RESOURCE}"))?;
        cluster.wait_device(a)?;
        invalidate_remote(cluster, a, b, 6)
    })
}

/// The primary dies, and comes back without a file.
fn come_back_without(cluster: &Cluster, a: &Node, b: &Node, path: &str) -> Result {
    a.power_off()?;
    let file = a.dir().join(path.trim_start_matches('/'));
    std::fs::remove_file(&file).context(format!("lose {}", file.display()))?;
    cluster.boot(a)?;
    a.start_marsd()?;
    // The rules of the node that died went with it.
    b.run(&mars_tests::network::heal_script(a.number()))
        .map(drop)
}

/// Gives a node a `/mars` of its own.
fn own_mars(node: &Node, bytes: u64) -> Result {
    node.add_disk("/dev/vg/mars", bytes)?;
    node.run("mkfs.ext4 -q /dev/vg/mars && mount /dev/vg/mars /mars && rmdir /mars/lost+found")
        .map(drop)
}

/// Writes more than fits into `/mars`; the application notices nothing.
fn write_on_and_on(node: &Node, seed: u64) -> Result {
    let state = node.run(&format!(
        "mars-node load {DEVICE} {seed} 0 2048 3000 100 >/dev/null; mars-node state {DEVICE} {seed} 0 2048"
    ))?;
    assert_eq!(state.trim(), "3000", "the application has seen something");
    Ok(())
}

fn is_jammed(cluster: &Cluster, a: &Node, b: &Node, value: &str) -> Result {
    let link = format!("jammed-{}", a.name());
    cluster
        .wait(&format!("{link} is {value}"), 30, || {
            [a, b].iter().all(|node| node.link_is(&link, value))
        })
        .map(drop)
}

/// "den Primary Node kurzzeitig in den Secondary Modus": after room was made.
fn for_a_moment_secondary(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    a.run(&format!("MARSADM secondary {RESOURCE}"))?;
    cluster.wait("the device is given up", 30, || !a.serves(RESOURCE))?;
    a.run(&format!("MARSADM primary {RESOURCE}"))?;
    cluster.wait_device(a)?;
    is_jammed(cluster, a, b, "0")
}

#[test]
fn case_7_1_log_txt_or_anything_fills_the_tree() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        own_mars(a, 64 << 20)?;
        cluster.replicate(16 << 20)?;
        // The debug file of chapter 6, which "can become very large".
        a.run("rest=$(df --output=avail -B1 /mars | tail -1); fallocate -l $((rest - 1500000)) /mars/log.txt")?;
        cluster.wait("the shortage is shown", 30, || {
            let full = |node: &Node| {
                node.try_run("mars-status --system")
                    .map_or_else(|_| String::new(), |o| o.text)
            };
            full(a).contains("Mars-Disk full") && full(b).contains("Remote-Mars-Disk full")
        })?;
        write_on_and_on(a, 1)?;
        is_jammed(cluster, a, b, "1")?;
        cluster.wait("the secondary is marked", 30, || !b.is_synced(RESOURCE))?;
        let status = a.try_run("mars-status --system")?.text;
        assert!(
            status.contains("Mars-Transaktion and Replication not running"),
            "{status}"
        );
        // What the debug file was renamed to when it grew too large goes as well.
        a.run("rm -f /mars/log.txt /mars/log.txt.old")?;
        for_a_moment_secondary(cluster, a, b)?;
        all_is_well(cluster, a, b, 2)?;

        begin_without_room(cluster, a, b)
    })
}

/// Not even an empty log has room when the primary is started: it serves its device past the logs from the start.
fn begin_without_room(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    a.stop_marsd()?;
    a.run("dd if=/dev/zero of=/mars/foreign bs=64k status=none; dd if=/dev/zero of=/mars/foreign bs=1k oflag=append conv=notrunc status=none; true")?;
    a.start_marsd()?;
    cluster.wait_device(a)?;
    write_on_and_on(a, 3)?;
    is_jammed(cluster, a, b, "1")?;
    a.kill9("mars-shim")?;
    write_on_and_on(a, 4)?;
    a.run("rm /mars/foreign")?;
    for_a_moment_secondary(cluster, a, b)?;
    all_is_well(cluster, a, b, 5)
}

#[test]
fn case_7_1_logs_are_rotated_and_deleted_at_their_limits() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        own_mars(a, 2500 << 20)?;
        // The smallest limits that there are; without deletion for now.
        a.run("marsadm create-cluster && ln -s 1 /mars/defaults/logrot_auto_gb && ln -s 0 /mars/defaults/logdel_auto_gb")?;
        a.add_disk(DISK, 64 << 20)?;
        a.start_marsd()?;
        a.run(&format!("marsadm create-resource {RESOURCE} {DISK}"))?;
        cluster.wait_device(a)?;
        a.run(&format!(
            "for n in $(seq 17); do dd if=/dev/zero of={DEVICE} bs=1M count=64 oflag=direct status=none; done"
        ))?;
        cluster.wait("the log was rotated when it had 1 GiB", 60, || {
            a.replay(RESOURCE).is_some_and(|at| at.log.seq == 2)
        })?;
        let first = a.logs(RESOURCE).remove(0).1;
        assert!(first >= 1 << 30, "{first}");
        // Less is left than the logs occupy: still nothing is deleted without the administrator.
        a.run("fallocate -l 400M /mars/foreign")?;
        cluster.join_resource(b)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        assert_eq!(a.logs(RESOURCE).len(), 2);
        a.run("ln -sfn default /mars/defaults/logdel_auto_gb")?;
        cluster.wait("the log that nobody needs is deleted", 30, || {
            a.logs(RESOURCE).len() == 1
        })?;
        all_is_well(cluster, a, b, 1)
    })
}
