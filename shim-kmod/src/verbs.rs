// SPDX-License-Identifier: GPL-2.0

//! What marsd asks of a resource (`README.md`, control device). The control lock is held during each request.

use core::sync::atomic::Ordering;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::{self, flag, log_flag, operation, state, LOGS_MAX, LOG_NAME_LEN};
use crate::device::Device;
use crate::log_file::{FileRef, LogFile, MarkFile};
use crate::log_format::LogTime;
use crate::resource::{Control, Goal, Mode, Next, Resource};

/// A checked argument of LOG.
struct Checked {
    file: Arc<LogFile>,
    mark: Option<MarkFile>,
    name: [u8; LOG_NAME_LEN],
    seq: u64,
    pos: u64,
    stamp: LogTime,
}

impl Checked {
    fn new(args: &abi::Log) -> Result<Self> {
        let nanos_ok = args.stamp_nanos < 1_000_000_000;
        if args.reserved != 0 || args.seq == 0 || !nanos_ok || abi::text(&args.name).is_none() {
            return Err(EINVAL);
        }
        let file = FileRef::get(args.log_fd)?;
        file.check_log()?;
        if file.len() != args.pos {
            return Err(EINVAL);
        }
        let mark = match args.mark_fd {
            -1 => None,
            fd => Some(MarkFile::get(fd)?),
        };
        Ok(Self {
            file: Arc::new(LogFile::new(file, args.pos), GFP_KERNEL)?,
            mark,
            name: args.name,
            seq: args.seq,
            pos: args.pos,
            stamp: LogTime {
                secs: args.stamp_secs,
                nanos: args.stamp_nanos,
            },
        })
    }
}

impl Resource {
    /// LOG.
    pub(crate) fn log(self: &Arc<Self>, args: &abi::Log) -> Result {
        let log = Checked::new(args)?;
        let mut control = self.control.lock();
        self.check_alive(&control)?;
        let (mode, stopping, last) = {
            let state = self.state.lock();
            (state.mode, state.stopping, state.stream.last_seq())
        };
        if stopping {
            return Err(EBUSY);
        }
        match mode {
            Mode::Attached => {
                self.begin(log, Mode::Attached)?;
                self.appear(&mut control)
            }
            Mode::Logging => self.switch(log),
            Mode::PassThrough => {
                if last.is_some_and(|last| log.seq <= last || log.pos != 0) {
                    return Err(EINVAL);
                }
                self.resume(log)
            }
            Mode::Draining(_) | Mode::Resuming => Err(EBUSY),
            Mode::Failed | Mode::Stopped => Err(EINVAL),
        }
    }

    /// Begins to log; nothing is under way.
    fn begin(&self, log: Checked, from: Mode) -> Result {
        {
            let mut map = self.map.lock();
            let mut state = self.state.lock();
            if state.mode != from {
                return Err(EIO);
            }
            map.staged = state.stream.begin(log.seq, log.pos, log.stamp);
            map.stamp = log.stamp;
            state.names = [[0; LOG_NAME_LEN], log.name];
            state.log = Some(log.file);
            state.mark = log.mark;
            state.broken = false;
            state.sync_to = 0;
            state.recent_flushes = 0;
            state.mode = Mode::Logging;
        }
        self.wake_all();
        self.publish();
        Ok(())
    }

    /// Makes the device; without it the resource is as attached again.
    fn appear(self: &Arc<Self>, control: &mut Control) -> Result {
        let size = self.state.lock().size;
        match Device::add(self, size) {
            Ok((device, number)) => {
                control.device = Some(device);
                self.state.lock().device = Some(number);
                self.publish();
                Ok(())
            }
            Err(e) => {
                let files = {
                    let mut state = self.state.lock();
                    state.mode = Mode::Attached;
                    state.stream.forget();
                    (state.log.take(), state.mark.take())
                };
                drop(files);
                self.publish();
                Err(e)
            }
        }
    }

    fn switch(&self, log: Checked) -> Result {
        {
            let mut state = self.state.lock();
            let next = state.stream.last_seq().map_or(0, |last| last + 1);
            if log.pos != 0 || log.seq != next {
                return Err(EINVAL);
            }
            if state.mode != Mode::Logging || state.stream.is_switching() || state.next.is_some() {
                return Err(EBUSY);
            }
            state.switched = None;
            state.next = Some(Next {
                file: log.file,
                mark: log.mark,
                seq: log.seq,
                name: log.name,
            });
        }
        self.logger.notify_one();
        let mut state = self.state.lock();
        loop {
            if let Some(result) = state.switched.take() {
                return result;
            }
            if state.next.is_none() {
                // Being carried out: one flush of the log.
                self.settled.wait(&mut state);
            } else if self.settled.wait_interruptible(&mut state) {
                let dropped = state.next.take();
                if dropped.is_some() {
                    drop(state);
                    return Err(EINTR);
                }
            }
        }
    }

    /// Logging again after pass-through.
    fn resume(&self, log: Checked) -> Result {
        {
            let mut state = self.state.lock();
            if state.mode != Mode::PassThrough {
                return Err(EBUSY);
            }
            state.mode = Mode::Resuming;
        }
        self.wait_for_disk(&self.disk_writes);
        if let Err(e) = self.disk.flush() {
            self.disk_failed(operation::DISK_FLUSH, e, 0);
            return Err(e);
        }
        self.begin(log, Mode::Resuming)
    }

