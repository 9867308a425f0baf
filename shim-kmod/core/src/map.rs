//! Which sectors are newer in the log than on the disk, and in which memory slot their content stands; pure.
//!
//! The map is a write-back cache of 4 KiB pages over a fixed number of slots. A page has a *current* part, which takes
//! new writes, and while a write-back round is under way a *frozen* part, which never changes until the round is on
//! stable storage. A sector is found in the current part, else in the frozen part, else on the disk. Positions are
//! those of the stream of records (see `stream`). The content of the slots is the caller's.

use core::ops::DerefMut;

use crate::log_format::LogTime;
use crate::pages::{split_pages, PAGE, SECTOR};

/// Number of a slot.
pub type Slot = u32;
const NONE: Slot = Slot::MAX;

/// What a slot is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Has no memory.
    Bare,
    Free,
    Current,
    Frozen,
}

/// One slot.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    page: u64,
    /// Beginning of the first record that is in here.
    first: u64,
    /// End of the newest record that is in here.
    end: u64,
    /// Stamp of the record before the first one.
    before: LogTime,
    /// Next slot of the hash chain.
    chain: Slot,
    /// Next slot of its list: bare, free, or current parts in the order of `first`.
    next: Slot,
    /// The batch that wrote here last, and the sectors that it wrote.
    batch: u32,
    batch_mask: u8,
    /// Bit n: sector n of the page stands in the slot.
    mask: u8,
    state: Use,
}

impl Entry {
    /// A slot without memory.
    pub const fn new() -> Self {
        Self {
            page: 0,
            first: 0,
            end: 0,
            before: LogTime { secs: 0, nanos: 0 },
            chain: NONE,
            next: NONE,
            batch: 0,
            batch_mask: 0,
            mask: 0,
            state: Use::Bare,
        }
    }
}

impl Default for Entry {
    fn default() -> Self {
        Self::new()
    }
}

/// A page to be written back: `mask` sectors of `slot` belong to page number `page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frozen {
    /// Number of the page on the device.
    pub page: u64,
    /// Where its content stands.
    pub slot: Slot,
    /// Bit n: sector n is to be written.
    pub mask: u8,
}

/// Where bytes are to be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From byte `at` on of a slot.
    Memory {
        /// The slot.
        slot: Slot,
        /// Byte offset in it.
        at: u32,
    },
    /// The disk, at the same place.
    Disk,
}

/// Why a record cannot be placed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// No slot is free.
    Full,
    /// The same batch has written one of these sectors: its content must be in the log first.
    SameBatch,
}

/// Singly linked list of slots.
#[derive(Debug, Clone, Copy)]
struct List {
    head: Slot,
    tail: Slot,
    len: usize,
}

impl List {
    const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
        len: 0,
    };
}

/// The map; see the module.
///
/// # Invariants
///
/// * Every slot is in exactly one of: the list `bare`, the list `free`, the list `current`, `frozen[..frozen_len]`.
/// * Current and frozen slots, and no others, are in the hash chain of their page.
/// * A page has at most one current and one frozen slot.
/// * `current` is ordered by `first`; whatever is frozen began before.
#[derive(Debug)]
pub struct DirtyMap<E, H, F> {
    entries: E,
    heads: H,
    frozen: F,
    frozen_len: usize,
    /// Beginning of the oldest record in the frozen pages, and the stamp before it.
    frozen_oldest: Option<(u64, LogTime)>,
    bare: List,
    free: List,
    current: List,
    dirty_sectors: u64,
}

