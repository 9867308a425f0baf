// SPDX-License-Identifier: GPL-2.0

//! The thread that takes writes: into memory, into the log, then the answer. It alone writes to the log, and it carries
//! out what needs the log to stand still: the switch to the next one, zeros ahead, trimming, the end of draining.

mod drain;
mod file;
mod write;

use core::sync::atomic::Ordering;

use kernel::bindings;
use kernel::ffi::c_ulong;
use kernel::prelude::*;
use kernel::time::msecs_to_jiffies;

use crate::batch::{Batch, Segment, SEGMENTS_PER_RECORD};
use crate::bio::List;
use crate::log_format::OVERHEAD;
use crate::resource::{now, Mode, Next, Resource, State};
use crate::slots::SLOT_SIZE;

/// Most records of one write to the log.
const RECORDS_MAX: usize = 256;
/// The log is trimmed when nothing was logged for this long, in milliseconds.
const TRIM_IDLE_MS: u32 = 1000;
/// Bytes dirty from which on the write-back is woken at once.
pub(crate) const DIRTY_URGENT: u64 = 16 << 20;

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

/// Why a request was not staged.
enum Stop {
    LogFailed,
    DiskFailed,
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
}
