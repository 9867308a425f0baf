//! What is written past the logs is noted before it reaches the disk.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::blocks::{Random, assert_same, content, open_direct, random_write, write_at};
use common::{MIB, Rig, run, wait_for};
use mars_core::control::{Refusal, ShimState, Verb};
use mars_core::unlogged::{REGION_BYTES, regions_of};
use mars_tree::unlogged::{UnloggedMap, unlogged_path};

fn map(rig: &Rig) -> UnloggedMap {
    UnloggedMap::load(&rig.log_dir).unwrap().unwrap()
}

fn pass_through(rig: &mut Rig) {
    let status = rig.send(Verb::PassThrough { on: true }, None).unwrap();
    assert_eq!(status.state, ShimState::PassThrough);
}

/// Every region in which the disk is no longer `before` is in the map.
fn assert_noted(rig: &Rig, before: &[u8]) -> usize {
    let (map, now) = (map(rig), content(&rig.path("disk"), rig.size));
    let region = usize::try_from(REGION_BYTES).unwrap();
    let pieces = before.chunks(region).zip(now.chunks(region)).enumerate();
    let changed: Vec<u64> = pieces
        .filter(|(_, (old, new))| old != new)
        .map(|(n, _)| n as u64)
        .collect();
    for n in &changed {
        assert!(map.regions().contains(*n), "region {n} is not noted");
    }
    changed.len()
}

