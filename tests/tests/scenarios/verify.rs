//! A damaged block of a secondary is found and repaired while the primary is being written to.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use mars_tests::command::Output;
use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Context, Node, Result, scenario};

const BYTES: u64 = 96 << 20;
/// In the second half of the disk, which the load leaves alone.
const DAMAGED: u64 = 17_000 * 4096;

fn flip(node: &Node, byte: u64) -> Result {
    let image = node.disk(DISK)?.image;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(image)
        .context("open the disk")?;
    let mut data = [0];
    file.read_exact_at(&mut data, byte)
        .and_then(|()| file.write_all_at(&[data[0] ^ 0x40], byte))
        .and_then(|()| file.sync_all())
        .context("flip a bit of the disk")
}

/// Under load some blocks may be in the works whenever they are looked at, which has an exit code of its own.
fn clean(output: Output) -> String {
    let unchecked = output.text.contains("are not compared");
    let expected = if unchecked { 9 } else { 0 };
    assert_eq!(output.code, expected, "{}", output.text);
    output.text
}

#[test]
fn a_flipped_block_is_found_and_repaired_under_write_load() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        cluster.replicate(BYTES)?;
        let mut load = a.spawn(
            "load",
            &format!("echo $$ > /tmp/load; exec mars-node load {DEVICE} 1 0 12288 1000000 100"),
        )?;
        cluster.wait("the load runs", 30, || load.output().lines().count() > 3)?;

        let verify = format!("marsadm verify {RESOURCE}");
        let text = clean(b.try_run(&verify)?);
        assert!(text.contains("no differences"), "{text}");

        flip(b, DAMAGED + 5)?;
        let found = a.try_run(&verify)?;
        let place = format!("bytes {DAMAGED} to {} (4096 bytes)", DAMAGED + 4095);
        assert!(
            found.code == 1 && found.text.contains(&place),
            "{}",
            found.text
        );
        assert!(
            found
                .text
                .contains("1 blocks of 4096 bytes differ, 0 repaired"),
            "{}",
            found.text
        );

        let repair = format!("{verify} --repair --node {}", b.name());
        let repaired = clean(a.try_run(&repair)?);
        assert!(
            repaired.contains("1 blocks of 4096 bytes differ, 1 repaired"),
            "{repaired}"
        );
        let again = clean(a.try_run(&verify)?);
        assert!(again.contains("no differences"), "{again}");

        // The primary, and whom marsadm does not know, are no targets.
        let refused = b.try_run(&format!("{verify} --node {}", a.name()))?;
        assert!(
            refused.code == 1 && refused.text.contains("is primary"),
            "{}",
            refused.text
        );
        assert!(load.runs(), "{}", load.output());
        a.run("kill $(cat /tmp/load)")?;
        // Killed, so it does not end well.
        let _ = load.wait(Duration::from_secs(30));
        cluster.wait_caught_up(RESOURCE, a, b, 120)?;
        same_disks(a, b, DISK)
    })
}

#[test]
fn a_daemon_that_dies_meanwhile_begins_anew() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        cluster.replicate(BYTES)?;
        flip(b, DAMAGED)?;
        b.kill9("marsd")?;
        // As marsadm leaves it when its node dies.
        let order = format!("resource-{RESOURCE}/todo-{}/verify", b.name());
        a.run(&format!("ln -s 7,check /mars/{order}"))?;
        b.start_marsd()?;
        let answer = format!("resource-{RESOURCE}/actual-{}/verify", b.name());
        let range = format!("7,done,1,0,0,{DAMAGED}+4096");
        cluster.wait("the order is carried out", 60, || {
            a.link_is(&answer, &range)
        })?;
        b.run(&format!("marsadm detach {RESOURCE}"))?;
        let off = b.try_run(&format!("marsadm verify {RESOURCE}"))?;
        assert!(
            off.code == 1 && off.text.contains("attach is off on"),
            "{}",
            off.text
        );
        b.run(&format!("marsadm attach {RESOURCE}"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)
    })
}
