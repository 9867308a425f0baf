// SPDX-License-Identifier: GPL-2.0

//! The end of draining: pass-through, or nothing any more.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::Logger;
use crate::abi::{self, operation};
use crate::log_file::{LogFile, MarkFile};
use crate::resource::{note, Goal, Mode};

impl Logger<'_> {
    pub(super) fn finish(&mut self) {
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
    pub(super) fn store_mark(&self, mark: Option<&MarkFile>, name: &[u8], end: u64) {
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

    pub(super) fn end_drain(&mut self) {
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

    pub(super) fn finish_failed(&mut self) {
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
