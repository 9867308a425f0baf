// SPDX-License-Identifier: GPL-2.0

//! The thread that takes writes: into memory, into the log, then the answer. It alone writes to the log, and it carries
//! out what needs the log to stand still: the switch to the next one, zeros ahead, trimming, the end of draining.

use core::sync::atomic::Ordering;
use kernel::ffi::c_ulong;

use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::msecs_to_jiffies;

use crate::abi::{self, operation};
use crate::batch::{Batch, Part, Segment, SEGMENTS_PER_RECORD};
use crate::bio::{List, Owned};
use crate::log_file::{LogFile, MarkFile};
use crate::log_format::{chunk_len, LogTime, OVERHEAD};
use crate::map::{split_pages, NoPlace};
use crate::resource::{note, now, Goal, Mode, Next, Resource, State};
use crate::slots::SLOT_SIZE;

/// Most records of one write to the log.
const RECORDS_MAX: usize = 256;
/// Zeros written ahead at once in bytes: writers wait meanwhile.
const AHEAD_STEP: usize = 128 * 1024;
/// Zeros are written ahead when less than this is left ...
const AHEAD_LOW: u64 = 256 * 1024;
/// ... until this stands ready ...
const AHEAD_HIGH: u64 = 2 << 20;
/// ... and somebody has waited for so many flushes meanwhile: only these gain by it.
const AHEAD_FLUSHES: u32 = 4;
/// Not again for this long after it failed, in milliseconds.
const AHEAD_RETRY_MS: u32 = 5000;
/// The log is trimmed when nothing was logged for this long, in milliseconds.
const TRIM_IDLE_MS: u32 = 1000;
/// Slots that get memory at once.
const STOCK_STEP: usize = 64;
/// Bytes dirty from which on the write-back is woken at once.
pub(crate) const DIRTY_URGENT: u64 = 16 << 20;

extern "C" {
    fn mars_crc32c(crc: u32, from: *const u8, len: u32) -> u32;
}

/// Buffers of the logger, allocated with the resource.
pub(crate) struct Buffers {
    batch: Batch<KVVec<u8>, KVVec<Segment>>,
    pieces: KVVec<bindings::kvec>,
    zeros: KVVec<u8>,
}

// SAFETY: The pieces point into the buffers and slots of the resource; they are not bound to a thread.
unsafe impl Send for Buffers {}

impl Buffers {
    pub(crate) fn new() -> Result<Self> {
        let segments = RECORDS_MAX * SEGMENTS_PER_RECORD;
        Ok(Self {
            batch: Batch::new(
                KVVec::from_elem(0, RECORDS_MAX * OVERHEAD, GFP_KERNEL)?,
                KVVec::from_elem(Segment::default(), segments, GFP_KERNEL)?,
            ),
            pieces: KVVec::from_elem(bindings::kvec::default(), segments, GFP_KERNEL)?,
            zeros: KVVec::from_elem(0, SLOT_SIZE, GFP_KERNEL)?,
        })
    }
}

enum Work {
    /// Write them to the log.
    Log(List),
    /// Send them to the disk.
    Pass(List),
    /// Answer them with EIO.
    Refuse(List),
    Switch(Next),
    Extend,
    Trim,
    /// Memory is empty: draining ends.
    Finish,
    /// The disk failed and the device is gone.
    FinishFailed,
}

struct Logger<'a> {
    resource: &'a Resource,
    buffers: Buffers,
    /// Requests whose records are in memory and not in the log; ordered by end.
    acks: List,
    batch_number: u32,
    last_append: c_ulong,
    extending: bool,
    extend_after: Option<c_ulong>,
}

/// Body of the thread.
pub(crate) fn run(resource: &Resource) {
    let Some(buffers) = resource.buffers.lock().take() else {
        return;
    };
    let mut logger = Logger {
        resource,
        buffers,
        acks: List::new(),
        batch_number: 1,
        last_append: now(),
        extending: false,
        extend_after: None,
    };
    while let Some(work) = logger.next() {
        match work {
            Work::Log(list) => logger.log(list),
            Work::Pass(list) => logger.pass(list),
            Work::Refuse(list) => resource.finish_all(list, Err(EIO)),
            Work::Switch(next) => logger.switch(next),
            Work::Extend => logger.extend(),
            Work::Trim => logger.trim(),
            Work::Finish => logger.finish(),
            Work::FinishFailed => logger.finish_failed(),
        }
    }
}

