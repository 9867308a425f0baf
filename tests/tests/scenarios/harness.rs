//! The harness itself: nodes are separate, reach each other, can be cut off, die and come back, and leave nothing.

use std::process::{Command, Stdio};
use std::time::Duration;

use mars_tests::cluster::poll;
use mars_tests::{Cluster, Context, Result, fail};

#[test]
fn nodes_are_machines_of_their_own() -> Result {
    let names = ["istore-test-bs7", "istore-test-bap7", "db-1"];
    let cluster = Cluster::start(&names)?;
    let dir = cluster[0]
        .dir()
        .parent()
        .context("work directory")?
        .to_path_buf();
    for node in cluster.nodes() {
        assert_eq!(node.run("uname -n")?.trim(), node.name());
        assert_eq!(
            node.run("ls -A /mars /dev/mars /run/mars | grep -v :; true")?
                .trim(),
            ""
        );
    }

    // Administrators log in with a key that only their agent knows.
    let remote = cluster[1].run("ssh istore-test-bs7 uname -n")?;
    assert_eq!(remote.trim(), "istore-test-bs7");
    cluster[1]
        .try_run("SSH_AUTH_SOCK= ssh -o BatchMode=yes istore-test-bs7 true")?
        .refused()?;

    // A cable cut between two nodes does not concern the third, in either family.
    cluster.cut(&cluster[0], &cluster[1])?;
    for (peer, reached) in [(&cluster[1], false), (&cluster[2], true)] {
        for family in ["-4", "-6"] {
            let ssh = format!(
                "timeout 2 ssh {family} -o BatchMode=yes {} true",
                peer.name()
            );
            assert_eq!(cluster[0].try_run(&ssh)?.code == 0, reached, "{ssh}");
        }
    }
    cluster.heal(&cluster[0], &cluster[1])?;
    cluster[0].run("ssh istore-test-bap7 true")?;

    // A disk survives the death of its node, a process and a mount do not.
    let disk = cluster[0].add_disk("/dev/vg-test/LV-ResA", 64 << 20)?;
    cluster[0].run("mkfs.ext4 -q /dev/vg-test/LV-ResA && mount /dev/vg-test/LV-ResA /mnt && echo kept > /mnt/file && sync")?;
    cluster[0].run("echo kept > /mars/file; echo lost > /run/file")?;
    let mut sleeper = cluster[0].spawn("sleeper", "exec sleep 1000")?;
    cluster.wait("the sleeper runs", 5, || {
        cluster[0].processes("sleep").is_ok_and(|p| p.len() == 1)
    })?;
    cluster[0].power_off()?;
    assert!(sleeper.wait(Duration::from_secs(5)).is_err());
    cluster[1]
        .try_run("timeout 2 ssh -o BatchMode=yes istore-test-bs7 true")?
        .refused()?;
    cluster.boot(&cluster[0])?;
    cluster[0].run("test -e /mars/file && ! test -e /run/file && ! pgrep sleep")?;
    cluster[0].run("mount /dev/vg-test/LV-ResA /mnt && grep kept /mnt/file")?;
    cluster[1].run("ssh istore-test-bs7 true")?;

    drop(cluster);
    assert!(!dir.exists(), "{} is left", dir.display());
    let left = mars_tests::command::host(&["losetup", "--all"])?;
    if left.contains(&*dir.to_string_lossy()) {
        return Err(fail(format!("{} is left: {left}", disk.device.display())));
    }
    Ok(())
}

#[test]
fn a_killed_test_leaves_nothing() -> Result {
    let base = tempfile::tempdir_in("/var/tmp").context("create a directory")?;
    let entries = || base.path().read_dir().map_or(0, Iterator::count);
    let mut victim = Command::new(std::env::current_exe().context("own executable")?)
        .args(["--exact", "harness::nodes_are_machines_of_their_own"])
        .env("MARS_TESTS_DIR", base.path())
        .stdout(Stdio::null())
        .spawn()
        .context("start a test")?;
    let booted = || {
        let pattern = format!("{}/mars-tests.", base.path().display());
        mars_tests::command::host(&["pgrep", "-f", &format!("init {pattern}.*/db-1")]).is_ok()
    };
    poll(Duration::from_secs(30), booted)?;
    victim.kill().context("kill the test")?;
    victim.wait().context("wait for the test")?;
    poll(Duration::from_secs(30), || entries() == 0).context("the cluster is not removed")?;
    let left = mars_tests::command::host(&["losetup", "--all"])?;
    assert!(!left.contains(&*base.path().to_string_lossy()), "{left}");
    Ok(())
}
