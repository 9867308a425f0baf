extern crate std;
use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::pages::runs_of;

type Map = DirtyMap<Vec<Entry>, Vec<Slot>, Vec<Frozen>>;

fn map(slots: usize, round: usize) -> Map {
    let mut map = Map::new(
        vec![Entry::new(); slots],
        vec![0; 4],
        vec![Frozen::default(); round],
    );
    while let Some(slot) = map.take_bare() {
        map.stock(slot);
    }
    map
}

fn time(secs: i64) -> LogTime {
    LogTime { secs, nanos: 0 }
}

fn write(map: &mut Map, pos: u64, len: u64, record: (u64, u64), batch: u32) -> Vec<Slot> {
    map.check(pos, len, batch).unwrap();
    split_pages(pos, len)
        .map(|p| {
            map.place(p.page, p.mask, record, time(record.0 as i64), batch)
                .unwrap()
        })
        .collect()
}

#[test]
fn newest_part_is_read() {
    let mut map = map(8, 8);
    let old = write(&mut map, 0, 4096, (0, 100), 1)[0];
    assert_eq!(map.freeze(), Some(100));
    let new = write(&mut map, 512, 512, (100, 200), 2)[0];
    assert_ne!(old, new);
    let memory = |slot, at| Source::Memory { slot, at };
    assert_eq!(map.first_run(0, 8192), (memory(old, 0), 512));
    assert_eq!(map.first_run(512, 7680), (memory(new, 512), 512));
    assert_eq!(map.first_run(1024, 7168), (memory(old, 1024), 3072));
    assert_eq!(map.first_run(4096, 4096), (Source::Disk, 4096));
    assert_eq!(map.dirty_bytes(), 4096 + 512);
    map.thaw();
    assert_eq!(map.first_run(0, 8192), (Source::Disk, 512));
    assert_eq!(map.first_run(512, 7680), (memory(new, 512), 512));
    assert_eq!(map.first_run(1024, 1 << 20), (Source::Disk, 1 << 20));
    assert_eq!(map.dirty_bytes(), 512);
}

#[test]
fn a_run_from_the_disk_ends_at_the_next_dirty_sector() {
    let mut map = map(8, 8);
    write(&mut map, 1 << 20, 512, (0, 100), 1);
    assert_eq!(map.first_run(512, 4 << 20), (Source::Disk, (1 << 20) - 512));
    write(&mut map, (1 << 20) - 512, 512, (100, 200), 1);
    assert_eq!(map.first_run(0, 4 << 20), (Source::Disk, (1 << 20) - 512));
}

#[test]
fn written_back_is_the_oldest_record_that_is_not_on_the_disk() {
    let mut map = map(8, 2);
    assert_eq!(map.oldest(), None);
    write(&mut map, 8192, 4096, (10, 20), 1);
    write(&mut map, 0, 4096, (20, 30), 1);
    write(&mut map, 4096, 4096, (30, 40), 1);
    // Written again while it waits: stays as old as it was.
    write(&mut map, 8192, 4096, (40, 50), 2);
    assert_eq!(map.oldest(), Some((10, time(10))));
    assert_eq!(map.freeze(), Some(50));
    let order: Vec<u64> = map.frozen().iter().map(|f| f.page).collect();
    assert_eq!(order, [0, 2]);
    // Written again while it is being written back: only the new part is left.
    write(&mut map, 0, 4096, (50, 60), 3);
    assert_eq!(map.oldest(), Some((10, time(10))));
    assert_eq!(map.freeze(), None);
    map.thaw();
    assert_eq!(map.oldest(), Some((30, time(30))));
    assert_eq!(map.freeze(), Some(60));
    map.thaw();
    assert!(map.is_empty());
    assert_eq!((map.oldest(), map.free_slots()), (None, 8));
}

