//! The debugging chapter of the documentation: warnings and errors in mars-status, and `/mars/log.txt`.

use mars_tests::setup::{DEVICE, PAIR, RESOURCE};
use mars_tests::{Result, scenario};

#[test]
fn warnings_are_shown_the_log_is_switched_on_by_hand_and_a_full_tree_stops_nothing() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        a.add_disk("/dev/vg/mars", 96 << 20)?;
        a.run("mkfs.ext4 -q /dev/vg/mars && mount /dev/vg/mars /mars && rmdir /mars/lost+found")?;
        cluster.replicate(16 << 20)?;
        assert!(!a.mars().join("log.txt").exists());
        a.run("touch /mars/log.txt")?;

        // A shim and a peer that fail are told, with their names.
        b.kill9("marsd")?;
        let peer = format!("peer={}", b.name());
        let shown = |what: &str, class: &str| {
            let text = a.run("mars-status --debug").unwrap_or_default();
            let (_, part) = text.split_once(class).unwrap_or_default();
            part.lines().any(|line| line.contains(what))
        };
        cluster.wait("the loss of the peer is shown", 30, || {
            shown(&peer, "-> MARS WARNINGS:")
        })?;
        a.kill9("mars-shim")?;
        let resource = format!("resource={RESOURCE}");
        cluster.wait("the death of the shim is shown", 30, || {
            shown(&resource, "-> MARS WARNINGS:")
        })?;
        cluster.wait_device(a)?;
        let log = || a.run("cat /mars/log.txt").unwrap_or_default();
        cluster.wait("both stand in the log as well", 30, || {
            let text = log();
            text.contains(&peer) && text.contains(&resource) && text.contains("MARS_INFO")
        })?;

        // Nothing is left of the file system: the log is cut short, and nothing else happens.
        a.run("dd if=/dev/zero of=/mars/ballast bs=1M status=none; sync -f /mars; true")?;
        let size = log().len();
        b.start_marsd()?;
        cluster.wait("the nodes are connected again", 30, || {
            shown("connected", "-> MARS") || a.log("marsd").matches("connected").count() >= 2
        })?;
        a.run(&format!("mars-node load {DEVICE} 1 0 1024 100 10"))?;
        a.run("rm /mars/ballast")?;
        b.kill9("marsd")?;
        cluster.wait("the log goes on", 30, || log().len() > size)?;
        assert!(!a.processes("marsd")?.is_empty());
        Ok(())
    })
}