impl<E, H, F> DirtyMap<E, H, F>
where
    E: DerefMut<Target = [Entry]>,
    H: DerefMut<Target = [Slot]>,
    F: DerefMut<Target = [Frozen]>,
{
    /// An empty map. `entries` are its slots, all without memory; the length of `heads` is a power of two; a round
    /// has at most as many pages as `frozen`.
    pub fn new(entries: E, mut heads: H, frozen: F) -> Self {
        heads.fill(NONE);
        let mut map = Self {
            entries,
            heads,
            frozen,
            frozen_len: 0,
            frozen_oldest: None,
            bare: List::EMPTY,
            free: List::EMPTY,
            current: List::EMPTY,
            dirty_sectors: 0,
        };
        // At most NONE slots can be named.
        for slot in 0..map.entries.len().min(NONE as usize) as Slot {
            map.entries[slot as usize] = Entry::new();
            push_front(&mut map.entries, &mut map.bare, slot);
        }
        map
    }

    /// Number of slots, with and without memory.
    pub fn slots(&self) -> usize {
        self.entries.len()
    }

    /// Number of slots that have memory and are not used.
    pub fn free_slots(&self) -> usize {
        self.free.len
    }

    /// Takes a slot that has no memory; it comes back by [`Self::stock`] or [`Self::put_bare`].
    pub fn take_bare(&mut self) -> Option<Slot> {
        pop(&mut self.entries, &mut self.bare)
    }

    /// Gives back a slot that got no memory.
    pub fn put_bare(&mut self, slot: Slot) {
        self.entries[slot as usize].state = Use::Bare;
        push_front(&mut self.entries, &mut self.bare, slot);
    }

    /// Gives back a slot that has memory now.
    pub fn stock(&mut self, slot: Slot) {
        self.entries[slot as usize].state = Use::Free;
        push_front(&mut self.entries, &mut self.free, slot);
    }

    /// Takes an unused slot whose memory is to be given up, while more than `keep` are unused.
    pub fn take_surplus(&mut self, keep: usize) -> Option<Slot> {
        if self.free.len > keep {
            pop(&mut self.entries, &mut self.free)
        } else {
            None
        }
    }

    /// Whether the disk has everything.
    pub fn is_empty(&self) -> bool {
        self.current.len == 0 && self.frozen_len == 0
    }

    /// Bytes that are newer than on the disk.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_sectors * SECTOR
    }

    /// Pages that wait for a round (those of a running round are not counted).
    pub fn waiting_pages(&self) -> usize {
        self.current.len
    }

    /// Whether [`Self::place`] can be called for every page of `pos..pos + len` in batch number `batch`.
    pub fn check(&self, pos: u64, len: u64, batch: u32) -> Result<(), NoPlace> {
        let mut wanted = 0;
        for piece in split_pages(pos, len) {
            match self.find(piece.page, Use::Current) {
                Some(slot) => {
                    let entry = &self.entries[slot as usize];
                    if entry.batch == batch && entry.batch_mask & piece.mask != 0 {
                        return Err(NoPlace::SameBatch);
                    }
                }
                None => wanted += 1,
            }
        }
        if wanted > self.free.len {
            return Err(NoPlace::Full);
        }
        Ok(())
    }

    /// Makes the sectors `mask` of `page` dirty by the record `start..end` of batch number `batch`, and tells the slot
    /// that takes their content; `before` is the stamp of the record before it. None if no slot is free.
    pub fn place(
        &mut self,
        page: u64,
        mask: u8,
        (start, end): (u64, u64),
        before: LogTime,
        batch: u32,
    ) -> Option<Slot> {
        if let Some(slot) = self.find(page, Use::Current) {
            let entry = &mut self.entries[slot as usize];
            self.dirty_sectors += u64::from((mask & !entry.mask).count_ones());
            let same = entry.batch == batch;
            entry.batch_mask = if same { entry.batch_mask | mask } else { mask };
            entry.batch = batch;
            entry.mask |= mask;
            entry.end = end;
            return Some(slot);
        }
        let slot = pop(&mut self.entries, &mut self.free)?;
        let head = self.hash(page);
        self.entries[slot as usize] = Entry {
            page,
            first: start,
            end,
            before,
            chain: self.heads[head],
            next: NONE,
            batch,
            batch_mask: mask,
            mask,
            state: Use::Current,
        };
        self.heads[head] = slot;
        push_back(&mut self.entries, &mut self.current, slot);
        self.dirty_sectors += u64::from(mask.count_ones());
        Some(slot)
    }

    /// Where the first bytes of `pos..pos + len` are (both multiples of [`SECTOR`], `len` not 0), and how many stand
    /// there.
    pub fn first_run(&self, pos: u64, len: u64) -> (Source, u64) {
        if self.is_empty() {
            return (Source::Disk, len);
        }
        let source = self.source(pos);
        let mut run = SECTOR.min(len);
        while run < len {
            let at = pos + run;
            let follows = match source {
                Source::Memory { slot, at: begin } => {
                    let next = u64::from(begin) + run;
                    // Below PAGE.
                    next < PAGE
                        && self.source(at)
                            == Source::Memory {
                                slot,
                                at: next as u32,
                            }
                }
                Source::Disk if at % PAGE == 0 && !self.is_dirty(at / PAGE) => {
                    run = len.min(run + PAGE);
                    continue;
                }
                Source::Disk => self.source(at) == Source::Disk,
            };
            if !follows {
                break;
            }
            run = len.min(run + SECTOR);
        }
        (source, run)
    }

    /// Begins a round: freezes the pages that have been dirty for longest and returns the end of the newest record in
    /// them, which must be durable before they are written. None if nothing is dirty or a round is under way.
    pub fn freeze(&mut self) -> Option<u64> {
        if self.frozen_len > 0 {
            return None;
        }
        let mut newest = None;
        while self.frozen_len < self.frozen.len() {
            let Some(slot) = pop(&mut self.entries, &mut self.current) else {
                break;
            };
            let entry = &mut self.entries[slot as usize];
            entry.state = Use::Frozen;
            if self.frozen_len == 0 {
                self.frozen_oldest = Some((entry.first, entry.before));
            }
            newest = newest.max(Some(entry.end));
            self.frozen[self.frozen_len] = Frozen {
                page: entry.page,
                slot,
                mask: entry.mask,
            };
            self.frozen_len += 1;
        }
        sort(&mut self.frozen[..self.frozen_len]);
        newest
    }

    /// The pages of the running round in disk order.
    pub fn frozen(&self) -> &[Frozen] {
        &self.frozen[..self.frozen_len]
    }

    /// Ends the round: its pages are on stable storage.
    pub fn thaw(&mut self) {
        for index in 0..self.frozen_len {
            let done = self.frozen[index];
            self.unchain(done.page, done.slot);
            self.dirty_sectors -= u64::from(done.mask.count_ones());
            self.stock(done.slot);
        }
        self.frozen_len = 0;
        self.frozen_oldest = None;
    }

    /// Beginning of the oldest record that is not (wholly) on the disk, and the stamp of the record before it.
    pub fn oldest(&self) -> Option<(u64, LogTime)> {
        self.frozen_oldest.or_else(|| {
            let entry = self.entries.get(self.current.head as usize)?;
            Some((entry.first, entry.before))
        })
    }

    fn hash(&self, page: u64) -> usize {
        // The upper half of the product is well mixed; the mask leaves what indexes `heads`.
        (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (self.heads.len() - 1)
    }

    fn find(&self, page: u64, state: Use) -> Option<Slot> {
        let mut slot = self.heads[self.hash(page)];
        while slot != NONE {
            let entry = &self.entries[slot as usize];
            if entry.page == page && entry.state == state {
                return Some(slot);
            }
            slot = entry.chain;
        }
        None
    }

    fn is_dirty(&self, page: u64) -> bool {
        self.find(page, Use::Current)
            .or_else(|| self.find(page, Use::Frozen))
            .is_some()
    }

    fn source(&self, pos: u64) -> Source {
        let (page, at) = (pos / PAGE, pos % PAGE);
        for state in [Use::Current, Use::Frozen] {
            if let Some(slot) = self.find(page, state) {
                if self.entries[slot as usize].mask & (1 << (at / SECTOR)) != 0 {
                    // Below PAGE.
                    return Source::Memory {
                        slot,
                        at: at as u32,
                    };
                }
            }
        }
        Source::Disk
    }

    fn unchain(&mut self, page: u64, slot: Slot) {
        let head = self.hash(page);
        let after = self.entries[slot as usize].chain;
        if self.heads[head] == slot {
            self.heads[head] = after;
            return;
        }
        let mut at = self.heads[head];
        while at != NONE {
            let entry = &mut self.entries[at as usize];
            if entry.chain == slot {
                entry.chain = after;
                return;
            }
            at = entry.chain;
        }
    }
}