    /// PASS_THROUGH.
    pub(crate) fn pass_through(self: &Arc<Self>) -> Result {
        let mut control = self.control.lock();
        self.check_alive(&control)?;
        let begin = {
            let mut state = self.state.lock();
            match state.mode {
                _ if state.stopping => return Err(EBUSY),
                Mode::PassThrough | Mode::Draining(Goal::PassThrough) => return Ok(()),
                Mode::Attached => {
                    state.mode = Mode::PassThrough;
                    true
                }
                Mode::Logging => {
                    state.mode = Mode::Draining(Goal::PassThrough);
                    false
                }
                Mode::Draining(_) | Mode::Resuming => return Err(EBUSY),
                Mode::Failed | Mode::Stopped => return Err(EINVAL),
            }
        };
        self.wake_all();
        self.publish();
        if begin {
            self.appear(&mut control)
        } else {
            Ok(())
        }
    }

    /// RESIZE.
    pub(crate) fn resize(&self, size: u64) -> Result {
        let control = self.control.lock();
        self.check_alive(&control)?;
        if size > self.disk.size() {
            return Err(ENOSPC);
        }
        {
            let mut state = self.state.lock();
            if size < state.size || size % self.disk.block_size() != 0 {
                return Err(EINVAL);
            }
            state.size = size;
        }
        if let Some(device) = &control.device {
            device.resize(size);
        }
        self.publish();
        Ok(())
    }

    /// STOP.
    pub(crate) fn stop(&self) -> Result {
        let mut control = self.control.lock();
        self.check_alive(&control)?;
        {
            let mut state = self.state.lock();
            if state.stopping {
                return Ok(());
            }
            if state.openers > 0 {
                return Err(EBUSY);
            }
            state.stopping = true;
        }
        // No request comes in afterwards.
        drop(control.device.take());
        {
            let mut state = self.state.lock();
            state.device = None;
            state.mode = match state.mode {
                Mode::Attached | Mode::Stopped => Mode::Stopped,
                Mode::Failed => Mode::Failed,
                _ => Mode::Draining(Goal::Stop),
            };
        }
        self.wake_all();
        self.publish();
        Ok(())
    }

    /// RELEASE: the resource does nothing any more.
    pub(crate) fn release(&self) -> Result {
        {
            let mut control = self.control.lock();
            self.check_alive(&control)?;
            let mode = self.state.lock().mode;
            if !matches!(mode, Mode::Attached | Mode::Stopped) {
                return Err(EBUSY);
            }
            control.released = true;
        }
        self.end_threads();
        Ok(())
    }

    fn check_alive(&self, control: &Control) -> Result {
        if control.released {
            return Err(ENOENT);
        }
        Ok(())
    }

    /// STATUS.
    pub(crate) fn status(&self) -> abi::Status {
        let change = self.change.load(Ordering::Acquire);
        let dirty = self.dirty.load(Ordering::Acquire);
        let (disk_major, disk_minor) = self.disk.number();
        let state = self.state.lock();
        let (device_major, device_minor) = state.device.unwrap_or((0, 0));
        let mut status = abi::Status {
            id: self.id,
            change,
            size_bytes: state.size,
            state: match state.mode {
                Mode::Attached => state::ATTACHED,
                Mode::Logging => state::LOGGING,
                Mode::Draining(_) | Mode::Resuming => state::DRAINING,
                Mode::PassThrough => state::PASS_THROUGH,
                Mode::Failed => state::FAILED,
                Mode::Stopped => state::STOPPED,
            },
            flags: 0,
            device_major,
            device_minor,
            disk_major,
            disk_minor,
            openers: state.openers,
            log_count: 0,
            log_failure: state.log_failure,
            disk_failure: state.disk_failure,
            counters: abi::Counters {
                reads: self.requests.reads.load(Ordering::Relaxed),
                writes: self.requests.writes.load(Ordering::Relaxed),
                flushes: self.requests.flushes.load(Ordering::Relaxed),
                logged_bytes: state.logged_bytes,
                written_back_bytes: state.written_back_bytes,
                dirty_bytes: dirty,
            },
            owner: self.owner,
            resource: self.name,
            device: self.device_name,
            logs: [EMPTY_LOG; LOGS_MAX],
        };
        for (bit, set) in [
            (flag::DEVICE, state.device.is_some()),
            (flag::STOPPING, state.stopping),
            (flag::MARK_MISSING, state.mark_missing),
        ] {
            status.flags |= if set { bit } else { 0 };
        }
        let count = state.stream.positions().count();
        // The last name is that of the newest log.
        let names = &state.names[state.names.len().saturating_sub(count)..];
        for ((positions, name), to) in state
            .stream
            .positions()
            .zip(names)
            .zip(status.logs.iter_mut())
        {
            *to = abi::LogStatus {
                seq: positions.seq,
                logged: positions.logged,
                durable: positions.durable,
                written_back: positions.written_back,
                stamp_secs: positions.stamp.secs,
                stamp_nanos: positions.stamp.nanos,
                flags: if positions.complete {
                    log_flag::COMPLETE
                } else {
                    0
                },
                name: *name,
            };
        }
        status.log_count = count as u32;
        status
    }
}

const EMPTY_LOG: abi::LogStatus = abi::LogStatus {
    seq: 0,
    logged: 0,
    durable: 0,
    written_back: 0,
    stamp_secs: 0,
    stamp_nanos: 0,
    flags: 0,
    name: [0; LOG_NAME_LEN],
};
