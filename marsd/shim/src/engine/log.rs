//! The log: group commit by arrival, zeroes ahead of its end, the switch to the next one, trimming.
//!
//! At most one write is in flight, because the next one begins with the partial block at its end. While it is in
//! flight the next batch forms in the other buffer.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mars_core::{Lamport, LogName, Stamp};
use nix::errno::Errno;

use super::sync::FlushHabit;
use super::worker::Job;
use super::write::Content;
use super::{Engine, Mode, Op, Reply};
use crate::error::ShimError;
use crate::log_file::OpenedLog;
use crate::memory::{Memory, copies_done};
use crate::stage::{LOG_ALIGN, Stage};
use crate::stage_area::{self, StageArea};
use crate::stream::{LogSpan, Marks};

/// Largest write to the log in bytes.
const BATCH_MAX: usize = stage_area::BUFFER;
/// Zeroes are written ahead in pieces of at least and at most this many bytes: each piece costs the next fdatasync a
/// commit of metadata, so a fast stream gets large ones ...
const AHEAD_STEP: std::ops::RangeInclusive<u64> = 512 * 1024..=4 << 20;
/// ... enough for this part of a second ...
const AHEAD_STEPS_PER_SEC: f64 = 4.0;
/// ... while less than this and one piece stands ready ...
const AHEAD_MIN: u64 = 1 << 20;
/// ... and batches are smaller than this: large writes need no help, and would pay for it with half the bandwidth.
const AHEAD_BATCH_MAX: usize = 128 * 1024;
/// No zeroes ahead when nothing was logged for this long.
const AHEAD_IDLE: Duration = Duration::from_millis(200);
/// No zeroes ahead for this long after they failed.
const AHEAD_RETRY: Duration = Duration::from_secs(5);
/// The active log is trimmed when nothing was logged for this long.
const TRIM_IDLE: Duration = Duration::from_secs(1);
/// From this many bytes on a write is worth its system call.
const LARGE: usize = 256 * 1024;
const RETRIES: u32 = 3;

/// One open log.
#[derive(Debug)]
pub(super) struct ActiveLog {
    pub(super) span: LogSpan,
    /// Until it is complete.
    pub(super) file: Option<Arc<File>>,
    pub(super) path: PathBuf,
    /// Byte offset up to which the file is written, with records or zeroes; aligned.
    ahead: u64,
    /// The file is longer than its records.
    padded: bool,
    trimming: bool,
}

#[derive(Debug)]
struct Batch {
    stage: Stage,
    buffer: usize,
    /// Stream position of its end.
    end: u64,
    /// Stamp of its last record.
    stamp: Stamp,
    /// It is on stable storage when it is written, as is everything before it.
    durable: bool,
    tries: u32,
}

#[derive(Debug)]
struct Switch {
    name: LogName,
    log: OpenedLog,
    reply: Reply,
}

/// Everything about the open logs.
#[derive(Debug)]
pub(super) struct LogState {
    /// Oldest first; the last one takes new records.
    pub(super) logs: Vec<ActiveLog>,
    /// End of the last record that was staged, as stream position.
    pub(super) staged: u64,
    pub(super) marks: Marks,
    /// Stamp of the last record that was staged.
    pub(super) last_stamp: Stamp,
    /// Stamp of the last record that is in the log.
    pub(super) logged_stamp: Stamp,
    pub(super) clock: Lamport,
    /// Writing to the log has failed.
    pub(super) broken: bool,
    /// fdatasync in flight, for everything before this position.
    pub(super) syncing: Option<u64>,
    pub(super) flush_habit: FlushHabit,
    /// Since when something waits to become durable.
    pub(super) undurable_since: Option<Instant>,
    /// Its two buffers are filled and written in turn.
    pub(super) area: StageArea,
    zero: Memory,
    forming: usize,
    stage: Stage,
    batch: Option<Batch>,
    switch: Option<Switch>,
    /// Length of the piece of zeroes in flight.
    zeroing: Option<u64>,
    zero_after: Option<Instant>,
    /// When the last piece of zeroes was begun, and where the log ended then.
    zeroed: Option<(Instant, u64)>,
    average_batch: usize,
    last_append: Option<Instant>,
}

impl LogState {
    pub(super) fn new(area: StageArea) -> Result<Self, Errno> {
        Ok(Self {
            logs: Vec::new(),
            staged: 0,
            marks: Marks::default(),
            last_stamp: Stamp::default(),
            logged_stamp: Stamp::default(),
            clock: Lamport::default(),
            broken: false,
            syncing: None,
            flush_habit: FlushHabit::default(),
            undurable_since: None,
            area,
            zero: Memory::new(4 << 20)?,
            forming: 0,
            stage: Stage::default(),
            batch: None,
            switch: None,
            zeroing: None,
            zero_after: None,
            zeroed: None,
            average_batch: 0,
            last_append: None,
        })
    }