/// Sorts by page: a heap sort, as the kernel's tools complain about what the one of `core` does if the order is not total.
fn sort(all: &mut [Frozen]) {
    for root in (0..all.len() / 2).rev() {
        sift(all, root);
    }
    for end in (1..all.len()).rev() {
        all.swap(0, end);
        sift(&mut all[..end], 0);
    }
}

/// Moves the element at `root` down until it is not below one of its children.
fn sift(heap: &mut [Frozen], mut root: usize) {
    loop {
        let mut child = 2 * root + 1;
        if child + 1 < heap.len() && heap[child].page < heap[child + 1].page {
            child += 1;
        }
        if child >= heap.len() || heap[root].page >= heap[child].page {
            return;
        }
        heap.swap(root, child);
        root = child;
    }
}

fn push_front(entries: &mut [Entry], list: &mut List, slot: Slot) {
    entries[slot as usize].next = list.head;
    list.head = slot;
    if list.tail == NONE {
        list.tail = slot;
    }
    list.len += 1;
}

fn push_back(entries: &mut [Entry], list: &mut List, slot: Slot) {
    entries[slot as usize].next = NONE;
    match entries.get_mut(list.tail as usize) {
        Some(last) => last.next = slot,
        None => list.head = slot,
    }
    list.tail = slot;
    list.len += 1;
}

fn pop(entries: &mut [Entry], list: &mut List) -> Option<Slot> {
    let slot = list.head;
    list.head = entries.get(slot as usize)?.next;
    if list.head == NONE {
        list.tail = NONE;
    }
    list.len -= 1;
    Some(slot)
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
