//! Notes durably which regions pass-through writes, before they are written (`symlink-spec.md` section 8.6).
//!
//! Writes to regions that are not noted yet are held until the worker has put the note on stable storage; all that come
//! meanwhile share the next note. Without a map nothing is held: then everything counts as written.

use std::collections::{BTreeSet, VecDeque};

use mars_core::unlogged::{Regions, regions_of};

use super::worker::Job;
use super::{Engine, Op};
use crate::error::ShimError;

/// A write that waits for its note.
#[derive(Debug)]
struct Held {
    job: u32,
    offset: u64,
    len: u64,
}

/// What is noted, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Unlogged {
    /// Regions whose note is on stable storage; `None`: there is no map.
    noted: Option<Regions>,
    wanted: BTreeSet<u64>,
    noting: bool,
    held: VecDeque<Held>,
}

impl Unlogged {
    /// Takes the map of the worker over, or none.
    pub(super) fn begin(&mut self, noted: Option<Regions>) {
        self.noted = noted;
    }

    /// The device has grown.
    pub(super) fn grow(&mut self, size_bytes: u64) {
        if let Some(noted) = &mut self.noted {
            noted.grow(size_bytes);
        }
    }

    fn is_noted(&self, offset: u64, len: u64) -> bool {
        let Some(noted) = &self.noted else {
            return true;
        };
        regions_of(offset, len).all(|region| noted.contains(region))
    }

    /// Whether this range may be written now; if not, its note is asked for.
    pub(super) fn may_write(&mut self, offset: u64, len: u64) -> bool {
        let Some(noted) = &self.noted else {
            return true;
        };
        let before = self.wanted.len();
        let missing = regions_of(offset, len).filter(|region| !noted.contains(*region));
        self.wanted.extend(missing);
        // A region that is wanted already or being noted is as little ready as a new one.
        self.wanted.len() == before && self.is_noted(offset, len)
    }
}

impl Engine {
    /// Writes the buffer of job `number` to the disk, now or as soon as its regions are noted.
    pub(super) fn write_noted(&mut self, number: u32, offset: u64, len: u64) {
        let job = Held {
            job: number,
            offset,
            len,
        };
        if self.unlogged.may_write(offset, len) {
            self.write_job(&job);
        } else {
            self.unlogged.held.push_back(job);
        }
    }

    fn write_job(&mut self, held: &Held) {
        let Some(at) = self.jobs.buffer_at(held.job) else {
            return;
        };
        let from = self.pool.memory().at(at);
        let len = u32::try_from(held.len).unwrap_or(0);
        let op = Op::Job(held.job);
        self.ring.write(op, &self.disk.file, from, len, held.offset);
    }

    /// Has the worker note what is wanted, one note at a time.
    pub(super) fn pump_unlogged(&mut self) {
        if self.unlogged.noting || self.unlogged.wanted.is_empty() {
            return;
        }
        self.unlogged.noting = true;
        let regions = std::mem::take(&mut self.unlogged.wanted);
        self.worker.add(Job::Note { regions });
    }

    /// A note is on stable storage, or cannot be made and the map was given up.
    pub(super) fn noted(&mut self, regions: &BTreeSet<u64>, result: Result<(), ShimError>) {
        self.unlogged.noting = false;
        match (result, &mut self.unlogged.noted) {
            (Ok(()), Some(noted)) => {
                for region in regions {
                    noted.insert(*region);
                }
            }
            (Ok(()), None) => {}
            (Err(e), _) => {
                tracing::error!("{e}; everything counts as written past the logs");
                self.unlogged.noted = None;
                self.unlogged.wanted.clear();
            }
        }
        for held in std::mem::take(&mut self.unlogged.held) {
            if self.unlogged.is_noted(held.offset, held.len) {
                self.write_job(&held);
            } else {
                self.unlogged.held.push_back(held);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_waits_exactly_until_all_its_regions_are_noted() {
        let mut state = Unlogged::default();
        assert!(state.may_write(0, 512), "no map");
        state.begin(Some(Regions::new(1 << 20)));
        assert!(!state.may_write(65000, 2000));
        assert_eq!(state.wanted, [0, 1].into());
        // Being noted, and asked for again.
        let taken = std::mem::take(&mut state.wanted);
        assert!(!state.may_write(0, 512));
        let noted = state.noted.as_mut().unwrap();
        taken.iter().all(|r| noted.insert(*r));
        assert!(state.may_write(65000, 2000));
        assert!(!state.may_write(131_000, 4096));
    }
}