    /// Whether a write may be acknowledged when it is staged.
    pub(super) fn early(&self) -> bool {
        self.area.shared() && !self.broken
    }

    /// End of what has been acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        if self.early() {
            self.staged
        } else {
            self.marks.logged
        }
    }

    /// Whether a record with `payload` bytes can be staged now.
    pub(super) fn has_room(&self, payload: usize) -> bool {
        !self.broken && self.stage.fits(payload, BATCH_MAX)
    }

    /// Whether writes wait for the switch to the next log.
    pub(super) fn switching(&self) -> bool {
        self.switch.is_some()
    }

    /// Whether everything that was staged is in the log (or never will be).
    pub(super) fn quiet(&self) -> bool {
        self.batch.is_none()
            && self.zeroing.is_none()
            && self.syncing.is_none()
            && (self.broken || (self.stage.is_empty() && self.marks.durable == self.staged))
    }

    /// When the last batch was written.
    pub(super) fn last_append(&self) -> Option<Instant> {
        self.last_append
    }

    /// So much is staged that it should be written before more is taken in.
    pub(super) fn worth_writing(&self) -> bool {
        self.batch.is_none() && self.stage.filled >= LARGE
    }

    fn large_batch(&self) -> bool {
        self.batch.as_ref().is_some_and(|b| b.stage.filled >= LARGE)
    }

    /// Four megabytes of zeroes.
    pub(super) fn zero_bytes(&self) -> *const u8 {
        self.zero.at(0)
    }

    /// Stages a record with `len` bytes of `content`; the caller has asked [`LogState::has_room`].
    pub(super) fn append(&mut self, pos: u64, content: Content<'_>, len: usize, stamp: Stamp) {
        let before = self.stage.filled;
        let (buffer, requests) = self.area.buffer_and_requests(self.forming);
        self.stage
            .push(buffer, pos, content.payload(len, requests), stamp);
        if !self.area.requests.keeps() {
            self.mark_staged();
        }
        self.staged += (self.stage.filled - before) as u64;
        self.last_stamp = stamp;
    }

    /// Lets a successor of this process find what is staged. Not needed for each record of a write that is kept as a
    /// whole until all of them are staged.
    pub(super) fn mark_staged(&mut self) {
        copies_done();
        self.area.mark(self.forming, &self.stage);
    }

    /// Makes `log` the one that takes new records, from its end on; `base` is its place in the stream.
    pub(super) fn open(&mut self, name: LogName, log: OpenedLog, base: u64, tail: &[u8]) {
        self.stage = Stage::at(log.end);
        self.area.begin(&name, stage_area::identity(&log.file));
        self.area.buffer_mut(self.forming)[..tail.len()].copy_from_slice(tail);
        self.area.mark(self.forming, &self.stage);
        self.logs.push(ActiveLog {
            span: LogSpan {
                name,
                base,
                end: None,
                last_stamp: log.stamp,
                complete: false,
            },
            file: Some(log.file),
            path: log.path,
            ahead: log.end.next_multiple_of(LOG_ALIGN),
            padded: false,
            trimming: false,
        });
        self.broken = false;
        self.staged = base + log.end;
        self.average_batch = 0;
    }

    /// Closes the newest log at its end, which a newer one follows.
    pub(super) fn close(&mut self) {
        let base = self.staged;
        if let Some(old) = self.logs.last_mut() {
            old.span.end = Some(base);
            old.span.last_stamp = self.last_stamp;
        }
    }

    /// Gives up what was not logged: it is in the map.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
        self.stage.filled = self.stage.carried;
    }
}

impl Engine {
    /// Lets the log go on: next batch, switch, zeroes ahead.
    pub(super) fn pump_log(&mut self) {
        if self.log.broken {
            return;
        }
        if self.log.batch.is_none() && !self.log.stage.is_empty() {
            self.submit_batch();
        }
        // The new log gets no record before the old one is on stable storage. The stage belongs to one log.
        let kept = self.log.area.requests.keeps();
        if self.log.switching() && self.log.quiet() && !kept {
            self.do_switch();
        }
        self.write_zeroes_ahead();
    }

