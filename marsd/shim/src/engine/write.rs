//! Stages writes: cuts them into records, puts these into the log buffer and their content into the map.

use mars_core::Stamp;
use mars_core::log_format::{OVERHEAD, PAYLOAD_MAX, chunk_len};

use super::{Engine, Mode};
use crate::fuse_proto::format_written;
use crate::map::{PAGE, SECTOR, split_pages};
use crate::requests::Requests;
use crate::stage::Payload;

/// Slots that a record may need: its pages.
const SLOTS_PER_RECORD: usize = PAYLOAD_MAX / 4096 + 1;
/// Writes of so many bytes and more are acknowledged before they are copied.
const EARLY_MIN: u32 = 64 * 1024;
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
    /// It is answered already: come what may, it must reach the log or the disk.
    pub(super) acknowledged: bool,
}

/// A range to be zeroed.
#[derive(Debug)]
pub(super) struct ZeroJob {
    pub(super) unique: u64,
    pub(super) offset: u64,
    pub(super) left: u64,
}

/// An answer that is due when the stream is logged up to `end` (where the stage does not outlive this process).
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) end: u64,
    pub(super) unique: u64,
    /// Bytes written; None for write-zeroes.
    pub(super) len: Option<u32>,
}

/// Where the payload of a record comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    /// This offset in the payload of the request.
    Request(usize),
    /// These bytes.
    Bytes(&'a [u8]),
    /// Zeroes.
    Zero,
}

impl<'a> Content<'a> {
    /// Its `len` bytes.
    pub(super) fn payload(self, len: usize, requests: &'a Requests) -> Payload<'a> {
        match self {
            Self::Request(at) if requests.keeps() => Payload::Large(requests.payload(at, len)),
            Self::Request(at) => Payload::Data(requests.payload(at, len)),
            Self::Bytes(bytes) => Payload::Data(bytes),
            Self::Zero => Payload::Zero(len),
        }
    }
}

impl Engine {
    /// Answers a large write as soon as a successor of this process would find it: it is copied after that.
    pub(super) fn acknowledge_early(&mut self, write: &mut PendingWrite) {
        let possible = matches!(self.mode, Mode::Logging)
            && write.len >= EARLY_MIN
            && self.log.early()
            && !self.log.switching()
            && self.drain.is_none();
        if possible {
            let requests = &mut self.log.area.requests;
            requests.keep(write.offset, write.len, write.stamp);
            write.acknowledged = true;
            self.reply(write.unique, 0, &format_written(write.len));
        }
    }

    /// Goes on with the write that waits for room, if there is one.
    pub(super) fn stage_pending(&mut self) {
        let Some(mut write) = self.pending.take() else {
            return;
        };
        let finished = match self.mode {
            Mode::Logging => self.stage_data(&mut write),
            Mode::PassThrough => self.pass_write(&write),
            _ if write.acknowledged => self.stage_data(&mut write),
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
            let content = Content::Request(write.done as usize);
            let staged = if write.acknowledged {
                self.stage_whatever_comes(pos, len, content, write.stamp)
            } else {
                self.stage_record(pos, len, content, write.stamp)
            };
            if !staged {
                return false;
            }
            write.done += u32::try_from(len).unwrap_or(0);
            // The log is written while the rest is copied.
            if self.log.worth_writing() {
                self.pump_log();
            }
        }
        if write.acknowledged {
            self.finish_kept();
        } else {
            self.staged(write.unique, Some(write.len));
        }
        true
    }

    /// The write that was kept is in the stage, or in memory for the disk: then it is kept until the stage is given up.
    fn finish_kept(&mut self) {
        if !self.log.broken {
            self.log.mark_staged();
            self.log.area.requests.release();
        }
    }

    /// Whether a record fits, perhaps after what is staged has been handed over.
    fn has_log_room(&mut self, payload: usize) -> bool {
        if !self.log.has_room(payload) {
            self.pump_log();
        }
        self.log.has_room(payload)
    }

    /// Stages one record with `len` bytes of `content`; false if there is no room now.
    pub(super) fn stage_record(
        &mut self,
        pos: u64,
        len: u64,
        content: Content<'_>,
        stamp: Stamp,
    ) -> bool {
        if self.log.switching() || self.log.broken {
            return false;
        }
        self.stage_whatever_comes(pos, len, content, stamp)
    }

    /// The same for a write that is acknowledged: a broken log leaves it to the disk, a failed disk to the log.
    fn stage_whatever_comes(
        &mut self,
        pos: u64,
        len: u64,
        content: Content<'_>,
        stamp: Stamp,
    ) -> bool {
        let size = usize::try_from(len).unwrap_or(0);
        if !self.log.broken && !self.has_log_room(size) {
            return false;
        }
        let disk = !matches!(self.mode, Mode::Failed);
        if disk && self.map.free_slots() < SLOTS_PER_RECORD {
            self.starved = true;
            return false;
        }
        if disk && !self.put_into_map(pos, len, content) {
            return false;
        }
        if !self.log.broken {
            self.log.append(pos, content, size, stamp);
            self.counters.logged_bytes += len;
        }
        true
    }

    /// Makes the blocks of the next record dirty.
    fn put_into_map(&mut self, pos: u64, len: u64, content: Content<'_>) -> bool {
        let start = self.log.staged;
        let end = start + len + OVERHEAD as u64;
        let before = self.log.last_stamp;
        let size = usize::try_from(len).unwrap_or(0);
        let payload = content.payload(size, &self.log.area.requests);
        for (page, mask, range) in split_pages(pos, len) {
            let Some(slot) = self.map.place(page, mask, (start, end), before) else {
                // Room for all pages of a record was made sure above.
                return false;
            };
            let in_page = (pos + range.start) % PAGE;
            let at = usize::try_from(u64::from(slot) * PAGE + in_page).unwrap_or(0);
            let range = to_usize(range);
            let slot = self.slots.bytes_mut(at, range.len());
            payload.copy(range, slot);
        }
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
            if !self.stage_record(job.offset, len, Content::Zero, stamp) {
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
        self.staged(job.unique, None);
    }

    /// A request is staged as a whole.
    fn staged(&mut self, unique: u64, len: Option<u32>) {
        let end = self.log.staged;
        let ack = Ack { end, unique, len };
        if self.log.early() {
            if self.log.flush_habit.expected() {
                // The flush that follows the answer waits for this write.
                self.pump_log();
            }
            self.acknowledge(&ack);
        } else {
            self.acks.push_back(ack);
        }
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
