//! The device itself: write-zeroes, discard, resize, stop while it is in use, signals, control errors.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::AsRawFd;
use std::process::Command;

use common::blocks::{Random, assert_same, content, open_direct, write_at};
use common::replay::replay;
use common::{MIB, Rig, run, wait_for};
use mars_core::control::{Refusal, ShimState, Verb};

mod ioctl {
    #![allow(missing_docs, unreachable_pub)] // the macros' functions
    nix::ioctl_write_ptr_bad!(blk_zero_out, 0x127f, [u64; 2]);
    nix::ioctl_write_ptr_bad!(blk_discard, 0x1277, [u64; 2]);
}
use ioctl::{blk_discard, blk_zero_out};

#[test]
fn write_zeroes_are_logged_and_discard_is_not_offered() {
    let mut rig = Rig::serving(64 * MIB);
    let mut model = Random(1).bytes(64 << 20);
    let file = open_direct(&rig.device());
    for at in (0..64usize << 20).step_by(1 << 20) {
        write_at(&file, at as u64, &model[at..at + (1 << 20)]).unwrap();
    }
    for (offset, len) in [(512u64, 1024u64), (MIB, 40 * MIB + 512), (63 * MIB, MIB)] {
        // SAFETY: the ioctl reads two u64.
        unsafe { blk_zero_out(file.as_raw_fd(), &[offset, len]) }.unwrap();
        let at = usize::try_from(offset).unwrap();
        model[at..at + usize::try_from(len).unwrap()].fill(0);
    }
    // SAFETY: as above.
    let refused = unsafe { blk_discard(file.as_raw_fd(), &[0, MIB]) };
    assert_eq!(refused, Err(nix::errno::Errno::EOPNOTSUPP));
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    // The same while nothing is logged.
    rig.send(Verb::PassThrough { on: true }, None).unwrap();
    // SAFETY: as above.
    unsafe { blk_zero_out(file.as_raw_fd(), &[50 * MIB, 3 * MIB]) }.unwrap();
    model[50 << 20..53 << 20].fill(0);
    assert_same(&content(&rig.path("disk"), rig.size), &model, "disk");
    drop(file);
    rig.stop();
    let mut image = vec![0; model.len()];
    replay(&rig.log_path(1), 0, &mut image);
    image[50 << 20..53 << 20].fill(0);
    assert_same(&image, &model, "replay");
}

#[test]
fn stop_is_refused_while_somebody_uses_the_device() {
    let mut rig = Rig::serving(16 * MIB);
    let device = rig.device();
    let file = open_direct(&device);
    let Err(Refusal::Busy { by, .. }) = rig.send(Verb::Stop, None) else {
        panic!("stopped");
    };
    assert!(by.contains(&format!("pid {}", std::process::id())), "{by}");
    write_at(&file, 0, &[1; 4096]).unwrap();
    drop(file);
    run(Command::new("mkfs.ext4").arg("-q").arg(&device));
    let at = rig.mount(&device, "mnt");
    let Err(Refusal::Busy { by, .. }) = rig.send(Verb::Stop, None) else {
        panic!("stopped");
    };
    assert!(by.contains(&format!("mounted on {}", at.display())), "{by}");
    std::fs::write(at.join("x"), "still writable").unwrap();
    rig.umount(&at);
    rig.stop();
}

#[test]
fn the_device_grows() {
    let mut rig = Rig::new(16 * MIB);
    rig.size = 8 * MIB;
    rig.start();
    rig.attach(None).unwrap();
    rig.log(1, 0).unwrap();
    let shrink = rig.send(Verb::Resize { size_bytes: MIB }, None);
    assert!(matches!(shrink, Err(Refusal::Invalid { .. })));
    let beyond = rig.send(
        Verb::Resize {
            size_bytes: 32 * MIB,
        },
        None,
    );
    assert!(matches!(beyond, Err(Refusal::Invalid { .. })));
    let file = open_direct(&rig.device());
    assert!(write_at(&file, 8 * MIB, &[1; 512]).is_err());
    let status = rig
        .send(
            Verb::Resize {
                size_bytes: 16 * MIB,
            },
            None,
        )
        .unwrap();
    assert_eq!(status.size_bytes, 16 * MIB);
    rig.size = 16 * MIB;
    write_at(&file, 16 * MIB - 4096, &[7; 4096]).unwrap();
    let all = content(&rig.device(), rig.size);
    assert!(all[(16 << 20) - 4096..].iter().all(|b| *b == 7));
    drop(file);
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &all, "disk");
}

