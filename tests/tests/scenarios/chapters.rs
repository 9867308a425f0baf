//! The command lines of the documentation's chapters 2 to 4, as they stand there, on a live cluster of two nodes: each
//! does what its chapter says. The one line that is not run is `modprobe mars`: marsd is started in its place.

use std::time::Duration;

use mars_tests::oracle::same_disks;
use mars_tests::{Cluster, Node, Result, scenario};

const A: &str = "istore-test-bs7";
const B: &str = "istore-test-bap7";
const RES: &str = "Mars-ResA";
const DISK: &str = "/dev/vg-test/LV-ResA";
const DEVICE: &str = "/dev/mars/Mars-ResA";
const BYTES: u64 = 32 << 20;
const SOON: u64 = 30;

/// Chapter 2.2: a cluster, a resource, and a second node.
fn chapter_2(cluster: &Cluster) -> Result {
    let (a, b) = (&cluster[0], &cluster[1]);
    for node in [a, b] {
        node.add_disk(DISK, BYTES)?;
    }
    a.run("MARSADM create-cluster")?;
    a.start_marsd()?; // modprobe mars
    a.run("MARSADM create-resource Mars-ResA /dev/vg-test/LV-ResA")?;
    cluster.wait("the device is there", SOON, || is_device(a))?;
    b.run(&format!(
        "hostname_primary={A}\nMARSADM join-cluster $hostname_primary"
    ))?;
    b.start_marsd()?; // modprobe mars
    // At once: join-resource waits for the tree of the peers.
    b.run("MARSADM join-resource Mars-ResA /dev/vg-test/LV-ResA")?;
    write(a, 1)?;
    cluster.wait_caught_up(RES, a, b, 120)?;
    // Status information goes to and fro by itself.
    cluster
        .wait("both know both", SOON, || {
            [a, b].iter().all(|n| {
                [A, B].iter().all(|h| {
                    ["attach", "connect", "sync", "allow-replay"]
                        .iter()
                        .all(|s| switch_is(n, h, s, "1"))
                })
            })
        })
        .map(drop)
}

fn write(node: &Node, seed: u64) -> Result {
    node.run(&format!("mars-node load {DEVICE} {seed} 0 512 300 50"))
        .map(drop)
}

fn is_device(node: &Node) -> bool {
    let there = node.try_run(&format!("test -b {DEVICE}"));
    node.serves(RES) && there.is_ok_and(|o| o.code == 0)
}

fn switch_is(node: &Node, host: &str, switch: &str, value: &str) -> bool {
    node.link_is(&format!("resource-{RES}/todo-{host}/{switch}"), value)
}

/// Waits until both nodes see a switch of these values for A and B.
fn seen(cluster: &Cluster, switch: &str, of_a: &str, of_b: &str) -> Result {
    let what = format!("{switch} of {A} is {of_a} and of {B} is {of_b}");
    cluster
        .wait(&what, SOON, || {
            let sees = |n: &Node| switch_is(n, A, switch, of_a) && switch_is(n, B, switch, of_b);
            sees(&cluster[0]) && sees(&cluster[1])
        })
        .map(drop)
}

fn state_is(cluster: &Cluster, node: &Node, command: &str, word: &str) -> Result {
    let mut last = String::new();
    cluster
        .wait(
            &format!("{command} of {}: {word}", node.name()),
            SOON,
            || {
                let out = node.try_run(&format!("marsadm {command} {RES}"));
                last = out.map(|o| o.text.trim().to_owned()).unwrap_or_default();
                last == word
            },
        )
        .map(drop)
}

/// What B has received of the newest log, and what it has applied.
fn progress(node: &Node) -> (Option<(String, u64)>, Option<String>) {
    let replay = node.link(&format!("resource-{RES}/replay-{}", node.name()));
    (node.logs(RES).last().cloned(), replay)
}

#[test]
fn chapter_2_sets_up_a_cluster() -> Result {
    scenario(&[A, B], |cluster| {
        chapter_2(cluster)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        same_disks(a, b, DISK)?;
        // "create" only once.
        a.try_run("MARSADM create-cluster")?.refused()?;
        a.try_run("MARSADM create-resource Mars-ResA /dev/vg-test/LV-ResA")?
            .refused()?;
        b.try_run("MARSADM join-resource Mars-ResA /dev/vg-test/LV-ResA")?
            .refused()
            .map(drop)
    })
}

