//! Pass-through and the way there: the map is drained, then writes go straight to the disk.

use std::path::Path;

use mars_core::unlogged::Regions;

use super::read::Job as IoJob;
use super::worker::Job;
use super::write::PendingWrite;
use super::{Engine, Mode, Op, Reply};
use crate::error::ShimError;

/// Zeroes written at once in bytes.
const ZERO_STEP: u64 = 1 << 20;

/// What is under way in pass-through.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Writes in flight.
    pub(super) in_flight: u32,
    /// Writes that are on the disk.
    pub(super) done: u64,
    /// Writes that are on stable storage.
    durable: u64,
    /// Flush in flight, for so many writes.
    syncing: Option<u64>,
    /// Flushes of the application: number of writes, request.
    flushes: Vec<(u64, u64)>,
    /// Length of the piece of zeroes in flight.
    zeroing: Option<u64>,
}

impl Pass {
    /// Nothing is in flight and everything is on stable storage.
    pub(super) fn quiet(&self) -> bool {
        self.in_flight == 0
            && self.syncing.is_none()
            && self.zeroing.is_none()
            && self.durable == self.done
    }
}

/// Everything in memory goes to the disk, and the logs are trimmed.
#[derive(Debug)]
pub(super) struct Drain {
    /// Pass-through follows; else the end.
    pass_through: bool,
    /// Trims under way.
    trims: Option<u32>,
    replies: Vec<Reply>,
}

impl Engine {
    /// Takes the order to pass through.
    pub(super) fn begin_pass_through(&mut self, reply: Reply) {
        match self.mode {
            Mode::PassThrough => self.answer(&reply, Ok(())),
            Mode::Idle => {
                self.mode = Mode::PassThrough;
                self.answer(&reply, Ok(()));
            }
            Mode::Logging if self.drain.is_none() && !self.log.switching() => {
                self.drain_to_pass_through(Some(reply));
            }
            Mode::Draining => {
                if let Some(drain) = &mut self.drain {
                    drain.replies.push(reply);
                }
            }
            _ => self.refuse(&reply, "pass-through"),
        }
    }

    /// Takes the order to pass through without a log; `mark` says where the disk stands.
    pub(super) fn begin_pass_from(&mut self, mark: Job, reply: Reply) {
        if !matches!(self.mode, Mode::Idle) || self.drain.is_some() {
            return self.refuse(&reply, "pass-through");
        }
        // The disk holds all that counts.
        self.log.area.clear();
        self.mode = Mode::Draining;
        self.drain = Some(Drain {
            pass_through: true,
            trims: Some(0),
            replies: vec![reply],
        });
        self.worker.add(mark);
    }

    /// Lets the map run empty; nothing is taken in meanwhile.
    pub(super) fn drain_to_pass_through(&mut self, reply: Option<Reply>) {
        self.mode = Mode::Draining;
        match &mut self.drain {
            Some(drain) => drain.replies.extend(reply),
            None => {
                self.drain = Some(Drain {
                    pass_through: true,
                    trims: None,
                    replies: reply.into_iter().collect(),
                });
            }
        }
    }

    /// Takes the order to write everything back for the end.
    pub(super) fn begin_drain(&mut self, reply: Reply) {
        match &mut self.drain {
            Some(drain) => {
                drain.pass_through = false;
                drain.replies.push(reply);
            }
            None => {
                self.drain = Some(Drain {
                    pass_through: false,
                    trims: None,
                    replies: vec![reply],
                });
            }
        }
    }

    fn drained(&self) -> bool {
        let failed = matches!(self.mode, Mode::Failed);
        let memory = failed || (self.map.is_empty() && self.round.is_none());
        let acknowledged = self.pending.as_ref().is_some_and(|w| w.acknowledged);
        let requests = !acknowledged && (self.log.broken || self.acks.is_empty());
        memory && requests && self.log.quiet() && self.pass.quiet()
    }

    /// Lets a drain go on.
    pub(super) fn pump_drain(&mut self) {
        let Some(drain) = &self.drain else { return };
        if drain.trims.is_some() || !self.drained() {
            return;
        }
        if !matches!(self.mode, Mode::Failed) {
            self.update_written_back();
        }
        let open: Vec<usize> = (0..self.log.logs.len())
            .filter(|n| self.log.logs[*n].file.is_some())
            .collect();
        if let Some(drain) = &mut self.drain {
            drain.trims = Some(u32::try_from(open.len()).unwrap_or(0));
        }
        if open.is_empty() {
            return self.mark_passed();
        }
        for index in open {
            self.trim(index);
        }
    }

    /// The log is broken, but all its data is on the disk, flushed: that is as good.
    fn answer_from_disk(&mut self) {
        for ack in std::mem::take(&mut self.acks) {
            self.acknowledge(&ack);
        }
        for (_, unique) in std::mem::take(&mut self.flushes) {
            self.reply(unique, 0, &[]);
        }
        // What was staged and not logged is no part of the stream.
        self.log.staged = self.log.marks.logged;
    }

    /// A trim has ended; `flushed` tells whether its log is on stable storage.
    pub(super) fn drain_trimmed(&mut self, flushed: bool) {
        if self.drain.as_ref().is_none_or(|d| d.trims.is_none()) {
            return;
        }
        if flushed && self.log.broken {
            self.log.marks.durable = self.log.marks.logged;
        }
        let left = match &mut self.drain {
            Some(Drain {
                trims: Some(left), ..
            }) => {
                *left = left.saturating_sub(1);
                *left
            }
            _ => return,
        };
        if left == 0 {
            self.mark_passed();
        }
    }

