//! The machine loses its power at arbitrary moments, and with it part of what the disks had in their caches.
//!
//! Three writers per life of the machine: one writes blocks in the first half of the device and flushes every few of
//! them, one stores files in the second half, each flushed before it is reported, one never flushes.

use std::time::Duration;

use mars_tests::cluster::RunningTime;
use mars_tests::load::last_reported;
use mars_tests::vm::{Kernel, Machine};
use mars_tests::{Context, Result, fail};

use crate::{DEADLINE, machine, script};

/// One life: what the last one left is replayed and looked at, then written to.
const LIFE: &str = r#"
log_disk
serve
half=$(($(blockdev --getsize64 "$DEVICE") / 2))
fs=$(losetup --find --show --direct-io=on --offset $half "$DEVICE")
if [ "$ROUND" = 0 ]; then
    mkfs.ext4 -qF -b 4096 "$fs"
else
    echo "state $(mars-node state "$DEVICE" $((ROUND - 1)) $(((ROUND - 1) * 128)) 128)"
fi
mount "$fs" /mnt
i=0
while [ -e /mnt/$i ]; do
    [ "$(cat /mnt/$i)" = "file $i" ] || echo "torn $i"
    i=$((i + 1))
done
echo "files $i"
umount /mnt
e2fsck -fn "$fs" >/tmp/fsck 2>&1 || { cat /tmp/fsck; die "the file system is damaged"; }
mount "$fs" /mnt
if [ -n "${LAST:-}" ]; then
    umount /mnt
    losetup -d "$fs"
    mars-kmod wait "$ID" clean
    stop
    exit
fi
grep -qx "write back" "/sys/block/${DISK#/dev/}/queue/write_cache" || die "the disk has no cache that could be lost"
mars-node load "$DEVICE" 1 20480 4096 1000000 1000000 &
mars-node load "$DEVICE" "$ROUND" $((ROUND * 128)) 128 1000000 7 >/run/vm/load &
while :; do
    echo "file $i" >/mnt/$i.new && sync /mnt/$i.new && mv /mnt/$i.new /mnt/$i && sync /mnt
    echo $i >>/run/vm/files
    i=$((i + 1))
done
"#;

/// Every life has blocks of its own in the first half of the device.
const CUTS_MAX: u64 = 150;

fn cuts() -> Result<u64> {
    match std::env::var("CUTS") {
        Ok(text) if !text.is_empty() => text
            .parse()
            .ok()
            .filter(|n| (1..=CUTS_MAX).contains(n))
            .context(format!("CUTS='{text}' is no number from 1 to {CUTS_MAX}")),
        _ => Ok(4),
    }
}

#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn what_was_flushed_survives_and_what_is_there_is_a_prefix() -> Result {
    let kernel = Kernel::Plain;
    let machine = machine(kernel)?;
    let life = script(kernel, LIFE)?;
    let mut before = None;
    let rounds = cuts()?;
    let (mut lost, mut kept) = (0, 0);
    for round in 0..rounds {
        let next = one_life(&machine, &life, round, before)
            .context(format!("life {round} of the machine"))?;
        lost += next.lost;
        kept += next.kept;
        println!("life {round}: {next:?}");
        before = Some(next);
    }
    let text = machine.run(&format!("ROUND={rounds}\nLAST=1\n{life}"), DEADLINE)?;
    check(&text, before)?;
    println!("{rounds} power cuts; of the disks' caches {lost} blocks were lost, {kept} kept");
    Ok(())
}

/// What was known to be on stable storage when the power was cut.
#[derive(Debug, Clone, Copy)]
struct Flushed {
    writes: u64,
    files: u64,
    lost: usize,
    kept: usize,
}

fn one_life(machine: &Machine, life: &str, round: u64, before: Option<Flushed>) -> Result<Flushed> {
    let share = machine.share();
    let (load, files) = (share.join("load"), share.join("files"));
    for path in [&load, &files] {
        std::fs::write(path, "").context(format!("write {}", path.display()))?;
    }
    let reported = |path| last_reported(&std::fs::read_to_string(path).unwrap_or_default());
    // A different number of writes, and so a different moment, in every round.
    let wanted = 7 * (3 + (round * 37) % 101);
    let mut boot = machine.start(&format!("ROUND={round}\n{life}"))?;
    let mut clock = RunningTime::default();
    while reported(&load) < wanted || reported(&files) < round % 5 {
        if !boot.runs() || clock.passed() > DEADLINE {
            return Err(boot.failed("the load has not come that far"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // Reports come when something has just been flushed.
    std::thread::sleep(Duration::from_millis(round * 7919 % 211));
    check(&boot.output(), before).map_err(|e| boot.failed(&e.to_string()))?;
    let (lost, kept) = boot.cut(round)?;
    Ok(Flushed {
        writes: reported(&load),
        files: reported(&files),
        lost,
        kept,
    })
}

/// Compares what a life has found with what the one before had flushed.
fn check(output: &str, before: Option<Flushed>) -> Result {
    let Some(before) = before else { return Ok(()) };
    let found = |key: &str| -> Result<u64> {
        let line = output.lines().find_map(|l| l.strip_prefix(key));
        let number = line.context(format!("no '{key}' in: {output}"))?;
        number.parse().context(format!("{key}{number}"))
    };
    let (state, files) = (found("state ")?, found("files ")?);
    if state < before.writes || (before.files > 0 && files <= before.files) {
        return Err(fail(format!(
            "{before:?} were flushed, but the device stands at write {state}, with {files} files"
        )));
    }
    match output.lines().find(|l| l.starts_with("torn ")) {
        None => Ok(()),
        Some(line) => Err(fail(format!("a file was flushed, but is {line}"))),
    }
}