#[test]
fn chapter_3_1_connect_and_disconnect() -> Result {
    scenario(&[A, B], |cluster| {
        chapter_2(cluster)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        for (node, off, on) in [
            (
                a,
                "MARSADM disconnect Mars-ResA",
                "MARSADM connect Mars-ResA",
            ),
            (
                b,
                "MARSADM disconnect-local Mars-ResA",
                "MARSADM connect-local Mars-ResA",
            ),
            (a, "MARSADM disconnect all", "MARSADM connect all"),
        ] {
            node.run(off)?;
            let of_a = if off.contains("local") { "1" } else { "0" };
            seen(cluster, "connect", of_a, "0")?;
            stays_behind(cluster, a, b)?;
            // The primary goes on, and states are still exchanged.
            node.run(on)?;
            seen(cluster, "connect", "1", "1")?;
            cluster.wait_caught_up(RES, a, b, 60)?;
        }
        same_disks(a, b, DISK)
    })
}

/// Writes on A; B, which may not fetch or replay, learns of it but applies nothing.
fn stays_behind(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    cluster.wait("replay has ended", SOON, || {
        b.actual(RES, "replay_rate").as_deref() == Some("0")
    })?;
    let before = progress(b).1;
    write(a, 7)?;
    let end = a.link(&format!("resource-{RES}/replay-{A}"));
    cluster.wait("B knows what A has logged", SOON, || {
        let there = b.link(&format!("resource-{RES}/replay-{A}"));
        there.is_some() && there != before && a.link(&format!("resource-{RES}/replay-{A}")) == there
    })?;
    assert!(end.is_some());
    assert_eq!(progress(b).1, before, "B has applied something");
    Ok(())
}