#[test]
fn one_batch_writes_no_sector_twice() {
    let mut map = map(2, 2);
    write(&mut map, 0, 1024, (0, 10), 1);
    assert_eq!(map.check(1024, 512, 1), Ok(()));
    assert_eq!(map.check(512, 1024, 1), Err(NoPlace::SameBatch));
    assert_eq!(map.check(512, 1024, 2), Ok(()));
    // A frozen part is not written to: it does not count.
    map.freeze();
    assert_eq!(map.check(512, 1024, 1), Ok(()));
    write(&mut map, 4096, 512, (10, 20), 1);
    assert_eq!(map.check(0, 512, 1), Err(NoPlace::Full));
    assert_eq!(map.check(4608, 512, 1), Ok(()));
}

#[test]
fn memory_comes_and_goes() {
    let mut map = Map::new(
        vec![Entry::new(); 3],
        vec![0; 2],
        vec![Frozen::default(); 2],
    );
    assert_eq!(map.check(0, 512, 1), Err(NoPlace::Full));
    let slots: Vec<Slot> = core::iter::from_fn(|| map.take_bare()).collect();
    assert_eq!(slots.len(), 3);
    map.put_bare(slots[0]);
    map.stock(slots[1]);
    map.stock(slots[2]);
    assert_eq!(map.free_slots(), 2);
    assert!(map.take_surplus(1).is_some());
    assert_eq!(map.take_surplus(1), None);
    assert_eq!(map.take_bare(), Some(slots[0]));
}

#[test]
fn a_round_is_in_disk_order() {
    let mut map = map(64, 64);
    for n in 0..50u64 {
        write(&mut map, n * 37 % 50 * 4096, 512, (n, n + 1), 1);
    }
    map.freeze();
    let order: Vec<u64> = map.frozen().iter().map(|f| f.page).collect();
    assert_eq!(order, (0..50).collect::<Vec<_>>());
}

/// Random writes, rounds and reads against a plain model of memory and disk.
#[test]
fn behaves_as_a_plain_disk() {
    let mut seed = 1u64;
    let mut random = move |below: u64| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) % below
    };
    let mut map = map(16, 5);
    // Content of a sector: the number of the write. Slots hold eight sectors.
    let mut memory: HashMap<(Slot, u64), u64> = HashMap::new();
    let (mut disk, mut truth): (HashMap<u64, u64>, HashMap<u64, u64>) = Default::default();
    let mut frozen = false;
    for step in 1..20_000u64 {
        match random(4) {
            0 | 1 => {
                let (sector, count) = (random(120), 1 + random(8));
                if map.check(sector * 512, count * 512, step as u32).is_err() {
                    continue;
                }
                for p in split_pages(sector * 512, count * 512) {
                    let slot = map
                        .place(p.page, p.mask, (step, step + 1), time(0), step as u32)
                        .unwrap();
                    for n in 0..u64::from(p.len) / 512 {
                        let in_page = u64::from(p.at) / 512 + n;
                        memory.insert((slot, in_page), step);
                        truth.insert(p.page * 8 + in_page, step);
                    }
                }
            }
            2 if frozen => {
                for f in map.frozen().to_vec() {
                    for (at, len) in runs_of(f.mask) {
                        for n in u64::from(at) / 512..u64::from(at + len) / 512 {
                            disk.insert(f.page * 8 + n, memory[&(f.slot, n)]);
                        }
                    }
                }
                map.thaw();
                frozen = false;
            }
            2 => frozen = map.freeze().is_some(),
            _ => {
                let (mut sector, end) = (random(64), 64 + random(64));
                while sector < end {
                    let (source, len) = map.first_run(sector * 512, (end - sector) * 512);
                    assert!(len > 0 && len % 512 == 0);
                    for n in 0..len / 512 {
                        let read = match source {
                            Source::Disk => disk.get(&(sector + n)).copied(),
                            Source::Memory { slot, at } => {
                                memory.get(&(slot, u64::from(at) / 512 + n)).copied()
                            }
                        };
                        assert_eq!(read, truth.get(&(sector + n)).copied());
                    }
                    sector += len / 512;
                }
            }
        }
    }
}
