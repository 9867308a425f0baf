//! Switching logs under load, pass-through and back, a full log file system, a small memory.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::blocks::{Random, assert_same, content, open_direct, random_write, write_at};
use common::replay::replay;
use common::{MIB, Rig, log_name, run};
use mars_core::control::{Refusal, ShimState, Verb};

/// Writes at random until told to stop; gives what it wrote.
fn writer(
    rig: &Rig,
    stop: &Arc<AtomicBool>,
    mut model: Vec<u8>,
) -> std::thread::JoinHandle<Vec<u8>> {
    let (device, stop) = (rig.device(), Arc::clone(stop));
    std::thread::spawn(move || {
        let file = open_direct(&device);
        let mut random = Random(5);
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            random_write(&file, &mut model, &mut random);
            n += 1;
            if n % 50 == 0 {
                file.sync_data().unwrap();
            }
        }
        model
    })
}

#[test]
fn logs_are_switched_under_load() {
    let mut rig = Rig::serving(16 * MIB);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = writer(&rig, &stop, vec![0; 16 << 20]);
    for seq in 2..6 {
        rig.wait_status("records", |s| s.logs.last().unwrap().logged > 500_000);
        rig.log(seq, 0).unwrap();
        let again = rig.send(
            Verb::Log {
                log: log_name(seq + 7),
                pos: 0,
            },
            None,
        );
        assert!(matches!(again, Err(Refusal::Invalid { .. })));
        let status = rig.wait_status("the old log to be complete", |s| {
            s.logs.len() == 2 && s.logs[0].complete && s.logs[1].log.seq == seq
        });
        let old = &status.logs[0];
        let len = std::fs::metadata(rig.log_path(seq - 1)).unwrap().len();
        assert_eq!((old.logged, old.written_back), (len, len));
    }
    stop.store(true, Ordering::Relaxed);
    let model = writer.join().unwrap();
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    rig.stop();
    let mut image = vec![0; model.len()];
    for seq in 1..6 {
        let end = replay(&rig.log_path(seq), 0, &mut image);
        assert_eq!(end, std::fs::metadata(rig.log_path(seq)).unwrap().len());
    }
    assert_same(&image, &model, "replay of all logs");
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
}

#[test]
fn pass_through_and_back() {
    let mut rig = Rig::serving(8 * MIB);
    let mut model = vec![0; 8 << 20];
    let mut random = Random(9);
    let file = open_direct(&rig.device());
    for phase in 1..4 {
        for _ in 0..100 {
            random_write(&file, &mut model, &mut random);
        }
        let status = rig.send(Verb::PassThrough { on: true }, None).unwrap();
        assert_eq!(status.state, ShimState::PassThrough);
        let log = status.logs.last().unwrap();
        assert_eq!((log.written_back, log.durable), (log.logged, log.logged));
        let logged = status.counters.logged_bytes;
        for _ in 0..100 {
            random_write(&file, &mut model, &mut random);
        }
        file.sync_data().unwrap();
        assert_eq!(rig.status().counters.logged_bytes, logged);
        assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
        rig.send(Verb::PassThrough { on: false }, None).unwrap();
        let status = rig.log(phase + 1, 0).unwrap();
        assert_eq!(status.state, ShimState::Logging);
        assert_same(&content(&rig.device(), rig.size), &model, "device");
    }
    drop(file);
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
}

#[test]
fn a_full_log_file_system_means_pass_through_and_no_error() {
    let mut rig = Rig::new(64 * MIB);
    let small = rig.path("small");
    std::fs::File::create(&small)
        .unwrap()
        .set_len(24 * MIB)
        .unwrap();
    run(Command::new("mkfs.ext4")
        .args(["-q", "-O", "^has_journal"])
        .arg(&small));
    rig.log_dir = rig.mount(&small, "logs-small");
    rig.start();
    rig.attach(None).unwrap();
    rig.log(1, 0).unwrap();
    let file = open_direct(&rig.device());
    let mut random = Random(2);
    let mut model = vec![0; 64 << 20];
    for at in (0..48 << 20).step_by(1 << 20) {
        let data = random.bytes(1 << 20);
        write_at(&file, at as u64, &data).unwrap();
        model[at..at + data.len()].copy_from_slice(&data);
    }
    file.sync_data().unwrap();
    let status = rig.status();
    assert_eq!(status.state, ShimState::PassThrough);
    let error = status.error.unwrap();
    assert!(error.contains("log-000000001-node-a"), "{error}");
    assert!(error.contains("No space left"), "{error}");
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
    drop(file);
    rig.stop();
}

