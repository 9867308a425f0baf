//! A device that is served in good order: content, logs, positions, stop.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::blocks::{Random, assert_same, content, open_direct, random_read, random_write};
use common::replay::replay;
use common::{MIB, Rig, run};
use mars_core::control::ShimState;

#[test]
fn random_writes_are_read_back_logged_and_written_back() {
    let mut rig = Rig::serving(16 * MIB);
    let mut model = vec![0; 16 << 20];
    let file = open_direct(&rig.device());
    let mut random = Random(42);
    for n in 0..1500 {
        random_write(&file, &mut model, &mut random);
        if n % 3 == 0 {
            random_read(&file, &model, &mut random);
        }
        if n % 100 == 99 {
            file.sync_all().unwrap();
            let status = rig.status();
            assert_eq!(status.logs[0].logged, status.logs[0].durable);
        }
    }
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    drop(file);
    // At rest everything is durable and written back by itself.
    let status = rig.wait_status("write-back", |s| {
        let log = &s.logs[0];
        log.written_back == log.logged && log.durable == log.logged
    });
    assert_eq!(status.state, ShimState::Logging);
    assert!(status.logs[0].written_back_stamp.secs > 0);
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
    rig.stop();
    let mut image = vec![0; model.len()];
    let end = replay(&rig.log_path(1), 0, &mut image);
    assert_eq!(end, std::fs::metadata(rig.log_path(1)).unwrap().len());
    assert_same(&image, &model, "replay");
}

#[test]
fn a_file_system_lives_on_it() {
    let mut rig = Rig::serving(64 * MIB);
    run(Command::new("mkfs.ext4").arg("-q").arg(rig.device()));
    let device = rig.device();
    let at = rig.mount(&device, "mnt");
    run(Command::new("cp")
        .arg("-r")
        .args(["/usr/include/linux"])
        .arg(&at));
    rig.umount(&at);
    run(Command::new("fsck.ext4").arg("-fn").arg(&device));
    let before = content(&device, rig.size);
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &before, "disk");
    let mut image = vec![0; before.len()];
    replay(&rig.log_path(1), 0, &mut image);
    assert_same(&image, &before, "replay");
}
