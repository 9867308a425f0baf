//! Stages writes: cuts them into records, puts these into the log buffer and their content into the map.

use mars_core::Stamp;
use mars_core::log_format::{OVERHEAD, PAYLOAD_MAX, chunk_len};

use super::{Engine, Mode};
use crate::fuse_proto::format_written;
use crate::map::{PAGE, SECTOR, split_pages};
use crate::stage::Payload;

/// Slots that a record may need: its pages.
const SLOTS_PER_RECORD: usize = PAYLOAD_MAX / 4096 + 1;
/// Zeroes staged at once, in bytes.
const ZERO_STEP: u64 = 512 * 1024;

/// A write whose payload stands in the request buffer.
#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) unique: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
    /// Bytes that are staged.
    pub(super) done: u32,
    pub(super) stamp: Stamp,
}

/// A range to be zeroed.
#[derive(Debug)]
pub(super) struct ZeroJob {
    pub(super) unique: u64,
    pub(super) offset: u64,
    pub(super) left: u64,
}

/// An answer that is due when the stream is logged up to `end`.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) end: u64,
    pub(super) unique: u64,
    /// Bytes written; None for write-zeroes.
    pub(super) len: Option<u32>,
}

impl Engine {
    /// Goes on with the write that waits for room, if there is one.
    pub(super) fn stage_pending(&mut self) {
        let Some(mut write) = self.pending.take() else {
            return;
        };
        let finished = match self.mode {
            Mode::Logging => self.stage_data(&mut write),
            Mode::PassThrough => self.pass_write(&write),
            _ => false,
        };
        if !finished {
            self.pending = Some(write);
        }
    }

    fn stage_data(&mut self, write: &mut PendingWrite) -> bool {
        while write.done < write.len {
            let pos = write.offset + u64::from(write.done);
            let len = chunk_len(pos, u64::from(write.len - write.done));
            let from = Self::payload_at(write.done);
            if !self.stage_record(pos, len, Some(from), write.stamp) {
                return false;
            }
            write.done += u32::try_from(len).unwrap_or(0);
            // The log is written while the rest is copied.
            if self.log.worth_writing() {
                self.pump_log();
            }
        }
        self.acks.push_back(Ack {
            end: self.log.staged,
            unique: write.unique,
            len: Some(write.len),
        });
        true
    }

    /// Stages one record with `len` bytes of the request buffer (or zeroes); false if there is no room now.
    fn stage_record(&mut self, pos: u64, len: u64, from: Option<usize>, stamp: Stamp) -> bool {
        if self.log.switching() {
            return false;
        }
        let size = usize::try_from(len).unwrap_or(0);
        if !self.log.has_room(size) {
            self.pump_log();
            if !self.log.has_room(size) {
                return false;
            }
        }
        if self.map.free_slots() < SLOTS_PER_RECORD {
            self.starved = true;
            return false;
        }
        let start = self.log.staged;
        let end = start + len + OVERHEAD as u64;
        let before = self.log.last_stamp;
        let payload = match from {
            Some(at) => Payload::Data(self.request.bytes(at, size)),
            None => Payload::Zero(size),
        };
        for (page, mask, range) in split_pages(pos, len) {
            let Some(slot) = self.map.place(page, mask, (start, end), before) else {
                // Room for all pages of a record was made sure above.
                return false;
            };
            let in_page = (pos + range.start) % PAGE;
            let at = usize::try_from(u64::from(slot) * PAGE + in_page).unwrap_or(0);
            let range = to_usize(range);
            payload.copy(range.clone(), self.slots.bytes_mut(at, range.len()));
        }
        self.log.append(pos, payload, stamp);
        self.counters.logged_bytes += len;
        self.dirty_since.get_or_insert(self.now);
        true
    }

    /// Whether the next piece of a range can be zeroed now.
    pub(super) fn zeroes_ready(&self) -> bool {
        !self.zeroes.is_empty() && self.pending.is_none() && self.zero_room()
    }

    /// Zeroing is never urgent: it leaves half of the memory to the writes.
    fn zero_room(&self) -> bool {
        match self.mode {
            Mode::Logging => {
                let step = usize::try_from(ZERO_STEP / SECTOR).unwrap_or(0);
                !self.log.switching()
                    && self.log.has_room(PAYLOAD_MAX)
                    && self.map.free_slots() > self.slots.len() / 4096 / 2 + step
            }
            _ => false,
        }
    }

    /// Goes on with the ranges to be zeroed.
    pub(super) fn pump_zeroes(&mut self) {
        if matches!(self.mode, Mode::PassThrough) {
            return self.pass_zeroes();
        }
        if !self.zeroes_ready() {
            self.starved |= matches!(self.mode, Mode::Logging)
                && !self.zeroes.is_empty()
                && self.log.has_room(PAYLOAD_MAX);
            return;
        }
        let Some(mut job) = self.zeroes.pop_front() else {
            return;
        };
        let stamp = self.log.clock.tick(mars_tree::wall_clock());
        let mut step = ZERO_STEP;
        while job.left > 0 && step > 0 {
            let len = chunk_len(job.offset, job.left);
            if !self.stage_record(job.offset, len, None, stamp) {
                break;
            }
            job.offset += len;
            job.left -= len;
            step = step.saturating_sub(len);
        }
        if job.left > 0 {
            self.zeroes.push_front(job);
            return;
        }
        self.acks.push_back(Ack {
            end: self.log.staged,
            unique: job.unique,
            len: None,
        });
    }

    /// Answers the writes that are in the log.
    pub(super) fn release_acks(&mut self) {
        let logged = self.log.marks.logged;
        while self.acks.front().is_some_and(|ack| ack.end <= logged) {
            if let Some(ack) = self.acks.pop_front() {
                self.acknowledge(&ack);
            }
        }
    }

    pub(super) fn acknowledge(&self, ack: &Ack) {
        match ack.len {
            Some(len) => self.reply(ack.unique, 0, &format_written(len)),
            None => self.reply(ack.unique, 0, &[]),
        }
    }
}

fn to_usize(range: std::ops::Range<u64>) -> std::ops::Range<usize> {
    let at = |n| usize::try_from(n).unwrap_or(0);
    at(range.start)..at(range.end)
}