#[test]
fn signals_and_lost_connections_do_no_harm_while_serving() {
    let mut rig = Rig::serving(MIB);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(rig.pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    rig.disconnect();
    write_at(&open_direct(&rig.device()), 0, &[3; 512]).unwrap();
    rig.held = None;
    rig.connect();
    while rig.held.is_none() {
        rig.receive();
    }
    assert_eq!(rig.status().state, ShimState::Logging);
    rig.stop();
    // With nothing to serve, SIGTERM ends it.
    rig.start();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(rig.pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(rig.wait_exit(), 0);
}

#[test]
fn a_second_shim_and_wrong_requests_are_refused() {
    let mut rig = Rig::new(MIB);
    rig.start();
    let second = Command::new(env!("CARGO_BIN_EXE_mars-shim"))
        .args(["--resource", "r", "--run-dir"])
        .arg(rig.path("run"))
        .output()
        .unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("another shim"), "{text}");
    let early = rig.send(Verb::PassThrough { on: true }, None);
    assert!(matches!(early, Err(Refusal::Invalid { .. })));
    rig.size = 2 * MIB;
    let Err(Refusal::Invalid { why }) = rig.attach(None) else {
        panic!("attached");
    };
    assert!(why.contains("1048576 bytes, 2097152"), "{why}");
    std::fs::remove_file(rig.path("disk")).unwrap();
    let missing = rig.attach(None);
    assert!(matches!(missing, Err(Refusal::Failed { .. })));
    let version = rig.send(Verb::Hello { protocol: 99 }, None);
    let Err(Refusal::Invalid { why }) = version else {
        panic!("greeted");
    };
    assert!(why.contains("99"), "{why}");
    rig.stop();
}

#[test]
fn an_idle_log_is_trimmed_to_its_records() {
    let mut rig = Rig::serving(MIB);
    let file = open_direct(&rig.device());
    for round in 1..4u64 {
        for n in 0..20 {
            write_at(&file, n * 4096, &[9; 512]).unwrap();
            file.sync_data().unwrap();
        }
        let path = rig.log_path(1);
        wait_for("the trim", || {
            let len = std::fs::metadata(&path).unwrap().len();
            (len == round * 20 * 596).then_some(())
        });
    }
    drop(file);
    rig.stop();
}

#[test]
fn a_client_that_does_not_listen_gets_its_reply_later() {
    let mut rig = Rig::serving(8 * MIB);
    let file = open_direct(&rig.device());
    let data = vec![1; 4096];
    // Each status is pushed; nobody reads until the socket is full.
    for n in 0..1500 {
        write_at(&file, n % 2000 * 4096, &data).unwrap();
        if n % 5 == 0 {
            file.sync_data().unwrap();
        }
    }
    drop(file);
    assert_eq!(rig.status().state, ShimState::Logging);
    rig.wait_status("write-back", |s| s.logs[0].written_back == s.logs[0].logged);
    rig.stop();
}

#[test]
fn a_user_that_cannot_be_seen_is_noticed_in_time() {
    let mut rig = Rig::serving(8 * MIB);
    // Opened through a node of another name, which a look at the processes does not find.
    let alias = rig.path("alias");
    let number = std::os::unix::fs::MetadataExt::rdev(&std::fs::metadata(rig.device()).unwrap());
    let mode = nix::sys::stat::Mode::S_IRUSR;
    nix::sys::stat::mknod(&alias, nix::sys::stat::SFlag::S_IFBLK, mode, number).unwrap();
    let file = open_direct(&alias);
    for _ in 0..2 {
        let Err(Refusal::Busy { by, .. }) = rig.send(Verb::Stop, None) else {
            panic!("stopped");
        };
        assert_eq!(by, "an unknown process");
        write_at(&file, 4096, &[5; 4096]).unwrap();
        file.sync_data().unwrap();
        assert!(rig.device().exists());
    }
    drop(file);
    // The device stays although its last user is gone.
    let all = content(&rig.device(), rig.size);
    assert!(all[4096..8192].iter().all(|b| *b == 5));
    rig.stop();
}

#[test]
fn a_disk_with_large_sectors_makes_a_device_with_large_sectors() {
    let mut rig = Rig::new(16 * MIB);
    std::fs::rename(rig.path("disk"), rig.path("image")).unwrap();
    let loop_device = run(Command::new("losetup")
        .args(["-f", "--show", "--sector-size", "4096"])
        .arg(rig.path("image")));
    std::os::unix::fs::symlink(loop_device.trim(), rig.path("disk")).unwrap();
    rig.start();
    rig.attach(None).unwrap();
    rig.log(1, 0).unwrap();
    let file = open_direct(&rig.device());
    assert!(write_at(&file, 512, &[1; 512]).is_err());
    write_at(&file, 8192, &[1; 4096]).unwrap();
    // The disk is claimed: nobody else can use it.
    let claim = std::os::unix::fs::OpenOptionsExt::custom_flags(
        std::fs::OpenOptions::new().read(true),
        0o200,
    )
    .open(loop_device.trim());
    assert_eq!(claim.unwrap_err().raw_os_error(), Some(16));
    drop(file);
    let all = content(&rig.device(), rig.size);
    rig.stop();
    assert_same(&content(&rig.path("disk"), rig.size), &all, "disk");
    assert!(all[8192..12288].iter().all(|b| *b == 1));
}
