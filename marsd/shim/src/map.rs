//! Which blocks are newer in the log than on the disk, and in which memory slot their content stands; pure.
//!
//! The map is a write-back cache of 4 KiB pages. A page has a *current* part, which takes new writes, and while a
//! write-back round is under way a *frozen* part, which never changes until the round is on stable storage. A sector
//! is found in the current part, else in the frozen part, else on the disk. Positions are those of the log stream
//! (see [`crate::stream`]).

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::num::NonZeroU32;

use mars_core::Stamp;
use rustc_hash::FxBuildHasher;

/// Bytes of a page, and of a memory slot.
pub const PAGE: u64 = 4096;
/// Bytes of a sector, the smallest unit of a write.
pub const SECTOR: u64 = 512;
const SECTORS_PER_PAGE: u64 = PAGE / SECTOR;

/// Number of a memory slot of [`PAGE`] bytes.
pub type Slot = u32;

/// What stands in a slot: some sectors of one page.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// Beginning of the first record that is in here.
    first: u64,
    /// End of the newest record that is in here.
    end: u64,
    /// Bit n: sector n of the page stands in the slot.
    mask: u8,
}

/// The slots of a dirty page; at least one of them.
#[derive(Debug, Clone, Copy, Default)]
struct Page {
    current: Option<SlotRef>,
    frozen: Option<SlotRef>,
}

/// A slot, as small as one even where there may be none: its number and one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SlotRef(NonZeroU32);

impl SlotRef {
    /// No memory has so many slots that the last number is one of them.
    fn new(slot: Slot) -> Self {
        Self(NonZeroU32::MIN.saturating_add(slot))
    }

    fn slot(self) -> Slot {
        self.0.get() - 1
    }
}

/// A page to be written back: `mask` sectors of `slot` belong to page number `page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    /// Number of the page on the device.
    pub page: u64,
    /// Where its content stands.
    pub slot: Slot,
    /// Bit n: sector n is to be written.
    pub mask: u8,
}

/// Where a run of sectors is to be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Bytes from `offset` on of the whole slot memory.
    Memory {
        /// Byte offset in the slot memory.
        offset: u64,
    },
    /// The disk, at the same place.
    Disk,
}

/// A run of bytes that comes from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Byte offset on the device.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where it is.
    pub source: Source,
}

#[derive(Debug, Clone, Copy)]
struct Born {
    first: u64,
    page: u64,
    /// Stamp of the record before the one that made the page dirty.
    before: Stamp,
}

/// The map; see the module.
#[derive(Debug)]
pub struct DirtyMap {
    /// By number of the page; large enough from the beginning, since a stream of writes does not wait for it to grow.
    pages: HashMap<u64, Page, FxBuildHasher>,
    /// By number of the slot.
    parts: Vec<Part>,
    /// What was freed last is used first, so that little memory is touched while little is written.
    free: VecDeque<Slot>,
    used: usize,
    born: VecDeque<Born>,
    dirty_sectors: u64,
    current_pages: usize,
    frozen: Vec<Frozen>,
    /// What is left of a pass over the disk, in its order: pages with a current part. Those that become dirty
    /// meanwhile belong to the next pass.
    sweep: BinaryHeap<Reverse<u64>>,
}

impl DirtyMap {
    /// An empty map over `slots` slots.
    pub fn new(slots: Slot) -> Self {
        Self {
            pages: HashMap::with_capacity_and_hasher(slots as usize, FxBuildHasher),
            parts: vec![Part::default(); slots as usize],
            free: (0..slots).collect(),
            used: 0,
            born: VecDeque::new(),
            dirty_sectors: 0,
            current_pages: 0,
            frozen: Vec::new(),
            sweep: BinaryHeap::new(),
        }
    }

    /// Number of unused slots.
    pub fn free_slots(&self) -> usize {
        self.free.len()
    }