    /// Before the first write that is in no log: the logs must not be applied again.
    fn mark_passed(&mut self) {
        // The disk has everything: no successor may stage it again.
        if !matches!(self.mode, Mode::Failed) {
            self.log.area.clear();
        }
        let passing = self.drain.as_ref().is_some_and(|d| d.pass_through);
        let newest = self.log.logs.last().filter(|_| passing);
        let (Some(log), false) = (newest, matches!(self.mode, Mode::Failed)) else {
            return self.drain_done();
        };
        self.worker.add(Job::Mark {
            dir: log.path.parent().unwrap_or(Path::new(".")).into(),
            log: log.span.name.clone(),
            end: log.span.local(self.final_end()),
        });
    }

    /// Where the stream ends once everything is drained: what is not on stable storage in a broken log is no part of it.
    fn final_end(&self) -> u64 {
        if self.log.broken {
            self.log.marks.durable
        } else {
            self.log.staged
        }
    }

    pub(super) fn drain_marked(&mut self, result: Result<(), ShimError>, noted: Option<Regions>) {
        self.unlogged.begin(noted);
        if let Err(e) = result {
            // Writers cannot be held up for ever: marsd, too, is told the position.
            tracing::error!("{e}; if this node dies now, the log must not be replayed");
            self.error.get_or_insert(e.to_string());
        }
        self.drain_done();
    }

    fn drain_done(&mut self) {
        let Some(drain) = self.drain.take() else {
            return;
        };
        let whole = !matches!(self.mode, Mode::Failed);
        if whole && self.log.broken {
            self.answer_from_disk();
        }
        if whole {
            let end = self.final_end();
            if self.log.broken {
                self.log.last_stamp = self.log.logged_stamp;
            }
            self.log.staged = end;
            self.log.marks.logged = end;
            self.log.marks.written_back = end;
            let stamp = self.log.last_stamp;
            for log in &mut self.log.logs {
                if log.span.end.is_none() {
                    log.span.end = Some(end);
                    log.span.last_stamp = stamp;
                }
                log.span.complete |= !drain.pass_through;
                log.file = None;
            }
        }
        if drain.pass_through && whole {
            self.mode = Mode::PassThrough;
        } else if whole {
            self.mode = Mode::Draining;
        }
        for reply in &drain.replies {
            self.answer(reply, Ok(()));
        }
        self.stage_pending();
    }

    /// Begins a write; false if no buffer is free.
    pub(super) fn pass_write(&mut self, write: &PendingWrite) -> bool {
        let len = write.len as usize;
        let Some(buffer) = self.pool.take(len) else {
            return false;
        };
        let bytes = self.log.area.requests.payload(0, len);
        let at = buffer.offset;
        self.pool.memory().bytes_mut(at, len).copy_from_slice(bytes);
        let number = self.jobs.insert(IoJob {
            unique: write.unique,
            buffer,
            len,
            left: len as u64,
            parts: 1,
            errno: 0,
            write: true,
        });
        self.pass.in_flight += 1;
        self.write_noted(number, write.offset, len as u64);
        true
    }

    /// Goes on with the ranges to be zeroed, one piece at a time.
    pub(super) fn pass_zeroes(&mut self) {
        let Some(job) = self.zeroes.front() else {
            return;
        };
        if self.pass.zeroing.is_some() {
            return;
        }
        let len = job.left.min(ZERO_STEP);
        let size = u32::try_from(len).unwrap_or(0);
        let (zeroes, offset) = (self.log.zero_bytes(), job.offset);
        if !self.unlogged.may_write(offset, len) {
            return self.pump_unlogged();
        }
        self.pass.zeroing = Some(len);
        self.ring
            .write(Op::PassZero, &self.disk.file, zeroes, size, offset);
    }

    pub(super) fn pass_zero_done(&mut self, result: i32) {
        let Some(len) = self.pass.zeroing.take() else {
            return;
        };
        self.pass.done += 1;
        let ok = u64::try_from(result) == Ok(len);
        let Some(job) = self.zeroes.front_mut() else {
            return;
        };
        job.offset += len;
        job.left -= len;
        if !ok || job.left == 0 {
            let errno = if ok { 0 } else { libc::EIO };
            if let Some(job) = self.zeroes.pop_front() {
                self.reply(job.unique, errno, &[]);
            }
        }
    }

    /// A flush of the application in pass-through.
    pub(super) fn flush_pass(&mut self, unique: u64) {
        let target = self.pass.done;
        if self.pass.durable >= target {
            self.reply(unique, 0, &[]);
        } else {
            self.pass.flushes.push((target, unique));
        }
    }

    /// Starts a flush of the disk if somebody waits for it.
    pub(super) fn pump_pass(&mut self) {
        let leaving = matches!(self.mode, Mode::Loading(_)) || self.drain.is_some();
        let wanted = !self.pass.flushes.is_empty() || (leaving && self.pass.in_flight == 0);
        if !wanted || self.pass.syncing.is_some() || self.pass.durable >= self.pass.done {
            return;
        }
        self.pass.syncing = Some(self.pass.done);
        self.ring.datasync(Op::PassSync, &self.disk.file);
    }

    pub(super) fn pass_synced(&mut self, result: i32) {
        let Some(target) = self.pass.syncing.take() else {
            return;
        };
        if result < 0 {
            return self.disk_failed("flush", -result);
        }
        self.pass.durable = target;
        let flushes = std::mem::take(&mut self.pass.flushes);
        let (done, waiting) = flushes.into_iter().partition(|(at, _)| *at <= target);
        self.pass.flushes = waiting;
        for (_, unique) in done {
            self.reply(unique, 0, &[]);
        }
    }

    pub(super) fn fail_pass_flushes(&mut self) {
        for (_, unique) in std::mem::take(&mut self.pass.flushes) {
            self.reply(unique, libc::EIO, &[]);
        }
    }
}