#[test]
fn a_killed_shim_has_noted_all_that_reached_the_disk_and_its_successor_goes_on() {
    let mut rig = Rig::serving(64 * MIB);
    let file = open_direct(&rig.device());
    write_at(&file, 0, &[1; 4096]).unwrap();
    pass_through(&mut rig);
    assert!(map(&rig).header().covers(2) && !map(&rig).header().covers(1));
    let before = content(&rig.path("disk"), rig.size);
    let written = Arc::new(AtomicU64::new(0));
    let (device, count) = (rig.device(), Arc::clone(&written));
    let writer = std::thread::spawn(move || {
        let file = open_direct(&device);
        // Region after region, so that the kill finds some on their way.
        for n in 0..600u64 {
            write_at(&file, n * REGION_BYTES + 4096, &[2; 4096]).unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    for goal in [50, 150] {
        wait_for("writes", || {
            (written.load(Ordering::Relaxed) > goal).then_some(())
        });
        let end = rig.last.as_ref().unwrap().logs[0].logged;
        rig.kill();
        assert!(assert_noted(&rig, &before) > 40);
        let held = rig.held.take();
        rig.start();
        rig.attach(held).unwrap();
        let status = rig.log(1, end).unwrap();
        assert_eq!(status.state, ShimState::PassThrough);
    }
    writer.join().unwrap();
    drop(file);
    rig.stop();
    assert_eq!(assert_noted(&rig, &before), 600);
    assert_eq!(map(&rig).regions().ranges(), [(0, 600 * REGION_BYTES)]);
}

#[test]
fn only_what_is_written_is_noted_and_two_times_add_up() {
    let mut rig = Rig::serving(16 * MIB);
    let mut model = vec![0; 16 << 20];
    let file = open_direct(&rig.device());
    for (seq, at) in [(1, 3 * MIB), (3, 9 * MIB + 65536)] {
        write_at(&file, 5 * MIB, &[7; 4096]).unwrap();
        pass_through(&mut rig);
        write_at(&file, at, &[8; 8192]).unwrap();
        run(std::process::Command::new("fallocate")
            .args(["-z", "-o", &(at + 4 * MIB).to_string(), "-l", "65536"])
            .arg(rig.device()));
        assert_eq!(rig.log(seq + 2, 0).unwrap().state, ShimState::Logging);
    }
    let ranges: Vec<u64> = map(&rig).regions().ranges().iter().map(|r| r.0).collect();
    let expected = [3 * MIB, 7 * MIB, 9 * MIB + 65536, 13 * MIB + 65536];
    assert_eq!(ranges, expected);
    assert_eq!(map(&rig).header().first_gap, 2);
    model[5 << 20..(5 << 20) + 4096].fill(7);
    for at in [3 << 20, (9 << 20) + 65536] {
        model[at..at + 8192].fill(8);
    }
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    drop(file);
    rig.stop();
}

#[test]
fn the_map_grows_with_the_device() {
    let mut rig = Rig::serving(8 * MIB);
    pass_through(&mut rig);
    rig.size = 16 * MIB;
    let disk = fs::OpenOptions::new().write(true).open(rig.path("disk"));
    disk.unwrap().set_len(rig.size).unwrap();
    let size_bytes = rig.size;
    rig.send(Verb::Resize { size_bytes }, None).unwrap();
    let file = open_direct(&rig.device());
    write_at(&file, 15 * MIB, &[1; 4096]).unwrap();
    let noted = map(&rig);
    assert_eq!(noted.regions().ranges(), [(15 * MIB, REGION_BYTES)]);
    assert!(regions_of(15 * MIB, 1).all(|r| noted.regions().contains(r)));
    drop(file);
    rig.stop();
}

#[test]
fn without_a_good_map_writers_see_no_error_and_nobody_believes_it() {
    let mut rig = Rig::serving(8 * MIB);
    let mut model = vec![0; 8 << 20];
    let mut random = Random(5);
    let file = open_direct(&rig.device());
    let path = unlogged_path(&rig.log_dir);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4200] ^= 1;
    fs::write(&path, &bytes).unwrap();
    pass_through(&mut rig);
    for _ in 0..50 {
        random_write(&file, &mut model, &mut random);
    }
    assert!(UnloggedMap::load(&rig.log_dir).is_err());
    rig.log(3, 0).unwrap();
    assert!(!map(&rig).header().covers(2));
    // A device that has outgrown its map, as where the file system had no room for a larger one.
    let small = rig.path("small");
    fs::create_dir(&small).unwrap();
    drop(UnloggedMap::prepare(&small, MIB).unwrap());
    fs::rename(unlogged_path(&small), &path).unwrap();
    pass_through(&mut rig);
    for _ in 0..50 {
        random_write(&file, &mut model, &mut random);
    }
    assert!(map(&rig).header().lost);
    assert_same(&content(&rig.device(), rig.size), &model, "device");
    drop(file);
    rig.stop();
}

#[test]
fn a_successor_without_a_log_goes_on_passing_through_and_logs_again() {
    let mut rig = Rig::serving(16 * MIB);
    let file = open_direct(&rig.device());
    write_at(&file, 0, &[1; 4096]).unwrap();
    pass_through(&mut rig);
    write_at(&file, MIB, &[2; 4096]).unwrap();
    let end = rig.last.as_ref().unwrap().logs[0].logged;
    rig.kill();
    let held = rig.held.take();
    rig.start();
    rig.attach(held).unwrap();
    let (log, pos) = (common::log_name(1), end);
    let status = rig.send(Verb::PassFrom { log, pos }, None).unwrap();
    assert_eq!(status.state, ShimState::PassThrough);
    write_at(&file, 5 * MIB, &[3; 4096]).unwrap();
    let noted = map(&rig).regions().ranges();
    assert_eq!(noted, [(MIB, REGION_BYTES), (5 * MIB, REGION_BYTES)]);
    let refused = rig.send(Verb::Stop, None).unwrap_err();
    assert!(matches!(refused, Refusal::Busy { .. }), "{refused}");
    let status = rig.log(3, 0).unwrap();
    assert_eq!(status.state, ShimState::Logging);
    write_at(&file, 6 * MIB, &[4; 4096]).unwrap();
    assert_eq!(map(&rig).regions().ranges(), noted);
    drop(file);
    let status = rig.stop();
    assert_eq!(status.logs[0].logged, 4180);
}
