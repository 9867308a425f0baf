// SPDX-License-Identifier: GPL-2.0

//! The way of a write: into memory, into the batch, into the log, then the answer.

use core::sync::atomic::Ordering;

use kernel::bindings;
use kernel::prelude::*;
use kernel::time::msecs_to_jiffies;

use super::{Logger, Stop, DIRTY_URGENT};
use crate::abi::operation;
use crate::batch::{Part, Segment};
use crate::bio::{List, Owned};
use crate::log_file::LogFile;
use crate::log_format::{chunk_len, LogTime, OVERHEAD};
use crate::map::NoPlace;
use crate::pages::split_pages;
use crate::resource::{now, Mode};

/// Slots that get memory at once.
const STOCK_STEP: usize = 64;
extern "C" {
    fn mars_crc32c(crc: u32, from: *const u8, len: u32) -> u32;
}

impl Logger<'_> {
    pub(super) fn log(&mut self, mut list: List) {
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
    pub(super) fn stage(&mut self, request: &Owned) -> Result<u64, Stop> {
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
    pub(super) fn make_room(&mut self, pos: u64, len: u64) -> Result<(), Stop> {
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

    pub(super) fn wait_for_slots(&self) {
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

    pub(super) fn stage_record(
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
    pub(super) fn write_batch(&mut self) -> Result<(), Stop> {
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

    pub(super) fn append(&mut self, log: &LogFile, len: usize, at: u64) -> Result {
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
    pub(super) fn logged(&mut self, len: u64) {
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
    pub(super) fn give_up(&mut self, current: Option<Owned>, mut rest: List) {
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

    pub(super) fn pass(&mut self, mut list: List) {
        while let Some(request) = list.pop_front() {
            self.resource.send_write(request);
        }
    }

    /// A stamp later than all before.
    pub(super) fn tick(&self) -> LogTime {
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
}
