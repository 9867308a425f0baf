use mars_core::HostName;

use super::*;

fn log(seq: u64) -> LogName {
    LogName::new(seq, &HostName::new("a").unwrap())
}

fn stage(file_offset: u64, carried: usize, filled: usize) -> Stage {
    Stage {
        file_offset,
        carried,
        filled,
    }
}

fn path(dir: &tempfile::TempDir) -> std::path::PathBuf {
    dir.path().join("stage-r")
}

fn on_tmpfs() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

#[test]
fn a_successor_finds_what_was_staged() {
    let dir = on_tmpfs();
    let mut area = StageArea::open(&path(&dir)).unwrap();
    assert!(area.shared());
    area.begin(&log(3), 7);
    area.buffer_mut(0)[..6000].fill(1);
    area.mark(0, &stage(8192, 0, 6000));
    area.carry(0, 6000, 1904);
    area.buffer_mut(1)[1904..2000].fill(2);
    area.mark(1, &stage(12288, 1904, 2000));
    drop(area);
    let mut area = StageArea::open(&path(&dir)).unwrap();
    let expect: Vec<u8> = [vec![1; 2192], vec![2; 96]].concat();
    assert_eq!(area.leftover(&log(3), 7, 12000), expect);
    assert_eq!(area.leftover(&log(3), 7, 8192).len(), 6096);
    assert!(area.leftover(&log(3), 7, 14288).is_empty());
    assert!(area.leftover(&log(3), 7, 8191).is_empty());
    assert!(area.leftover(&log(4), 7, 12000).is_empty());
    // Another file of that name has nothing to do with it.
    assert!(area.leftover(&log(3), 8, 12000).is_empty());
    // It stays while the successor stages it again ...
    area.begin(&log(3), 7);
    area.buffer_mut(0)[..2000].fill(9);
    area.mark(0, &stage(16384, 0, 2000));
    assert_eq!(area.leftover(&log(3), 7, 12000), expect);
    area.forget_leftover();
    assert!(area.leftover(&log(3), 7, 12000).is_empty());
    assert_eq!(area.leftover(&log(3), 7, 16384), [9; 2000]);
    // ... and goes with its log.
    area.begin(&log(4), 7);
    assert!(area.leftover(&log(3), 7, 16384).is_empty());
}

#[test]
fn a_reused_buffer_and_a_damaged_header_offer_nothing() {
    let dir = on_tmpfs();
    let mut area = StageArea::open(&path(&dir)).unwrap();
    area.begin(&log(1), 7);
    area.mark(0, &stage(0, 0, 100));
    area.reuse(0);
    assert!(area.leftover(&log(1), 7, 0).is_empty());
    area.mark(0, &stage(0, 0, BUFFER + 1));
    assert!(area.leftover(&log(1), 7, 0).is_empty());
    area.mark(0, &stage(0, 0, 100));
    drop(area);
    let file = OpenOptions::new().write(true).open(path(&dir)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rubbish", 0).unwrap();
    let area = StageArea::open(&path(&dir)).unwrap();
    assert!(area.leftover(&log(1), 7, 0).is_empty());
}

#[test]
fn without_a_tmpfs_the_memory_is_private() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let area = StageArea::open(&path(&dir)).unwrap();
    assert!(!area.shared());
    assert!(!path(&dir).exists());
}
