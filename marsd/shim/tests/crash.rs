//! The shim is killed: with a holder of its descriptor nobody notices, without one the log brings everything back.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::blocks::{
    Random, assert_same, content, open_direct, random_write, random_write_from, write_at,
};
use common::replay::replay;
use common::{MIB, Rig, run, wait_for};
use mars_core::control::{Refusal, Resume, ShimState, Verb};
use mars_shim::fuse_proto::WRITE_HEADER;
use mars_shim::stage_area::StageArea;
use mars_tree::wall_clock;

/// What the successor starts from: log and position as the last status told them.
fn position(rig: &Rig) -> (u64, u64) {
    let status = rig.last.as_ref().unwrap();
    let log = status.logs.iter().find(|l| !l.complete).unwrap();
    (log.log.seq, log.written_back)
}

fn succeed(rig: &mut Rig) {
    let (seq, pos) = position(rig);
    let held = rig.held.take();
    rig.start();
    rig.attach(held).unwrap();
    let status = rig.log(seq, pos).unwrap();
    assert_eq!(status.state, ShimState::Logging);
}

#[test]
fn a_killed_shim_is_succeeded_without_an_error_to_the_writers() {
    kill_under_writers(Rig::new(8 * MIB), random_write_from, 100);
}

/// They are acknowledged before they are copied.
#[test]
fn a_killed_shim_loses_no_large_write() {
    kill_under_writers(Rig::new(8 * MIB), large_write_from, 30);
}

fn large_write_from(base: u64, file: &File, model: &mut [u8], random: &mut Random) {
    let (offset, _) = random.range(MIB);
    let data = random.bytes(1 << 20);
    write_at(file, base + offset, &data).unwrap();
    let at = usize::try_from(offset).unwrap();
    model[at..at + data.len()].copy_from_slice(&data);
}

#[test]
fn a_killed_shim_is_succeeded_where_only_the_log_outlives_it() {
    kill_under_writers(Rig::new(8 * MIB).without_stage(), random_write_from, 100);
}

type Write = fn(u64, &File, &mut [u8], &mut Random);

