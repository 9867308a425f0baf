//! Write-back in rounds: freeze pages, wait until their records are durable, write them in disk order, flush the
//! disk, forget them. One round at a time, so no two writes of one block are ever in flight.
//!
//! Write-back keeps out of the way of a stream of writes: while one runs it waits until the memory is nearly full or
//! something is dirty for long, which also lets more blocks be overwritten in memory and written once.

use std::time::{Duration, Instant};

use super::{Engine, Mode, Op};
use crate::map::{Frozen, PAGE, SECTOR};

/// A round begins when something is dirty for this long ...
const AGE: Duration = Duration::from_millis(150);
/// ... or, while a stream of writes runs, for this long ...
const AGE_BUSY: Duration = Duration::from_secs(4);
/// ... or this many pages wait, which are most of the memory while a stream runs.
const PAGES_START: usize = 4096;
/// A stream: so many bytes are logged ...
const BUSY_BYTES: u64 = 1 << 20;
/// ... within this time.
const BUSY_WINDOW: Duration = Duration::from_millis(100);
/// Most pages of one round.
const PAGES_MAX: usize = 4096;
/// Longest single write in bytes.
const RUN_MAX: u64 = 512 * 1024;
/// Writes in flight while there is plenty of memory, and when there is not.
const DEPTH_LAZY: u32 = 8;
const DEPTH_FULL: u32 = 32;
const RETRIES: u32 = 3;
/// Slots whose memory is kept when nothing was logged ...
const SLOTS_KEPT: usize = 16384;
/// ... for this long.
const RELEASE_IDLE: Duration = Duration::from_secs(300);

/// One contiguous write.
#[derive(Debug)]
struct DiskRun {
    offset: u64,
    len: u64,
    pieces: std::ops::Range<usize>,
    tries: u32,
}