#[test]
fn chapter_3_2_attach_and_detach() -> Result {
    scenario(&[A, B], |cluster| {
        chapter_2(cluster)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        b.run("MARSADM detach Mars-ResA")?;
        seen(cluster, "attach", "1", "0")?;
        stays_behind(cluster, a, b)?;
        b.run("MARSADM attach Mars-ResA")?;
        cluster.wait_caught_up(RES, a, b, 60)?;

        // An open device is not taken away.
        a.run(&format!("mkfs.ext4 -q {DEVICE} && mount {DEVICE} /mnt"))?;
        let text = a.try_run("MARSADM detach Mars-ResA")?.refused()?;
        assert!(text.contains("mounted on /mnt"), "{text}");
        a.run("umount /mnt")?;
        a.run("MARSADM detach Mars-ResA")?;
        cluster.wait("the device is gone", SOON, || {
            a.try_run(&format!("test -e {DEVICE}"))
                .is_ok_and(|o| o.code == 1)
                && !a.serves(RES)
        })?;
        a.run("MARSADM attach Mars-ResA")?;
        cluster.wait("the device is back", SOON, || is_device(a))?;
        a.run(&format!("mount {DEVICE} /mnt && umount /mnt"))?;
        cluster.wait_caught_up(RES, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn chapter_3_3_to_3_5_sync() -> Result {
    scenario(&[A, B], |cluster| {
        chapter_2(cluster)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        let synced = format!("resource-{RES}/syncstatus-{B}");
        for (node, off, on) in [
            (
                a,
                "MARSADM pause-sync Mars-ResA",
                "MARSADM resume-sync Mars-ResA",
            ),
            (
                b,
                "MARSADM pause-sync-local Mars-ResA",
                "MARSADM resume-sync-local Mars-ResA",
            ),
        ] {
            node.run(off)?;
            let of_a = if off.contains("local") { "1" } else { "0" };
            seen(cluster, "sync", of_a, "0")?;
            state_is(cluster, b, "dstate", "SwitchOff")?;
            node.run(on)?;
            seen(cluster, "sync", "1", "1")?;
        }

        // 3.4: what is declared valid is not touched, whatever it is.
        b.run("MARSADM disconnect-local Mars-ResA")?;
        b.run("MARSADM fake-sync Mars-ResA")?;
        assert_eq!(b.link(&synced), Some(BYTES.to_string()));
        seen(cluster, "sync", "1", "0")?;
        b.run("MARSADM connect-local Mars-ResA")?;
        // An unnoticed difference: a fake-sync keeps it, an invalidate mends it.
        b.run(&format!(
            "printf spoilt | dd of={DISK} bs=1 seek=20000000 conv=notrunc,fsync 2>/dev/null"
        ))?;
        b.run("MARSADM fake-sync all")?;
        assert!(same_disks(a, b, DISK).is_err());
        b.run("MARSADM invalidate Mars-ResA")?;
        b.run("MARSADM wait-sync Mars-ResA")?;
        cluster.wait_caught_up(RES, a, b, 60)?;
        same_disks(a, b, DISK)?;

        // 3.5: the same, ordered from the primary.
        for command in [
            "MARSADM invalidate-remote Mars-ResA",
            "MARSADM invalidate-remote all",
        ] {
            b.run(&format!(
                "printf spoilt | dd of={DISK} bs=1 seek=20000000 conv=notrunc,fsync 2>/dev/null"
            ))?;
            a.run(command)?;
            b.run("MARSADM wait-sync Mars-ResA")?;
            cluster.wait_caught_up(RES, a, b, 60)?;
            same_disks(a, b, DISK)?;
        }
        a.try_run("MARSADM invalidate Mars-ResA")?
            .refused()
            .map(drop)
    })
}

#[test]
fn chapter_3_6_pause_and_resume_replay() -> Result {
    scenario(&[A, B], |cluster| {
        chapter_2(cluster)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        for (node, off, on) in [
            (
                a,
                "MARSADM pause-replay Mars-ResA",
                "MARSADM resume-replay Mars-ResA",
            ),
            (
                b,
                "MARSADM pause-replay-local Mars-ResA",
                "MARSADM resume-replay-local Mars-ResA",
            ),
            (b, "MARSADM pause-replay all", "MARSADM resume-replay all"),
        ] {
            node.run(off)?;
            let of_a = if off.contains("local") { "1" } else { "0" };
            seen(cluster, "allow-replay", of_a, "0")?;
            stays_behind(cluster, a, b)?;
            // Logs are still transferred.
            cluster.wait("B has the whole log", SOON, || {
                a.logs(RES).last() == b.logs(RES).last()
            })?;
            node.run(on)?;
            seen(cluster, "allow-replay", "1", "1")?;
            cluster.wait_caught_up(RES, a, b, 60)?;
        }
        same_disks(a, b, DISK)
    })
}

#[test]
fn chapter_3_7_logs() -> Result {
    scenario(&[A, B], |cluster| {
        chapter_2(cluster)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        for seed in 2..6 {
            a.run("MARSADM log-rotate Mars-ResA")?;
            write(a, seed)?;
            cluster.wait_caught_up(RES, a, b, 60)?;
        }
        a.run("MARSADM log-rotate all")?;
        cluster.wait("B has gone on to the sixth log", 60, || {
            b.link(&format!("resource-{RES}/replay-{B}"))
                .is_some_and(|v| v.starts_with("log-000000006"))
        })?;
        let numbers = |node: &Node| -> Vec<String> {
            let names = node.logs(RES).into_iter();
            names
                .map(|(n, _)| n["log-".len()..][..9].to_owned())
                .collect()
        };
        assert_eq!(numbers(a).first().map(String::as_str), Some("000000001"));
        cluster.wait("A knows where B is", SOON, || {
            let link = format!("resource-{RES}/replay-{B}");
            a.link(&link) == b.link(&link)
        })?;
        a.run("MARSADM log-delete Mars-ResA")?;
        cluster.wait("the lowest log is gone on both", SOON, || {
            [a, b]
                .iter()
                .all(|n| numbers(n).first().map(String::as_str) == Some("000000002"))
        })?;
        a.run("MARSADM log-delete-all Mars-ResA")?;
        cluster.wait("only the log in use is left on both", SOON, || {
            [a, b].iter().all(|n| numbers(n) == ["000000006"])
        })?;
        // What a member needs stays, and it is said who.
        b.run("MARSADM pause-replay-local Mars-ResA")?;
        write(a, 9)?;
        a.run("MARSADM log-rotate Mars-ResA")?;
        let text = a.try_run("MARSADM log-delete-all all")?.refused()?;
        assert!(text.contains(&format!("still needed: {B}")), "{text}");
        b.run("MARSADM resume-replay-local Mars-ResA")?;
        write(a, 10)?;
        cluster.wait_caught_up(RES, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn chapter_3_8_and_3_9_roles_up_and_down() -> Result {
    scenario(&[A, B], |cluster| {
        chapter_2(cluster)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        a.run("MARSADM secondary Mars-ResA")?;
        b.run("MARSADM primary Mars-ResA")?;
        cluster.wait("the device is on the other node", SOON, || is_device(b))?;
        write(b, 20)?;
        cluster.wait_caught_up(RES, b, a, 60)?;
        // Without secondary before: the other side is asked to give up.
        a.run("MARSADM primary Mars-ResA")?;
        cluster.wait("the device is back", SOON, || is_device(a))?;
        assert!(!b.serves(RES));

        let switches = ["allow-replay", "sync", "connect"];
        for (down, up) in [
            ("MARSADM down Mars-ResA", "MARSADM up Mars-ResA"),
            ("MARSADM down all", "MARSADM up all"),
        ] {
            let text = b.run(down)?;
            let order = ["pause-replay", "pause-sync", "disconnect", "detach"];
            in_order(&text, &order);
            for switch in switches {
                seen(cluster, switch, "0", "0")?;
            }
            seen(cluster, "attach", "1", "0")?;
            state_is(cluster, b, "cstate", "Disconnect")?;
            let text = b.run(up)?;
            in_order(
                &text,
                &["attach", "connect", "resume-sync", "resume-replay"],
            );
            for switch in switches {
                seen(cluster, switch, "1", "1")?;
            }
            seen(cluster, "attach", "1", "1")?;
            write(a, 21)?;
            cluster.wait_caught_up(RES, a, b, 60)?;
        }
        same_disks(a, b, DISK)
    })
}

/// Each of the words is a line of the text, in this order.
fn in_order(text: &str, words: &[&str]) {
    let found: Vec<&str> = text.lines().filter(|l| words.contains(l)).collect();
    assert_eq!(found, words, "{text}");
}

#[test]
fn chapter_4_status() -> Result {
    scenario(&[A, B], |cluster| {
        chapter_2(cluster)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        state_is(cluster, b, "dstate", "UpToDate")?;
        shows(
            b,
            "MARS-STATUS",
            &[
                &format!("MARS Status - {B}, "),
                "-> check resource Mars-ResA, with ",
                &format!("Primary Node is {A}"),
                &format!("-> local Node ({B}) as Secondary, System alive"),
                &format!("-> remote Node ({A}) as Primary, System alive"),
                "synced = 100.00%",
                "Switches: Attach=on Connect=on Sync=on AllowReplay=on",
                "(joined)(alive)(synced)",
                "is clustered (2 nodes)",
            ],
        )?;
        let place = format!("[resource-{RES} on {B}]");
        for options in [
            "--ressource Mars-ResA",
            "--resource=Mars-ResA",
            "-ressource Mars-ResA",
        ] {
            shows(
                b,
                &format!("MARS-STATUS {options}"),
                &["-> check resource Mars-ResA"],
            )?;
        }
        b.try_run("MARS-STATUS --ressource nosuch")?.refused()?;
        shows(
            b,
            "MARS-STATUS --history",
            &["History Replay/Status", "Logfile Version: 00000000"],
        )?;
        shows(
            b,
            "MARS-STATUS --system",
            &["Free-Space-Limit on /mars", "Diskspace on Cluster: ok"],
        )?;
        // Warnings and errors, if there were any.
        shows(b, "MARS-STATUS --debug", &["-> check resource Mars-ResA"])?;
        for options in ["--monitor", "-monitor", "-monitor -ressource=Mars-ResA"] {
            let lines = [
                format!("Secondary {place}"),
                "UpToDate [(joined)(alive)(synced)".into(),
                format!("Connect {place}"),
            ];
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            shows(b, &format!("MARS-STATUS {options}"), &lines)?;
        }
        for (node, option, word) in [
            (b, "cstate", "Connect"),
            (b, "dstate", "UpToDate"),
            (b, "role", "Secondary"),
            (a, "role", "Primary"),
        ] {
            let line = format!("{word} [resource-{RES} on {}]\n", node.name());
            for form in ["-", "--"] {
                let text = node.run(&format!(
                    "MARS-STATUS {form}{option} {form}ressource=Mars-ResA"
                ))?;
                assert_eq!(text, line);
            }
        }
        // It rotates by itself.
        let mut rotating = b.spawn("rotating", "exec timeout 5 MARS-STATUS --interval 1")?;
        cluster.wait("the second picture", 10, || {
            rotating.output().matches("MARS Status - ").count() >= 2
        })?;
        let _ = rotating.wait(Duration::from_secs(20));
        Ok(())
    })
}

fn shows(node: &Node, command: &str, texts: &[&str]) -> Result {
    let text = node.run(command)?;
    for wanted in texts {
        assert!(
            text.contains(wanted),
            "{command}: '{wanted}' is missing in\n{text}"
        );
    }
    Ok(())
}
