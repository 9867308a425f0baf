//! The map against a model: a plain array of bytes, random writes, rounds and reads.

#![allow(clippy::cast_possible_truncation)] // small numbers

use proptest::prelude::*;

use super::*;

const SECTORS: u64 = 40;
const SLOTS: u32 = 8;

/// A map with real bytes behind it; one byte stands for each sector.
struct Machine {
    map: DirtyMap,
    memory: Vec<u8>,
    disk: Vec<u8>,
    model: Vec<u8>,
    /// Every record: start, end, sectors, content; and how many bytes of the log exist.
    records: Vec<(u64, u64, std::ops::Range<u64>, u8)>,
    end: u64,
}

impl Machine {
    fn new() -> Self {
        Self {
            map: DirtyMap::new(SLOTS),
            memory: vec![0; (SLOTS * 8) as usize],
            disk: vec![0; SECTORS as usize],
            model: vec![0; SECTORS as usize],
            records: Vec::new(),
            end: 0,
        }
    }

    fn write(&mut self, sector: u64, count: u64, byte: u8) {
        let count = count.min(SECTORS - sector).min(8);
        let (pos, len) = (sector * SECTOR, count * SECTOR);
        if self.map.free_slots() < 2 {
            self.round(usize::MAX);
        }
        let end = self.end + len + 84;
        let before = Stamp::new(i64::try_from(self.end).unwrap(), 0);
        for (page, mask, range) in split_pages(pos, len) {
            let slot = self.map.place(page, mask, (self.end, end), before).unwrap();
            let first = (pos + range.start) % PAGE / SECTOR;
            let at = u64::from(slot) * 8 + first;
            for s in 0..(range.end - range.start) / SECTOR {
                assert!(mask & (1 << (first + s)) != 0);
                self.memory[(at + s) as usize] = byte;
            }
        }
        self.records
            .push((self.end, end, sector..sector + count, byte));
        self.end = end;
        self.model[sector as usize..(sector + count) as usize].fill(byte);
    }

    /// One whole round with nothing between its steps.
    fn round(&mut self, max: usize) {
        if self.map.freeze(max).is_some() {
            self.land();
            self.map.thaw();
        }
    }

    /// The frozen pages reach the disk.
    fn land(&mut self) {
        for f in self.map.frozen().to_vec() {
            for s in 0..8 {
                let sector = (f.page * 8 + s) as usize;
                if f.mask & (1 << s) != 0 {
                    self.disk[sector] = self.memory[f.slot as usize * 8 + s as usize];
                }
            }
        }
    }

    fn check(&mut self) {
        let mut runs = Vec::new();
        self.map.runs(0, SECTORS * SECTOR, &mut runs);
        let mut at = 0;
        for run in &runs {
            assert_eq!(run.offset, at);
            for s in 0..run.len / SECTOR {
                let sector = (run.offset / SECTOR + s) as usize;
                let got = match run.source {
                    Source::Disk => self.disk[sector],
                    Source::Memory { offset } => self.memory[(offset / SECTOR + s) as usize],
                };
                assert_eq!(got, self.model[sector], "sector {sector}");
            }
            at += run.len;
        }
        assert_eq!(at, SECTORS * SECTOR);
        // Replaying the records from the written-back position on must make the disk right, and that position is a
        // record boundary with the right stamp.
        let (from, stamp) = self
            .map
            .oldest()
            .unwrap_or((self.end, Stamp::new(i64::try_from(self.end).unwrap(), 0)));
        assert_eq!(stamp.secs, i64::try_from(from).unwrap());
        let mut disk = self.disk.clone();
        for (start, _, sectors, byte) in &self.records {
            if *start >= from {
                disk[sectors.start as usize..sectors.end as usize].fill(*byte);
            }
        }
        assert_eq!(disk, self.model, "replay from {from}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, u64, u8),
    Freeze(usize),
    Land,
    Thaw,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..SECTORS, 1..9u64, any::<u8>()).prop_map(|(s, n, b)| Step::Write(s, n, b)),
        1 => (1..6usize).prop_map(Step::Freeze),
        1 => Just(Step::Land),
        1 => Just(Step::Thaw),
    ]
}

proptest! {
    #[test]
    fn reads_see_the_newest_and_replay_from_the_position_is_right(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut machine = Machine::new();
        for step in steps {
            match step {
                Step::Write(s, n, b) => {
                    if machine.map.free_slots() < 2 && !machine.map.frozen().is_empty() {
                        machine.land();
                        machine.map.thaw();
                    }
                    machine.write(s, n, b);
                }
                Step::Freeze(max) => { machine.map.freeze(max); }
                Step::Land => machine.land(),
                Step::Thaw => {
                    machine.land();
                    machine.map.thaw();
                }
            }
            machine.check();
        }
        machine.land();
        machine.map.thaw();
        machine.round(usize::MAX);
        machine.check();
        prop_assert!(machine.map.is_empty());
        prop_assert_eq!(machine.map.dirty_bytes(), 0);
        prop_assert_eq!(machine.map.free_slots(), SLOTS as usize);
        prop_assert_eq!(&machine.disk, &machine.model);
    }
}

#[test]
fn a_page_overwritten_many_times_is_written_once() {
    let mut machine = Machine::new();
    for byte in 1..=10 {
        machine.write(0, 8, byte);
    }
    assert_eq!(machine.map.freeze(100), Some(10 * (PAGE + 84)));
    assert_eq!(machine.map.frozen().len(), 1);
    machine.land();
    machine.map.thaw();
    machine.check();
}

#[test]
fn without_a_free_slot_nothing_is_placed() {
    let mut map = DirtyMap::new(1);
    let t = Stamp::default();
    assert_eq!(map.place(5, 1, (0, 596), t), Some(0));
    assert_eq!(map.place(6, 1, (596, 1192), t), None);
    assert_eq!(map.place(5, 2, (596, 1192), t), Some(0));
    assert_eq!(map.dirty_bytes(), 1024);
}

#[test]
fn rounds_pass_over_the_disk_in_order_and_what_comes_meanwhile_waits_for_the_next_pass() {
    let mut map = DirtyMap::new(8);
    let place = |map: &mut DirtyMap, page| {
        map.place(page, u8::MAX, (0, 4180), Stamp::default());
    };
    let round = |map: &mut DirtyMap| -> Vec<u64> {
        map.freeze(2);
        let pages = map.frozen().iter().map(|f| f.page).collect();
        map.thaw();
        pages
    };
    for page in [5, 1, 9, 3] {
        place(&mut map, page);
    }
    assert_eq!(round(&mut map), [1, 3]);
    place(&mut map, 7);
    place(&mut map, 1);
    assert_eq!(round(&mut map), [5, 9]);
    assert_eq!(round(&mut map), [1, 7]);
    assert!(round(&mut map).is_empty() && map.is_empty());
}
