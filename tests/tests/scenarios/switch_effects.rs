//! What each switch stops, and that it goes on afterwards; and growing a resource while it is used.

use mars_tests::command::host;
use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Context, Node, Result, scenario};

fn write(node: &Node, seed: u64) -> Result {
    node.run(&format!("mars-node load {DEVICE} {seed} 0 4096 500 50"))
        .map(drop)
}

#[test]
fn disconnect_stops_the_logs_and_pause_replay_stops_the_disk() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(32 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        let size = |node: &Node| node.logs(RESOURCE).pop().map_or(0, |(_, size)| size);

        b.run(&format!("marsadm disconnect {RESOURCE}"))?;
        cluster.wait("no log is fetched", 30, || {
            b.actual(RESOURCE, "logfile-update").as_deref() != Some("1")
        })?;
        write(a, 1)?;
        cluster.wait("state still travels", 30, || {
            let path = format!("resource-{RESOURCE}/replay-{}", a.name());
            b.link(&path).is_some() && b.link(&path) == a.link(&path) && size(a) > 0
        })?;
        assert_eq!(size(b), 0, "log bytes came in spite of disconnect");
        b.run(&format!("marsadm pause-replay-local {RESOURCE}"))?;
        b.run(&format!("marsadm connect {RESOURCE}"))?;
        cluster.wait("the log comes", 30, || size(b) == size(a))?;
        assert_eq!(
            b.replay(RESOURCE).map(|at| at.pos),
            Some(0),
            "replay in spite of pause-replay"
        );
        let status = b.try_run("mars-status")?.text;
        assert!(status.contains("SwitchOff"), "{status}");
        b.run(&format!("marsadm resume-replay-local {RESOURCE}"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 30)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn detach_takes_the_device_away_unless_it_is_in_use() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(32 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        a.run(&format!("mkfs.ext4 -q {DEVICE} && mount {DEVICE} /mnt"))?;
        let refused = a
            .try_run(&format!("marsadm detach {RESOURCE}"))?
            .refused()?;
        assert!(
            refused.contains(DEVICE) || refused.contains("/mnt"),
            "{refused}"
        );
        a.run("echo still here > /mnt/file && umount /mnt")?;
        a.run(&format!("marsadm detach {RESOURCE}"))?;
        cluster.wait("the device is gone", 30, || {
            !a.serves(RESOURCE)
                && a.try_run(&format!("test -e {DEVICE}"))
                    .is_ok_and(|o| o.code != 0)
        })?;
        a.run(&format!("marsadm attach {RESOURCE}"))?;
        cluster.wait_device(a)?;
        assert_eq!(
            a.run(&format!(
                "mount {DEVICE} /mnt && cat /mnt/file && umount /mnt"
            ))?,
            "still here\n"
        );
        cluster.wait_caught_up(RESOURCE, a, b, 30)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn a_resource_grows_while_it_is_used() -> Result {
    const OLD: u64 = 32 << 20;
    const NEW: u64 = 48 << 20;
    scenario(&PAIR, |cluster| {
        cluster.replicate(OLD)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        write(a, 1)?;
        a.run(&format!("exec 3<{DEVICE}; sleep 60 <&3 & echo opened"))?;
        a.try_run(&format!("marsadm resize {RESOURCE}"))?
            .refused()?;
        for node in [a, b] {
            let disk = node.disk(DISK)?;
            std::fs::File::options()
                .write(true)
                .open(&disk.image)
                .and_then(|f| f.set_len(NEW))
                .context("grow an image")?;
            host(&["losetup", "--set-capacity", &disk.device.to_string_lossy()])?;
        }
        cluster.wait("the new sizes are known", 60, || {
            PAIR.iter().all(|h| {
                a.link_is(
                    &format!("resource-{RESOURCE}/actsize-{h}"),
                    &NEW.to_string(),
                )
            })
        })?;
        a.run(&format!("marsadm pause-sync {RESOURCE}"))?;
        cluster.wait("the switches are seen", 30, || {
            PAIR.iter()
                .all(|h| a.link_is(&format!("resource-{RESOURCE}/todo-{h}/sync"), "0"))
        })?;
        a.run(&format!("marsadm resize {RESOURCE}"))?;
        a.run(&format!("marsadm resume-sync {RESOURCE}"))?;
        cluster.wait("the device has grown", 30, || {
            a.run(&format!("blockdev --getsize64 {DEVICE}"))
                .is_ok_and(|s| s.trim() == NEW.to_string())
        })?;
        a.run(&format!("mars-node load {DEVICE} 2 8192 4096 500 50"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        assert_eq!(
            a.run(&format!("mars-node state {DEVICE} 1 0 4096"))?.trim(),
            "500"
        );
        same_disks(a, b, DISK)
    })
}
