//! A logfile is damaged on a secondary before it is replayed: it heals by itself.

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Result, scenario};

#[test]
fn a_flipped_byte_in_a_fetched_log_is_fetched_again() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        cluster.replicate(16 << 20)?;
        b.run(&format!("marsadm pause-replay-local {RESOURCE}"))?;
        let first = a.logs(RESOURCE).remove(0).0;
        a.run(&format!("mars-node load {DEVICE} 1 0 1024 400 100"))?;
        a.run(&format!("marsadm log-rotate {RESOURCE}"))?;
        a.run(&format!("mars-node load {DEVICE} 2 1024 1024 400 100"))?;
        let same = || {
            let (mine, theirs) = (a.logs(RESOURCE), b.logs(RESOURCE));
            mine.len() == 2 && mine.first() == theirs.first() && theirs.len() == 2
        };
        cluster.wait("the first log is here completely", 60, same)?;
        // In the payload of a record in the middle.
        let path = format!("/mars/resource-{RESOURCE}/{first}");
        b.run(&format!(
            "at=$((4180 * 200 + 1000)); old=$(od -An -tu1 -j $at -N1 {path}); \
             printf \"\\\\x$(printf %02x $((old ^ 1)))\" | dd of={path} bs=1 seek=$at conv=notrunc status=none"
        ))?;
        b.run(&format!("marsadm resume-replay-local {RESOURCE}"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        let log = b.log("marsd");
        assert!(
            log.contains("the copy is fetched again from there"),
            "{log}"
        );
        same_disks(a, b, DISK)
    })
}