#[test]
fn a_burst_is_larger_than_the_memory() {
    let mut rig = Rig::new(96 * MIB);
    rig.set_dirty_mib(4);
    rig.start();
    rig.attach(None).unwrap();
    rig.log(1, 0).unwrap();
    let file = open_direct(&rig.device());
    let mut random = Random(8);
    let mut model = vec![0; 96 << 20];
    for at in (0..96usize << 20).step_by(1 << 20) {
        let data = random.bytes(1 << 20);
        write_at(&file, at as u64, &data).unwrap();
        model[at..at + data.len()].copy_from_slice(&data);
        assert!(rig.status().counters.dirty_bytes <= 4 * MIB);
    }
    drop(file);
    // The same bound holds for a log that is loaded.
    rig.held = None;
    rig.kill();
    rig.start();
    rig.attach(None).unwrap();
    rig.log(1, 0).unwrap();
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
}

#[test]
fn a_log_that_does_not_fit_is_refused_with_its_place() {
    let mut rig = Rig::serving(8 * MIB);
    let file = open_direct(&rig.device());
    write_at(&file, 6 * MIB, &[1; 4096]).unwrap();
    drop(file);
    rig.stop();
    rig.size = MIB;
    rig.start();
    rig.attach(None).unwrap();
    let Err(Refusal::Invalid { why }) = rig.send(
        Verb::Log {
            log: log_name(1),
            pos: 0,
        },
        None,
    ) else {
        panic!("accepted");
    };
    assert!(why.contains("byte 0") && why.contains("6291456"), "{why}");
    let Err(Refusal::Invalid { why }) = rig.send(
        Verb::Log {
            log: log_name(1),
            pos: 1 << 30,
        },
        None,
    ) else {
        panic!("accepted");
    };
    assert!(why.contains("1073741824"), "{why}");
    rig.stop();
}

#[test]
fn a_failing_disk_is_told_and_the_log_keeps_the_data() {
    let mut rig = Rig::new(64 * MIB);
    let small = rig.path("small");
    std::fs::File::create(&small)
        .unwrap()
        .set_len(24 * MIB)
        .unwrap();
    run(Command::new("mkfs.ext4")
        .args(["-q", "-O", "^has_journal"])
        .arg(&small));
    // A sparse file without room behind it is a disk that fails where it was never written.
    let at = rig.mount(&small, "disk-small");
    let disk = at.join("disk");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(64 * MIB)
        .unwrap();
    std::fs::remove_file(rig.path("disk")).unwrap();
    std::os::unix::fs::symlink(&disk, rig.path("disk")).unwrap();
    rig.start();
    rig.attach(None).unwrap();
    rig.log(1, 0).unwrap();
    let file = open_direct(&rig.device());
    let mut random = Random(4);
    let mut acknowledged = Vec::new();
    for at in (0..64u64 << 20).step_by(1 << 20) {
        let data = random.bytes(1 << 20);
        if write_at(&file, at, &data).is_err() {
            break;
        }
        acknowledged.push((at, data));
    }
    let status = rig.wait_status("the failure", |s| s.state == ShimState::Failed);
    let error = status.error.unwrap();
    assert!(error.contains("/disk:"), "{error}");
    assert!(write_at(&file, 0, &[1; 4096]).is_err());
    assert!(file.sync_data().is_err());
    drop(file);
    let status = rig.send(Verb::Stop, None).unwrap();
    assert_eq!(rig.wait_exit(), 0);
    assert!(status.logs[0].written_back < status.logs[0].logged);
    let mut image = vec![0; 64 << 20];
    replay(&rig.log_path(1), 0, &mut image);
    for (at, data) in acknowledged {
        let at = usize::try_from(at).unwrap();
        assert_same(&image[at..at + data.len()], &data, "log");
    }
}
