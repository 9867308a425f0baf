// SPDX-License-Identifier: GPL-2.0

//! The log as a file: the switch to the next one, zeros ahead, trimming.

use kernel::bindings;
use kernel::ffi::c_ulong;
use kernel::prelude::*;
use kernel::time::msecs_to_jiffies;

use super::{Logger, TRIM_IDLE_MS};
use crate::abi::operation;
use crate::resource::{now, Next, State};
use crate::slots::SLOT_SIZE;

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

impl Logger<'_> {
    pub(super) fn switch(&mut self, next: Next) {
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

    pub(super) fn wants_zeros(&mut self, state: &mut State) -> bool {
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
    pub(super) fn extend(&mut self) {
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
    pub(super) fn trim_due(&self, state: &State) -> Option<c_ulong> {
        let log = state.log.as_ref()?;
        if log.ahead() <= state.stream.local(state.stream.logged) {
            return None;
        }
        let idle = now().wrapping_sub(self.last_append);
        Some(msecs_to_jiffies(TRIM_IDLE_MS).saturating_sub(idle))
    }

    pub(super) fn trim(&mut self) {
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
}