impl Logger<'_> {
    fn next(&mut self) -> Option<Work> {
        let resource = self.resource;
        let mut state = resource.state.lock();
        loop {
            if state.exit {
                return None;
            }
            if state.mode != Mode::Logging && state.next.is_some() {
                let dropped = state.next.take();
                state.switched = Some(Err(EIO));
                resource.settled.notify_all();
                drop(state);
                drop(dropped);
                state = resource.state.lock();
                continue;
            }
            if let Some(work) = self.choose(&mut state) {
                return Some(work);
            }
            let wait = self.idle_time(&state);
            let _ = resource.logger.wait_interruptible_timeout(&mut state, wait);
        }
    }

    fn choose(&mut self, state: &mut State) -> Option<Work> {
        let waiting = !state.queue.is_empty();
        match state.mode {
            Mode::Logging => {
                if let Some(next) = state.next.take() {
                    return Some(Work::Switch(next));
                }
                if waiting {
                    return Some(Work::Log(state.queue.take()));
                }
                if self.wants_zeros(state) {
                    return Some(Work::Extend);
                }
                let idle = self.trim_due(state)?;
                (idle == 0).then_some(Work::Trim)
            }
            Mode::Draining(_) => self.is_drained(state).then_some(Work::Finish),
            Mode::PassThrough if waiting => {
                // Counted before anybody can see the queue empty.
                let mut list = List::new();
                while let Some(request) = state.queue.pop_front() {
                    self.resource.disk_writes.fetch_add(1, Ordering::AcqRel);
                    list.push_back(request);
                }
                Some(Work::Pass(list))
            }
            Mode::Failed => {
                let mut list = state.queue.take();
                list.append(&mut state.unlogged);
                if state.broken {
                    list.append(&mut state.flushes);
                }
                if !list.is_empty() {
                    return Some(Work::Refuse(list));
                }
                state.stopping.then_some(Work::FinishFailed)
            }
            _ => None,
        }
    }

    fn idle_time(&self, state: &State) -> c_ulong {
        if matches!(state.mode, Mode::Draining(_)) {
            // Nobody tells when the last write has come back from the disk.
            return msecs_to_jiffies(20);
        }
        let trim = (state.mode == Mode::Logging)
            .then(|| self.trim_due(state))
            .flatten();
        trim.unwrap_or_else(|| msecs_to_jiffies(10_000))
    }

    fn is_drained(&self, state: &State) -> bool {
        let stream = &state.stream;
        let log_quiet = !state.syncing
            && (state.broken || (state.flushes.is_empty() && stream.durable >= stream.logged));
        log_quiet
            && self.resource.dirty.load(Ordering::Acquire) == 0
            && self.resource.disk_writes.load(Ordering::Acquire) == 0
    }

    // Writing.

    fn log(&mut self, mut list: List) {
        while let Some(request) = list.pop_front() {
            match self.stage(&request) {
                Ok(end) => {
                    let mut request = request;
                    request.end = end;
                    self.acks.push_back(request);
                }
                Err(Stop::DiskFailed) => self.resource.finish(request, Err(EIO)),
                Err(Stop::LogFailed) => return self.give_up(Some(request), list),
            }
        }
        if self.write_batch().is_err() {
            self.give_up(None, list);
        }
    }

    /// Puts the records of a request into memory and into the batch; returns the stream position of its end.
    fn stage(&mut self, request: &Owned) -> Result<u64, Stop> {
        let bio = request.bio;
        // The bio stays as it came: if the log fails, the disk gets it whole.
        let mut iter = bio.iter();
        let (mut pos, mut left) = (bio.pos(), bio.len());
        let stamp = self.tick();
        while left > 0 {
            let len = chunk_len(pos, left);
            self.make_room(pos, len)?;
            self.stage_record(request, &mut iter, pos, len, stamp);
            pos += len;
            left -= len;
        }
        Ok(self.resource.map.lock().staged)
    }

    /// Returns when the batch and the map take a record.
    fn make_room(&mut self, pos: u64, len: u64) -> Result<(), Stop> {
        loop {
            if self.resource.failed.load(Ordering::Acquire) {
                return Err(Stop::DiskFailed);
            }
            let fits = if self.buffers.batch.has_room() {
                let map = self.resource.map.lock();
                map.map.check(pos, len, self.batch_number)
            } else {
                Err(NoPlace::SameBatch)
            };
            match fits {
                Ok(()) => return Ok(()),
                Err(NoPlace::SameBatch) => self.write_batch()?,
                Err(NoPlace::Full) => {
                    if self.resource.stock(STOCK_STEP) == 0 {
                        // What is in the batch must get into the log before the write-back can go on.
                        self.write_batch()?;
                        self.wait_for_slots();
                    }
                }
            }
        }
    }

    fn wait_for_slots(&self) {
        let mut state = self.resource.state.lock();
        if state.mode == Mode::Failed || self.resource.free_slots.load(Ordering::Acquire) > 1 {
            return;
        }
        state.starved = true;
        self.resource.writeback.notify_one();
        let _ = self
            .resource
            .logger
            .wait_interruptible_timeout(&mut state, msecs_to_jiffies(100));
    }

    fn stage_record(
        &mut self,
        request: &Owned,
        iter: &mut bindings::bvec_iter,
        pos: u64,
        len: u64,
        stamp: LogTime,
    ) {
        let resource = self.resource;
        let mut parts = [Part::default(); 2];
        let mut count = 0;
        {
            let mut map = resource.map.lock();
            let (start, before) = (map.staged, map.stamp);
            let end = start + len + OVERHEAD as u64;
            for piece in split_pages(pos, len) {
                let placed = map.map.place(
                    piece.page,
                    piece.mask,
                    (start, end),
                    before,
                    self.batch_number,
                );
                let (Some(slot), Some(part)) = (placed, parts.get_mut(count)) else {
                    // `make_room` has seen to that; only this thread takes slots.
                    continue;
                };
                // SAFETY: `iter` is that of the request and has `len` bytes left; the piece lies in the page of the slot,
                // which is ours alone while the map is locked.
                unsafe {
                    let to = resource.slots.at(slot, piece.at);
                    request.bio.copy_out(iter, to, piece.len);
                }
                *part = Part {
                    slot,
                    at: piece.at,
                    len: piece.len,
                };
                count += 1;
            }
            map.staged = end;
            map.stamp = stamp;
            resource.count_slots(&map);
        }
        // Nobody writes to the slots before this batch is in the log.
        let parts = &parts[..count];
        let crc = parts.iter().fold(!0, |crc, part| {
            // SAFETY: The part lies in the page of its slot, which is used until it is logged and written back.
            unsafe { mars_crc32c(crc, resource.slots.at(part.slot, part.at), part.len) }
        });
        self.buffers.batch.push(pos, parts, !crc, stamp);
    }

    /// Writes the batch to the log, and answers what is in the log now.
    fn write_batch(&mut self) -> Result<(), Stop> {
        let resource = self.resource;
        let (log, at) = {
            let state = resource.state.lock();
            (state.log.clone(), state.stream.local(state.stream.logged))
        };
        let len = self.buffers.batch.bytes();
        if len > 0 {
            let log = log.ok_or(Stop::LogFailed)?;
            if let Err(e) = self.append(&log, len as usize, at) {
                resource.log_failed(operation::LOG_WRITE, e, at);
                return Err(Stop::LogFailed);
            }
            self.buffers.batch.clear();
            self.batch_number = self.batch_number.wrapping_add(1);
            self.last_append = now();
        }
        self.logged(len);
        Ok(())
    }

    fn append(&mut self, log: &LogFile, len: usize, at: u64) -> Result {
        let buffers = &mut self.buffers;
        let segments = buffers.batch.segments();
        for (segment, piece) in segments.iter().zip(buffers.pieces.iter_mut()) {
            let (base, len) = match *segment {
                Segment::Meta { at, len } => {
                    let meta = &buffers.batch.meta()[at as usize..];
                    (meta.as_ptr().cast_mut(), len)
                }
                Segment::Memory { slot, at, len } => (self.resource.slots.at(slot, at), len),
            };
            *piece = bindings::kvec {
                iov_base: base.cast(),
                iov_len: len as usize,
            };
        }
        log.append(&buffers.pieces[..segments.len()], len, at)
    }

    /// `len` more bytes are in the log: all that is staged.
    fn logged(&mut self, len: u64) {
        let resource = self.resource;
        let mut done = List::new();
        let stamp = resource.map.lock().stamp;
        {
            let mut state = resource.state.lock();
            if len > 0 {
                let to = state.stream.logged + len;
                state.stream.set_logged(to, stamp);
                state.undurable_since.get_or_insert(now());
            }
            let (logged, durable) = (state.stream.logged, state.stream.durable);
            let mut flushes = false;
            while self.acks.front().is_some_and(|r| r.end <= logged) {
                let Some(request) = self.acks.pop_front() else {
                    break;
                };
                state.logged_bytes += u64::from(request.sectors) << bindings::SECTOR_SHIFT;
                if request.bio.needs_flush() && request.end > durable {
                    state.flushes.push_back(request);
                    flushes = true;
                } else {
                    done.push_back(request);
                }
            }
            if flushes || state.sync_to > durable {
                resource.syncer.notify_one();
            }
            if state.writeback_idle || resource.dirty.load(Ordering::Acquire) >= DIRTY_URGENT {
                resource.writeback.notify_one();
            }
            resource.touch(&mut state);
        }
        resource.finish_all(done, Ok(()));
    }

    /// The log takes no more: what is in memory waits for the disk, the rest for pass-through.
    fn give_up(&mut self, current: Option<Owned>, mut rest: List) {
        self.buffers.batch.clear();
        self.batch_number = self.batch_number.wrapping_add(1);
        let mut again = List::new();
        if let Some(request) = current {
            again.push_back(request);
        }
        again.append(&mut rest);
        let mut state = self.resource.state.lock();
        state.unlogged.append(&mut self.acks);
        again.append(&mut state.queue);
        state.queue = again;
    }

    fn pass(&mut self, mut list: List) {
        while let Some(request) = list.pop_front() {
            self.resource.send_write(request);
        }
    }

    /// A stamp later than all before.
    fn tick(&self) -> LogTime {
        let mut time = bindings::timespec64::default();
        // SAFETY: Fills in the structure.
        unsafe { bindings::ktime_get_real_ts64(&mut time) };
        let wall = LogTime {
            secs: time.tv_sec,
            // Below 10^9.
            nanos: time.tv_nsec as u32,
        };
        let last = self.resource.map.lock().stamp;
        if (wall.secs, wall.nanos) > (last.secs, last.nanos) {
            wall
        } else if last.nanos < 999_999_999 {
            LogTime {
                secs: last.secs,
                nanos: last.nanos + 1,
            }
        } else {
            LogTime {
                secs: last.secs + 1,
                nanos: 0,
            }
        }
    }

    // The log as a file.

    fn switch(&mut self, next: Next) {
        let resource = self.resource;
        let (log, end) = {
            let state = resource.state.lock();
            (state.log.clone(), state.stream.local(state.stream.logged))
        };
        // The new log gets no record before the old one is whole and on stable storage.
        let closed = match &log {
            Some(log) => log.trim(end).and_then(|()| log.flush()),
            None => Err(EIO),
        };
        if let Err(e) = closed {
            resource.log_failed(operation::LOG_FLUSH, e, end);
            resource.state.lock().switched = Some(Err(e));
            return resource.settled.notify_all();
        }
        let flushes;
        let old;
        {
            let mut state = resource.state.lock();
            let logged = state.stream.logged;
            state.stream.set_durable(logged);
            state.undurable_since = None;
            state.stream.switch(next.seq);
            state.names = [state.names[1], next.name];
            old = (state.log.replace(next.file), state.mark.take());
            state.mark = next.mark;
            state.switched = Some(Ok(()));
            state.recent_flushes = 0;
            flushes = state.flushes.take();
        }
        self.extending = false;
        drop(old);
        resource.settled.notify_all();
        resource.writeback.notify_one();
        resource.publish();
        resource.finish_all(flushes, Ok(()));
    }

    fn wants_zeros(&mut self, state: &mut State) -> bool {
        let (Some(log), Some(_)) = (&state.log, state.stream.newest()) else {
            return false;
        };
        let later = self
            .extend_after
            .is_some_and(|at| (at.wrapping_sub(now()) as isize) > 0);
        if later || state.broken {
            return false;
        }
        let ready = log
            .ahead()
            .saturating_sub(state.stream.local(state.stream.logged));
        if self.extending && ready >= AHEAD_HIGH {
            self.extending = false;
        } else if !self.extending && ready < AHEAD_LOW && state.recent_flushes >= AHEAD_FLUSHES {
            self.extending = true;
            state.recent_flushes = 0;
        }
        self.extending
    }

    /// Writes zeros behind the records: a flush commits no metadata then.
    fn extend(&mut self) {
        let Some(log) = self.resource.state.lock().log.clone() else {
            return;
        };
        let buffers = &mut self.buffers;
        let pieces = &mut buffers.pieces[..AHEAD_STEP / SLOT_SIZE];
        pieces.fill(bindings::kvec {
            iov_base: buffers.zeros.as_mut_ptr().cast(),
            iov_len: SLOT_SIZE,
        });
        if log.extend(pieces, AHEAD_STEP).is_err() {
            // No harm: the log grows with its records then, and tells by itself when it cannot.
            self.extending = false;
            self.extend_after = Some(now() + msecs_to_jiffies(AHEAD_RETRY_MS));
        }
    }

    /// In how many jiffies the log is to be trimmed.
    fn trim_due(&self, state: &State) -> Option<c_ulong> {
        let log = state.log.as_ref()?;
        if log.ahead() <= state.stream.local(state.stream.logged) {
            return None;
        }
        let idle = now().wrapping_sub(self.last_append);
        Some(msecs_to_jiffies(TRIM_IDLE_MS).saturating_sub(idle))
    }

    fn trim(&mut self) {
        let (log, end) = {
            let mut state = self.resource.state.lock();
            state.recent_flushes = 0;
            (state.log.clone(), state.stream.local(state.stream.logged))
        };
        self.extending = false;
        // Tried again after the next record; a log ends at its last valid record anyway.
        self.last_append = now();
        if let Some(log) = log {
            let _ = log.trim(end);
        }
    }

    // The end of draining.

    fn finish(&mut self) {
        let resource = self.resource;
        if let Err(e) = resource.disk.flush() {
            return resource.disk_failed(operation::DISK_FLUSH, e, 0);
        }
        let (log, mark, end, name, needs_mark) = {
            let mut state = resource.state.lock();
            let Mode::Draining(goal) = state.mode else {
                return;
            };
            let stream = &state.stream;
            let end = stream.local(if state.broken {
                stream.durable
            } else {
                stream.logged
            });
            let needs_mark = state.broken || goal == Goal::PassThrough;
            (
                state.log.take(),
                state.mark.take(),
                end,
                state.names[1],
                needs_mark,
            )
        };
        if let Some(log) = &log {
            // The records are on stable storage, and a log ends at its last valid record.
            let _ = log.trim(end).and_then(|()| log.flush());
            if needs_mark {
                self.store_mark(mark.as_ref(), &name, end);
            }
        }
        self.end_drain();
    }

    /// Before the first write that is in no log: the logs must not be applied again.
    fn store_mark(&self, mark: Option<&MarkFile>, name: &[u8], end: u64) {
        let stored = match (mark, abi::text(name)) {
            (Some(mark), Some(name)) => mark.store(name, end),
            _ => Err(ENOENT),
        };
        if let Err(e) = stored {
            // Writers cannot be held up for ever.
            let name = abi::text(&self.resource.name).unwrap_or("?");
            let errno = e.to_errno();
            pr_err!("{name}: the mark of pass-through was not stored, error {errno}; if this node dies now, its log must not be replayed\n");
            let mut state = self.resource.state.lock();
            note(&mut state.log_failure, operation::MARK, e, 0);
            state.mark_missing = true;
        }
    }

    fn end_drain(&mut self) {
        let resource = self.resource;
        let mut done;
        {
            let mut state = resource.state.lock();
            let Mode::Draining(goal) = state.mode else {
                return;
            };
            let broken = core::mem::replace(&mut state.broken, false);
            state.stream.close(broken, goal == Goal::Stop);
            state.undurable_since = None;
            done = state.unlogged.take();
            done.append(&mut state.flushes);
            state.mode = match goal {
                Goal::PassThrough => Mode::PassThrough,
                Goal::Stop => Mode::Stopped,
            };
        }
        self.extending = false;
        resource.finish_all(done, Ok(()));
        resource.settled.notify_all();
        resource.publish();
    }

    fn finish_failed(&mut self) {
        let resource = self.resource;
        let (log, logged, end) = {
            let mut state = resource.state.lock();
            let log = state.log.take().filter(|_| !state.broken);
            let logged = state.stream.logged;
            (log, logged, state.stream.local(logged))
        };
        let durable =
            log.is_some_and(|log: Arc<LogFile>| log.trim(end).and_then(|()| log.flush()).is_ok());
        {
            let mut state = resource.state.lock();
            if durable {
                state.stream.set_durable(logged);
            }
            state.mode = Mode::Stopped;
        }
        resource.settled.notify_all();
        resource.publish();
    }
}

/// Why a request was not staged.
enum Stop {
    LogFailed,
    DiskFailed,
}
