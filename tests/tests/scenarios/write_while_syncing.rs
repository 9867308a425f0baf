//! A node that joins under write load ends up with the same disk, block by block.

use std::time::Duration;

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Result, scenario};

#[test]
fn a_disk_that_changes_while_it_is_synced() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        cluster.create_resource(192 << 20)?;
        let fio = "fio --name=verify --filename=/dev/mars/r1 --direct=1 --ioengine=libaio --verify=crc32c";
        // Something to sync, then a load that goes on until the sync is over.
        a.run(&format!(
            "{fio} --rw=write --bs=256k --size=128m --do_verify=0"
        ))?;
        let mut load = a.spawn(
            "load",
            &format!("exec {fio} --rw=randwrite --bs=4k --iodepth=8 --size=128m --io_size=96m --rate=24m --fsync=32 --do_verify=1"),
        )?;
        cluster.join_resource(b)?;
        cluster.wait("the sync has ended", 120, || b.is_synced(RESOURCE))?;
        load.wait(Duration::from_secs(120))?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)?;
        a.run(&format!("test $(stat -c %t {DEVICE}) = 7")).map(drop)
    })
}