    /// Whether the disk has everything.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Bytes that are newer than on the disk.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_sectors * SECTOR
    }

    /// Pages that wait for a write-back round (those of a running round are not counted).
    pub fn waiting_pages(&self) -> usize {
        self.current_pages
    }

    /// Makes the sectors `mask` of `page` dirty by the record `start..end` and tells the slot that takes their
    /// content; `before` is the stamp of the record before it. None if no slot is free.
    pub fn place(
        &mut self,
        page: u64,
        mask: u8,
        (start, end): (u64, u64),
        before: Stamp,
    ) -> Option<Slot> {
        let entry = match self.pages.entry(page) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if self.free.is_empty() => return None,
            Entry::Vacant(entry) => entry.insert(Page::default()),
        };
        if let Some(current) = entry.current {
            let part = &mut self.parts[current.slot() as usize];
            self.dirty_sectors += u64::from((mask & !part.mask).count_ones());
            part.mask |= mask;
            part.end = end;
            return Some(current.slot());
        }
        let slot = self.free.pop_front()?;
        entry.current = Some(SlotRef::new(slot));
        self.parts[slot as usize] = Part {
            first: start,
            end,
            mask,
        };
        self.born.push_back(Born {
            first: start,
            page,
            before,
        });
        self.dirty_sectors += u64::from(mask.count_ones());
        self.current_pages += 1;
        self.used = self.used.max(slot as usize + 1);
        Some(slot)
    }

    /// Where the bytes `offset..offset+len` are, in order; neighbouring pieces of one source are joined.
    pub fn runs(&self, offset: u64, len: u64, out: &mut Vec<Run>) {
        out.clear();
        if self.pages.is_empty() {
            return push_run(out, offset, len, Source::Disk);
        }
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let number = at / PAGE;
            let stop = end.min((number + 1) * PAGE);
            let Some(page) = self.pages.get(&number) else {
                push_run(out, at, stop - at, Source::Disk);
                at = stop;
                continue;
            };
            while at < stop {
                let piece = (SECTOR - at % SECTOR).min(stop - at);
                push_run(out, at, piece, self.source(page, at % PAGE));
                at += piece;
            }
        }
    }

    /// Begins a round: freezes up to `max` pages in disk order, continuing behind the last round, and returns the end
    /// of the newest record in them, which must be durable before they are written. None if nothing is dirty or a
    /// round is under way.
    pub fn freeze(&mut self, max: usize) -> Option<u64> {
        if !self.frozen.is_empty() {
            return None;
        }
        let mut newest = None;
        while self.frozen.len() < max && self.current_pages > 0 {
            let Some(Reverse(page)) = self.sweep.pop() else {
                self.begin_sweep();
                continue;
            };
            let taken = self.pages.get_mut(&page).and_then(|entry| {
                entry.frozen = entry.current.take();
                entry.frozen
            });
            let Some(current) = taken else { continue };
            self.current_pages -= 1;
            let (slot, part) = (current.slot(), self.parts[current.slot() as usize]);
            newest = newest.max(Some(part.end));
            let mask = part.mask;
            self.frozen.push(Frozen { page, slot, mask });
        }
        self.frozen.sort_unstable_by_key(|f| f.page);
        newest
    }

    fn begin_sweep(&mut self) {
        let dirty = self.pages.iter().filter(|(_, p)| p.current.is_some());
        let mut pages = std::mem::take(&mut self.sweep).into_vec();
        pages.extend(dirty.map(|(&page, _)| Reverse(page)));
        self.sweep = pages.into();
    }

    /// The pages of the running round in disk order.
    pub fn frozen(&self) -> &[Frozen] {
        &self.frozen
    }

    /// Number of slots that were in use at once since the last [`DirtyMap::rewind`], as the highest number of one.
    pub fn used_slots(&self) -> usize {
        self.used
    }

    /// Puts the slots in order again, while no page is dirty.
    pub fn rewind(&mut self) {
        if self.is_empty() {
            self.free.make_contiguous().sort_unstable();
            self.used = 0;
        }
    }

    /// Ends the round: its pages are on stable storage.
    pub fn thaw(&mut self) {
        for done in std::mem::take(&mut self.frozen).into_iter().rev() {
            let Some(entry) = self.pages.get_mut(&done.page) else {
                continue;
            };
            entry.frozen = None;
            if entry.current.is_none() {
                self.pages.remove(&done.page);
            }
            self.free.push_front(done.slot);
            self.dirty_sectors -= u64::from(done.mask.count_ones());
        }
    }

    /// Beginning of the oldest record that is not (wholly) on the disk, and the stamp of the record before it.
    pub fn oldest(&mut self) -> Option<(u64, Stamp)> {
        while let Some(born) = self.born.front() {
            let alive = self.pages.get(&born.page).is_some_and(|p| {
                [p.current, p.frozen]
                    .iter()
                    .flatten()
                    .any(|at| self.parts[at.slot() as usize].first == born.first)
            });
            if alive {
                return Some((born.first, born.before));
            }
            self.born.pop_front();
        }
        None
    }

    fn source(&self, page: &Page, in_page: u64) -> Source {
        let sector = in_page / SECTOR;
        [page.current, page.frozen]
            .iter()
            .flatten()
            .find(|at| self.parts[at.slot() as usize].mask & (1 << sector) != 0)
            .map_or(Source::Disk, |at| Source::Memory {
                offset: u64::from(at.slot()) * PAGE + in_page,
            })
    }
}

fn push_run(out: &mut Vec<Run>, offset: u64, len: u64, source: Source) {
    if let Some(last) = out.last_mut() {
        let joined = match (last.source, source) {
            (Source::Disk, Source::Disk) => true,
            (Source::Memory { offset: a }, Source::Memory { offset: b }) => a + last.len == b,
            _ => false,
        };
        if joined {
            last.len += len;
            return;
        }
    }
    out.push(Run {
        offset,
        len,
        source,
    });
}

/// The pages that `pos..pos+len` touches (both multiples of [`SECTOR`]): number, mask of sectors, and the byte range
/// of the payload that goes there.
pub fn split_pages(
    pos: u64,
    len: u64,
) -> impl Iterator<Item = (u64, u8, std::ops::Range<u64>)> + Clone {
    let end = pos + len;
    (pos / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let from = pos.max(page * PAGE);
        let to = end.min((page + 1) * PAGE);
        let first = (from % PAGE) / SECTOR;
        let count = (to - from) / SECTOR;
        let mask = if count >= SECTORS_PER_PAGE {
            u8::MAX
        } else {
            ((1u8 << count) - 1) << first
        };
        (page, mask, from - pos..to - pos)
    })
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