    fn submit_batch(&mut self) {
        let log = &mut self.log;
        let Some(newest) = log.logs.last_mut() else {
            return;
        };
        let Some(file) = newest.file.clone() else {
            return;
        };
        let end = log.stage.file_offset + log.stage.write_len() as u64;
        // A piece of zeroes in flight begins at `ahead`.
        if newest.trimming || (log.zeroing.is_some() && end > newest.ahead) {
            return;
        }
        copies_done();
        log.area.mark(log.forming, &log.stage);
        let following = log.stage.close(log.area.buffer_mut(log.forming));
        log.area.reuse(1 - log.forming);
        log.area
            .carry(log.forming, log.stage.filled, following.carried);
        log.area.mark(1 - log.forming, &following);
        newest.ahead = newest.ahead.max(end);
        newest.padded = true;
        let batch = Batch {
            stage: log.stage,
            buffer: log.forming,
            end: newest.span.base + log.stage.end(),
            stamp: log.last_stamp,
            durable: log.flush_habit.next_write(log.stage.write_len())
                && log.syncing.is_none()
                && log.marks.durable == log.marks.logged,
            tries: 0,
        };
        log.average_batch = (log.average_batch * 7 + log.stage.write_len()) / 8;
        log.stage = following;
        log.forming = 1 - log.forming;
        log.last_append = Some(self.now);
        let is_awaited = batch.durable;
        self.log.batch = Some(batch);
        self.write_batch(&file);
        // Answers and further requests come after the I/O has begun.
        if is_awaited || self.acks.len() > 4 || self.log.large_batch() {
            self.ring.submit();
        }
    }

    fn write_batch(&mut self, file: &File) {
        let Some(batch) = &self.log.batch else { return };
        let from = self.log.area.address(batch.buffer);
        let len = u32::try_from(batch.stage.write_len()).unwrap_or(0);
        let (at, op) = (batch.stage.file_offset, Op::LogWrite);
        if batch.durable {
            self.ring.write_durable(op, file, from, len, at);
        } else {
            self.ring.write(op, file, from, len, at);
        }
    }

    pub(super) fn log_written(&mut self, result: i32) {
        let Some(batch) = &mut self.log.batch else {
            return;
        };
        if usize::try_from(result) == Ok(batch.stage.write_len()) {
            if self.log.marks.durable == self.log.marks.logged {
                self.log.undurable_since = Some(self.now);
            }
            self.log.marks.logged = batch.end;
            self.log.logged_stamp = batch.stamp;
            let durable = batch.durable.then_some(batch.end);
            self.log.batch = None;
            if let Some(end) = durable {
                self.log_durable(end);
            }
            return;
        }
        let transient = matches!(-result, libc::EAGAIN | libc::EINTR) || result >= 0;
        batch.tries += 1;
        let again = transient && batch.tries <= RETRIES;
        let file = self.log.logs.last().and_then(|l| l.file.clone());
        if let Some(file) = file
            && again
        {
            return self.write_batch(&file);
        }
        self.log.batch = None;
        let errno = if result >= 0 { libc::ENOSPC } else { -result };
        self.log_failed("write to", errno);
    }

    fn write_zeroes_ahead(&mut self) {
        let log = &mut self.log;
        let active = log
            .last_append
            .is_some_and(|at| self.now.duration_since(at) < AHEAD_IDLE);
        let allowed = log.zero_after.is_none_or(|at| self.now >= at);
        let Some(newest) = log.logs.last() else {
            return;
        };
        if log.zeroing.is_some() || newest.trimming || log.switch.is_some() || !active || !allowed {
            return;
        }
        let step = zero_step(log.zeroed, self.now, log.staged);
        let enough = log.stage.end() + AHEAD_MIN + step;
        if log.average_batch > AHEAD_BATCH_MAX || newest.ahead >= enough {
            return;
        }
        let Some(file) = newest.file.clone() else {
            return;
        };
        log.zeroing = Some(step);
        log.zeroed = Some((self.now, log.staged));
        let (zeroes, at) = (log.zero_bytes(), newest.ahead);
        let len = u32::try_from(step).unwrap_or(0);
        self.ring.write(Op::ZeroAhead, &file, zeroes, len, at);
    }

    pub(super) fn zero_ahead_done(&mut self, result: i32) {
        let log = &mut self.log;
        let step = log.zeroing.take().unwrap_or(0);
        if u64::try_from(result) != Ok(step) {
            // No harm: the log grows with its records then, and tells by itself when it cannot.
            log.zero_after = Some(self.now + AHEAD_RETRY);
        } else if let Some(newest) = log.logs.last_mut() {
            newest.ahead += step;
        }
        if let Some(newest) = log.logs.last_mut() {
            newest.padded = true;
        }
    }

    /// Takes the order to switch; done when what is staged has been written.
    pub(super) fn switch_log(&mut self, name: LogName, log: OpenedLog, reply: Reply) {
        let open = self.log.logs.iter().filter(|l| !l.span.complete).count();
        if !matches!(self.mode, Mode::Logging) || self.log.broken || self.drain.is_some() {
            return self.refuse(&reply, "a switch to the next log");
        }
        if open != 1 || self.log.switching() {
            let why = "two logs are open: the older one must be written back first";
            return self.answer(&reply, Err(ShimError::Invalid(why.into())));
        }
        self.log.switch = Some(Switch { name, log, reply });
    }