/// Whether a stream of writes runs, judged by what was logged in the last windows of time.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    staged: u64,
    busy: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            staged: 0,
            busy: false,
        }
    }

    pub(super) fn busy(&self) -> bool {
        self.busy
    }

    /// Takes note of the end of the stream.
    fn observe(&mut self, now: Instant, staged: u64) {
        let bytes = staged.saturating_sub(self.staged);
        self.busy |= bytes >= BUSY_BYTES;
        if now.duration_since(self.since) >= BUSY_WINDOW {
            self.busy = bytes >= BUSY_BYTES;
            self.since = now;
            self.staged = staged;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// The records of the frozen pages are not durable yet.
    WaitDurable,
    Writing,
    Flushing,
}

/// A round under way.
#[derive(Debug)]
pub(super) struct Round {
    phase: Phase,
    /// End of the newest record in the frozen pages.
    newest: u64,
    runs: Vec<DiskRun>,
    iovecs: Vec<libc::iovec>,
    next: usize,
    in_flight: u32,
}

impl Round {
    /// Whether it waits for durability behind `durable`.
    pub(super) fn waits_beyond(&self, durable: u64) -> bool {
        self.phase == Phase::WaitDurable && self.newest > durable
    }

    /// Adds a piece of memory that belongs to `offset` on the disk; neighbours are joined.
    fn add(&mut self, offset: u64, len: u64, at: *mut u8) {
        let size = usize::try_from(len).unwrap_or(0);
        if let (Some(run), Some(last)) = (self.runs.last_mut(), self.iovecs.last_mut())
            && run.offset + run.len == offset
            && run.len + len <= RUN_MAX
        {
            run.len += len;
            if last.iov_base.wrapping_byte_add(last.iov_len) == at.cast() {
                last.iov_len += size;
                return;
            }
            run.pieces.end += 1;
        } else {
            let at = self.iovecs.len();
            self.runs.push(DiskRun {
                offset,
                len,
                pieces: at..at + 1,
                tries: 0,
            });
        }
        self.iovecs.push(libc::iovec {
            iov_base: at.cast(),
            iov_len: size,
        });
    }
}

impl Engine {
    /// When the next round is due by age.
    pub(super) fn writeback_due(&self) -> Option<Instant> {
        if self.round.is_some() || self.map.waiting_pages() == 0 || self.stuck() {
            return None;
        }
        let since = self.dirty_since?;
        if !self.pace.busy {
            return Some(since + AGE);
        }
        // When the stream has ended by then, the shorter age counts.
        Some((since + AGE_BUSY).min(self.pace.since + BUSY_WINDOW))
    }

    fn old_enough(&self) -> bool {
        let age = if self.pace.busy { AGE_BUSY } else { AGE };
        self.dirty_since
            .is_some_and(|since| self.now.duration_since(since) >= age)
    }

    fn slot_count(&self) -> usize {
        self.slots.len() / 4096
    }

    fn stuck(&self) -> bool {
        matches!(self.mode, Mode::Failed)
    }

    /// Begins and continues rounds.
    pub(super) fn pump_writeback(&mut self) {
        if self.stuck() {
            return;
        }
        self.pace.observe(self.now, self.log.staged);
        // Somebody waits for the end of a closed log: perhaps it is to make room.
        self.pace.busy &= self
            .log
            .logs
            .iter()
            .all(|log| log.span.end.is_none() || log.span.complete);
        if self.round.is_none() && self.round_wanted() {
            self.begin_round();
        }
        let Some(round) = &mut self.round else { return };
        if round.phase == Phase::WaitDurable
            && (self.log.broken || self.log.marks.durable >= round.newest)
        {
            self.plan_round();
        }
        self.submit_runs();
    }

    fn round_wanted(&self) -> bool {
        let waiting = self.map.waiting_pages();
        let many = if self.pace.busy {
            self.slot_count() / 8 * 7
        } else {
            PAGES_START
        };
        waiting > 0
            && (waiting >= many
                || self.starved
                || self.drain.is_some()
                || matches!(self.mode, Mode::Loading(_))
                || self.old_enough())
    }

    fn begin_round(&mut self) {
        let Some(newest) = self.map.freeze(PAGES_MAX) else {
            return;
        };
        self.starved = false;
        self.dirty_since = (self.map.waiting_pages() > 0).then_some(self.now);
        self.round = Some(Round {
            phase: Phase::WaitDurable,
            newest,
            runs: Vec::new(),
            iovecs: Vec::new(),
            next: 0,
            in_flight: 0,
        });
    }

    /// Joins neighbouring pieces to runs.
    fn plan_round(&mut self) {
        let Some(round) = &mut self.round else { return };
        round.phase = Phase::Writing;
        for frozen in self.map.frozen() {
            for (offset, len, in_slot) in pieces(frozen) {
                let at = self.slots.at(frozen.slot as usize * 4096 + in_slot);
                round.add(offset, len, at);
            }
        }
    }

    fn submit_runs(&mut self) {
        let plenty = self.map.free_slots() > self.slot_count() / 4;
        let urgent = self.drain.is_some() || self.starved || !plenty;
        let depth = if urgent { DEPTH_FULL } else { DEPTH_LAZY };
        let Some(round) = &mut self.round else { return };
        if round.phase != Phase::Writing {
            return;
        }
        while round.in_flight < depth && round.next < round.runs.len() {
            let run = &round.runs[round.next];
            let op = Op::DiskWrite(u32::try_from(round.next).unwrap_or(u32::MAX));
            let iovecs = &round.iovecs[run.pieces.clone()];
            self.ring.writev(op, &self.disk.file, iovecs, run.offset);
            round.next += 1;
            round.in_flight += 1;
        }
        if round.in_flight == 0 && round.next == round.runs.len() {
            round.phase = Phase::Flushing;
            self.ring.datasync(Op::DiskSync, &self.disk.file);
        }
    }

    pub(super) fn run_written(&mut self, number: u32, result: i32) {
        let Some(round) = &mut self.round else { return };
        let Some(run) = round.runs.get_mut(number as usize) else {
            return;
        };
        if u64::try_from(result) == Ok(run.len) {
            round.in_flight -= 1;
            self.counters.written_back_bytes += run.len;
            return;
        }
        let transient = result >= 0 || matches!(-result, libc::EAGAIN | libc::EINTR);
        run.tries += 1;
        if transient && run.tries <= RETRIES {
            let iovecs = &round.iovecs[run.pieces.clone()];
            let op = Op::DiskWrite(number);
            return self.ring.writev(op, &self.disk.file, iovecs, run.offset);
        }
        round.in_flight -= 1;
        let errno = if result >= 0 { libc::ENOSPC } else { -result };
        self.disk_failed("write to", errno);
    }

    pub(super) fn round_flushed(&mut self, result: i32) {
        if result < 0 {
            return self.disk_failed("flush", -result);
        }
        self.round = None;
        self.map.thaw();
        self.update_written_back();
    }

    /// When memory that a burst of writes has taken is due to be given back.
    pub(super) fn release_due(&self) -> Option<Instant> {
        let last = self.log.last_append()?;
        let idle = self.map.is_empty() && self.pending.is_none();
        (idle && self.map.used_slots() > SLOTS_KEPT).then_some(last + RELEASE_IDLE)
    }

    pub(super) fn pump_release(&mut self) {
        if self.release_due().is_some_and(|at| self.now >= at) {
            self.map.rewind();
            self.slots.release(SLOTS_KEPT * 4096);
        }
    }

    /// Moves the written-back position to the oldest record that is not on the disk.
    pub(super) fn update_written_back(&mut self) {
        let (at, stamp) = self
            .map
            .oldest()
            .unwrap_or((self.log.staged, self.log.last_stamp));
        self.log.marks.written_back = at;
        self.log.marks.written_back_stamp = stamp;
    }
}

/// The contiguous pieces of a page that are to be written: offset on the disk, length, offset in the slot.
fn pieces(frozen: &Frozen) -> impl Iterator<Item = (u64, u64, usize)> {
    let (mask, page) = (frozen.mask, frozen.page * PAGE);
    let mut sector = 0u8;
    std::iter::from_fn(move || {
        while sector < 8 && mask & (1 << sector) == 0 {
            sector += 1;
        }
        let first = sector;
        while sector < 8 && mask & (1 << sector) != 0 {
            sector += 1;
        }
        let len = u64::from(sector - first) * SECTOR;
        let at = u64::from(first) * SECTOR;
        (len > 0).then_some((page + at, len, usize::from(first) * 512))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_falls_into_its_runs() {
        let frozen = Frozen {
            page: 2,
            slot: 0,
            mask: 0b1110_0101,
        };
        let all: Vec<_> = pieces(&frozen).collect();
        assert_eq!(
            all,
            [
                (8192, 512, 0),
                (8192 + 1024, 512, 1024),
                (8192 + 2560, 1536, 2560)
            ]
        );
    }
}
