//! Planned handover, to and fro: the files written on one primary are there on the next.

use mars_tests::oracle::{digests, same_disks, same_files};
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Result, scenario};

#[test]
fn three_handovers_to_and_fro() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(256 << 20)?;
        let (mut from, mut to) = (&cluster[0], &cluster[1]);
        from.run(&format!("mkfs.ext4 -q {DEVICE}"))?;
        for round in 1..=3 {
            from.run(&format!(
                "mount {DEVICE} /mnt && cd /usr/share/doc && find -type f -size -200k | sort | sed -n {round}~9p | head -n 400 | \
                 rsync -a --files-from=- . /mnt/round{round}/ && cd / && rm -rf /mnt/round{}",
                round - 2
            ))?;
            let expected = digests(from, "/mnt")?;
            assert!(!expected.is_empty());
            from.run("umount /mnt")?;
            cluster.hand_over(from, to)?;
            to.run(&format!("mount -o ro {DEVICE} /mnt"))?;
            same_files(&expected, &digests(to, "/mnt")?)?;
            to.run("umount /mnt")?;
            (from, to) = (to, from);
        }
        from.run(&format!("e2fsck -fn {DEVICE}"))?;
        cluster.wait_caught_up(RESOURCE, from, to, 60)?;
        same_disks(from, to, DISK)
    })
}

#[test]
fn a_handover_of_a_mounted_device_waits_for_the_umount() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        a.run(&format!(
            "mkfs.ext4 -q {DEVICE} && mount {DEVICE} /mnt && echo one > /mnt/file"
        ))?;
        a.run(&format!("marsadm secondary {RESOURCE}"))?;
        // Still open: it goes on working, and the other node does not become primary meanwhile.
        let early = b.try_run(&format!("timeout 5 marsadm primary {RESOURCE}"))?;
        assert_ne!(early.code, 0, "{}", early.text);
        assert!(a.serves(RESOURCE) && !b.serves(RESOURCE));
        a.run("echo two >> /mnt/file && umount /mnt")?;
        b.run(&format!("marsadm primary {RESOURCE}"))?;
        cluster.wait_device(b)?;
        let text = b.run(&format!(
            "mount {DEVICE} /mnt && cat /mnt/file && umount /mnt"
        ))?;
        assert_eq!(text, "one\ntwo\n");
        Ok(())
    })
}