    fn do_switch(&mut self) {
        let Some(switch) = self.log.switch.take() else {
            return;
        };
        let log = &mut self.log;
        let base = log.staged;
        log.logs.retain(|l| !l.span.complete);
        log.close();
        log.open(switch.name, switch.log, base, &[]);
        self.answer(&switch.reply, Ok(()));
    }

    /// The log takes no more: what is in memory goes to the disk, then writes go there straight.
    pub(super) fn log_failed(&mut self, operation: &'static str, errno: i32) {
        if self.log.broken {
            return;
        }
        let path = self.log.logs.last().map(|l| l.path.clone());
        let cause = std::io::Error::from_raw_os_error(errno);
        let path = path.unwrap_or_default();
        let text = format!("{operation} {}: {cause}", path.display());
        tracing::error!("{text}; logging stops, writes go straight to the disk");
        self.error.get_or_insert(text.clone());
        self.log.give_up();
        if let Some(switch) = self.log.switch.take() {
            let why = format!("the log before it has failed: {text}");
            self.answer(&switch.reply, Err(ShimError::Invalid(why)));
        }
        if !matches!(self.mode, Mode::Failed) {
            self.drain_to_pass_through(None);
        }
    }

    /// When the active log is due to be trimmed.
    pub(super) fn trim_due(&self) -> Option<Instant> {
        let newest = self.log.logs.last()?;
        let idle = newest.padded && !newest.trimming && newest.span.end.is_none();
        let quiet = self.log.quiet() && !self.log.broken && matches!(self.mode, Mode::Logging);
        (idle && quiet)
            .then_some(self.log.last_append?)
            .map(|at| at + TRIM_IDLE)
    }

    /// Trims logs that are done with, and the active one when it is idle.
    pub(super) fn pump_trims(&mut self) {
        let marks = self.log.marks;
        for index in 0..self.log.logs.len() {
            let span = &self.log.logs[index].span;
            let Some(end) = span.end else { continue };
            if !span.complete && marks.written_back >= end && marks.durable >= end {
                self.trim(index);
            }
        }
        if self.trim_due().is_some_and(|at| self.now >= at) {
            self.trim(self.log.logs.len() - 1);
        }
    }

    /// Cuts a log to its records, in the worker; nothing is written to it meanwhile.
    pub(super) fn trim(&mut self, index: usize) {
        let logged = self.log.marks.logged;
        let Some(log) = self.log.logs.get_mut(index) else {
            return;
        };
        let Some(file) = log.file.clone().filter(|_| !log.trimming) else {
            return;
        };
        log.trimming = true;
        self.worker.add(Job::Trim {
            file,
            path: log.path.clone(),
            len: log.span.local(logged),
            base: log.span.base,
        });
    }

    pub(super) fn trimmed(&mut self, base: u64, result: Result<(), ShimError>) {
        let logged = self.log.marks.logged;
        let Some(log) = self.log.logs.iter_mut().find(|l| l.span.base == base) else {
            return;
        };
        if let Err(e) = &result {
            // The records are on stable storage anyway, and a log ends at its last valid record.
            tracing::warn!("{e}");
        }
        log.trimming = false;
        log.padded = false;
        log.ahead = log.span.local(logged).next_multiple_of(LOG_ALIGN);
        if log.span.end.is_some() {
            log.span.complete = true;
            log.file = None;
        }
        self.drain_trimmed(result.is_ok());
    }
}

/// Length of the next piece of zeroes in bytes, by the speed of the stream since the last one.
fn zero_step(last: Option<(Instant, u64)>, now: Instant, staged: u64) -> u64 {
    let Some((at, position)) = last else {
        return *AHEAD_STEP.start();
    };
    let secs = now.duration_since(at).as_secs_f64().max(0.001);
    #[allow(clippy::cast_precision_loss)] // a rough measure
    let per_sec = staged.saturating_sub(position) as f64 / secs;
    // Saturates; not negative.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let wanted = (per_sec / AHEAD_STEPS_PER_SEC) as u64;
    wanted
        .next_multiple_of(LOG_ALIGN)
        .clamp(*AHEAD_STEP.start(), *AHEAD_STEP.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_ahead_follow_the_speed() {
        let now = Instant::now();
        let earlier = now.checked_sub(Duration::from_secs(1)).unwrap();
        let step = |bytes: u64| zero_step(Some((earlier, 1000)), now, 1000 + bytes);
        assert_eq!(zero_step(None, now, 0), 512 * 1024);
        assert_eq!(step(0), 512 * 1024);
        assert_eq!(step(8 << 20), 2 << 20);
        assert_eq!(step(1 << 40), 4 << 20);
    }
}
