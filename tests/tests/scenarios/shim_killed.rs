//! `kill -9` of the shim under a mounted file system: a pause, not an error.

use std::time::Duration;

use mars_tests::load::last_reported;
use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Result, scenario};

const WRITES: u64 = 6000;

#[test]
fn the_application_sees_a_pause() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(128 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        a.run(&format!(
            "mkfs.ext4 -q {DEVICE} && mount {DEVICE} /mnt && truncate -s 32m /mnt/file"
        ))?;
        let mut load = a.spawn(
            "load",
            &format!("exec mars-node load /mnt/file 1 0 8192 {WRITES} 8"),
        )?;
        let mut untar = a.spawn("files", "for i in 1 2 3; do rsync -a --max-size=100k /usr/share/doc/ /mnt/doc$i/ && sync || exit 1; rm -rf /mnt/doc$((i - 1)); done")?;
        for round in 1..=4u64 {
            cluster.wait("the load goes on", 60, || {
                last_reported(&load.output()) >= round * WRITES / 8
            })?;
            a.kill9("mars-shim")?;
            let before = last_reported(&load.output());
            cluster.wait("writes are acknowledged by the next shim", 30, || {
                last_reported(&load.output()) > before + 8
            })?;
        }
        load.wait(Duration::from_secs(120))?;
        untar.wait(Duration::from_secs(120))?;
        assert_eq!(
            a.run("mars-node state /mnt/file 1 0 8192")?.trim(),
            WRITES.to_string()
        );
        let errors = a.run("find /mnt -type f -exec cat {} + >/dev/null; umount /mnt")?;
        assert_eq!(errors, "");
        a.run(&format!("e2fsck -fn {DEVICE}"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn one_that_a_killed_daemon_has_only_just_made_stands_in_nobodys_way() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(16 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        a.kill9("marsd")?;
        a.kill9("mars-shim")?;
        // Not the socket of the one that was killed is waited for.
        a.run(&format!("rm -f /run/mars/shim-{RESOURCE}.sock"))?;
        // It was told nothing yet.
        let mut half = a.spawn("half", &format!("exec mars-shim --resource {RESOURCE}"))?;
        let socket = format!("test -S /run/mars/shim-{RESOURCE}.sock");
        cluster.wait("it listens", 10, || {
            a.try_run(&socket).is_ok_and(|o| o.code == 0)
        })?;
        a.start_marsd()?;
        half.wait(Duration::from_secs(10))?;
        // The node of the dead device was still there, of which nothing can be read.
        let read = format!("test $(dd if={DEVICE} bs=4096 count=1 iflag=direct | wc -c) = 4096");
        cluster.wait("the device is served", 30, || {
            a.try_run(&read).is_ok_and(|o| o.code == 0)
        })?;
        a.run(&format!("exec mars-node load {DEVICE} 1 0 256 200 20"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 30)?;
        same_disks(a, b, DISK)
    })
}