/// Four writers, and three kills between some `writes`.
fn kill_under_writers(mut rig: Rig, write: Write, writes: u64) {
    rig.start();
    rig.attach(None).unwrap();
    rig.log(1, 0).unwrap();
    let device = rig.device();
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..4u64)
        .map(|part| {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            let device = device.clone();
            std::thread::spawn(move || {
                let file = open_direct(&device);
                let mut model = vec![0; 2 << 20];
                let mut random = Random(7 + part);
                while !stop.load(Ordering::Relaxed) {
                    write(part * 2 * MIB, &file, &mut model, &mut random);
                    if written.fetch_add(1, Ordering::Relaxed) % 16 == 0 {
                        file.sync_data().unwrap();
                    }
                }
                model
            })
        })
        .collect();
    for _ in 0..3 {
        let goal = written.load(Ordering::Relaxed) + 3 * writes;
        wait_for("writes", || {
            (written.load(Ordering::Relaxed) >= goal).then_some(())
        });
        let status = rig.status();
        assert!(status.logs[0].logged > 0);
        rig.kill();
        succeed(&mut rig);
    }
    let goal = written.load(Ordering::Relaxed) + writes;
    wait_for("writes", || {
        (written.load(Ordering::Relaxed) >= goal).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    let parts = writers.into_iter().map(|w| w.join().unwrap());
    let model: Vec<u8> = parts.flatten().collect();
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
    let mut image = vec![0; model.len()];
    replay(&rig.log_path(1), 0, &mut image);
    assert_same(&image, &model, "replay");
}

#[test]
fn what_was_acknowledged_before_it_was_copied_is_not_lost() {
    let mut rig = Rig::serving(8 * MIB);
    let device = open_direct(&rig.device());
    let mut model = vec![0; 8 << 20];
    random_write(&device, &mut model, &mut Random(5));
    rig.status();
    rig.kill();
    // As if it had died right after the answer to a write of 192 KiB.
    let bytes = Random(6).bytes(192 << 10);
    let (at, offset) = (1 << 20, MIB);
    let mut area = StageArea::open(&rig.path("run").join("stage-r")).unwrap();
    area.requests.target()[WRITE_HEADER..][..bytes.len()].copy_from_slice(&bytes);
    let len = u32::try_from(bytes.len()).unwrap();
    area.requests.keep(offset, len, wall_clock());
    drop(area);
    model[at..at + bytes.len()].copy_from_slice(&bytes);
    succeed(&mut rig);
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    drop(device);
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
    let mut image = vec![0; model.len()];
    replay(&rig.log_path(1), 0, &mut image);
    assert_same(&image, &model, "replay");
}

#[test]
fn without_a_holder_the_log_brings_back_what_was_flushed() {
    let mut rig = Rig::new(8 * MIB);
    let initial = Random(3).bytes(8 << 20);
    std::fs::write(rig.path("disk"), &initial).unwrap();
    rig.start();
    rig.attach(None).unwrap();
    rig.log(1, 0).unwrap();
    let mut model = initial.clone();
    let mut random = Random(11);
    let (mut seq, mut pos) = (1, 0);
    for round in 0..3 {
        let file = open_direct(&rig.device());
        for _ in 0..200 {
            random_write(&file, &mut model, &mut random);
        }
        file.sync_data().unwrap();
        drop(file);
        if round == 2 {
            rig.wait_status("some write-back", |s| s.logs[0].written_back > 0);
        }
        rig.held = None;
        rig.kill();
        // What a secondary would make of the log, from the beginning.
        let mut image = initial.clone();
        let end = replay(&rig.log_path(1), 0, &mut image);
        assert_same(&image, &model, "replay after the kill");
        if round == 1 {
            // A torn record and stale bytes behind the end must vanish.
            let log = std::fs::OpenOptions::new()
                .write(true)
                .open(rig.log_path(1))
                .unwrap();
            let bytes = std::fs::read(rig.log_path(1)).unwrap();
            log.write_all_at(&bytes[..2000], end).unwrap();
        }
        (seq, pos) = position(&rig);
        rig.start();
        rig.attach(None).unwrap();
        let status = rig.log(seq, pos).unwrap();
        assert_eq!(status.logs[0].logged, end);
        assert_same(&content(&rig.device(), rig.size), &model, "device");
    }
    assert_eq!((seq, pos > 0), (1, true));
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
}

#[test]
fn a_mounted_file_system_survives_kills() {
    let mut rig = Rig::serving(64 * MIB);
    let device = rig.device();
    run(std::process::Command::new("mkfs.ext4")
        .arg("-q")
        .arg(&device));
    let at = rig.mount(&device, "mnt");
    for n in 0..3 {
        let file = std::fs::File::create(at.join(format!("file-{n}"))).unwrap();
        file.write_all_at(&vec![n; 300_000], 0).unwrap();
        file.sync_all().unwrap();
        rig.status();
        rig.kill();
        succeed(&mut rig);
    }
    rig.umount(&at);
    run(std::process::Command::new("fsck.ext4")
        .arg("-fn")
        .arg(&device));
    let at = rig.mount(&device, "mnt");
    for n in 0..3 {
        assert_eq!(
            std::fs::read(at.join(format!("file-{n}"))).unwrap(),
            vec![n; 300_000]
        );
    }
    rig.umount(&at);
    rig.stop();
}

#[test]
fn a_resume_without_its_device_is_refused() {
    let mut rig = Rig::serving(MIB);
    write_at(&open_direct(&rig.device()), 0, &[1; 512]).unwrap();
    let (_, fd) = rig.held.take().unwrap();
    rig.kill();
    rig.start();
    let loop_device = "/dev/loop4000".to_string();
    let refused = rig.attach(Some((Resume { loop_device }, fd)));
    assert!(
        matches!(refused, Err(Refusal::Invalid { .. })),
        "{refused:?}"
    );
    rig.attach(None).unwrap();
    rig.log(1, 0).unwrap();
    assert_eq!(content(&rig.device(), 512), [1; 512]);
    rig.stop();
}

/// Kills around a switch: the old log is not yet written back, the new one has records.
#[test]
fn two_logs_are_brought_back_after_a_kill_at_a_switch() {
    let mut rig = Rig::serving(32 * MIB);
    let mut model = vec![0; 32 << 20];
    let mut random = Random(21);
    let file = open_direct(&rig.device());
    let mut seq = 1;
    let mut both = 0;
    for _ in 0..8 {
        for _ in 0..30 {
            random_write(&file, &mut model, &mut random);
        }
        rig.log(seq + 1, 0).unwrap();
        for _ in 0..5 {
            random_write(&file, &mut model, &mut random);
        }
        let status = rig.status();
        both += u32::from(!status.logs[0].complete);
        rig.kill();
        succeed(&mut rig);
        seq += 1;
        let status = rig.status();
        assert_eq!(status.logs.last().unwrap().log.seq, seq);
        assert_same(&content(&rig.device(), rig.size), &model, "device");
        rig.wait_status("one log", |s| {
            s.logs.iter().filter(|l| !l.complete).count() == 1
        });
    }
    assert!(both > 0, "no kill hit two open logs");
    drop(file);
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
    let mut image = vec![0; model.len()];
    for seq in 1..=seq {
        replay(&rig.log_path(seq), 0, &mut image);
    }
    assert_same(&image, &model, "replay of all logs");
}

#[test]
fn a_log_is_not_applied_over_what_passed_it_by() {
    let mut rig = Rig::serving(8 * MIB);
    let mut model = vec![0; 8 << 20];
    let mut random = Random(31);
    let file = open_direct(&rig.device());
    for _ in 0..100 {
        random_write(&file, &mut model, &mut random);
    }
    let status = rig.send(Verb::PassThrough { on: true }, None).unwrap();
    let end = status.logs[0].logged;
    for _ in 0..100 {
        random_write(&file, &mut model, &mut random);
    }
    rig.kill();
    // A marsd that has missed the pass-through begins where the log did.
    let held = rig.held.take();
    rig.start();
    rig.attach(held).unwrap();
    let status = rig.log(1, 0).unwrap();
    assert_eq!(status.state, ShimState::PassThrough);
    assert_eq!(
        (status.logs[0].written_back, status.logs[0].logged),
        (end, end)
    );
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    let status = rig.log(2, 0).unwrap();
    assert_eq!(status.state, ShimState::Logging);
    random_write(&file, &mut model, &mut random);
    drop(file);
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
}
