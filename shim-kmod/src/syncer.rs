// SPDX-License-Identifier: GPL-2.0

//! The thread that flushes the log when somebody waits for it, and by itself soon after a write; it also tells marsd
//! about changed positions.

use kernel::ffi::c_ulong;

use kernel::sync::Arc;
use kernel::time::msecs_to_jiffies;

use crate::abi::operation;
use crate::bio::List;
use crate::log_file::LogFile;
use crate::resource::{now, Mode, Resource, State};

/// What is in the log becomes durable after this time even if nobody asks, so that peers can be sent it, in
/// milliseconds.
const BACKGROUND_MS: u32 = 40;
/// Shortest time between two changes of positions that are told, in milliseconds.
const PAUSE_MS: u32 = 4;

enum Work {
    /// Flush the log, which is written up to this stream position.
    Flush(Arc<LogFile>, u64),
    Publish,
}

/// Body of the thread.
pub(crate) fn run(resource: &Resource) {
    let mut published = now();
    loop {
        let work = {
            let mut state = resource.state.lock();
            loop {
                if state.exit {
                    return;
                }
                let (work, wait) = choose(&mut state, published);
                if let Some(work) = work {
                    break work;
                }
                let _ = resource.syncer.wait_interruptible_timeout(&mut state, wait);
            }
        };
        match work {
            Work::Flush(log, to) => flush(resource, &log, to),
            Work::Publish => {
                published = now();
                resource.publish();
            }
        }
    }
}

/// What to do, or how long to wait for it.
fn choose(state: &mut State, published: c_ulong) -> (Option<Work>, c_ulong) {
    let mut wait = msecs_to_jiffies(10_000);
    let stream = &state.stream;
    if let (Some(log), false, true) = (&state.log, state.broken, stream.durable < stream.logged) {
        let age = state
            .undurable_since
            .map_or(c_ulong::MAX, |since| now().wrapping_sub(since));
        let left = msecs_to_jiffies(BACKGROUND_MS).saturating_sub(age);
        let asked = !state.flushes.is_empty()
            || state.sync_to > stream.durable
            || matches!(state.mode, Mode::Draining(_));
        if asked || left == 0 {
            let work = Work::Flush(log.clone(), stream.logged);
            state.syncing = true;
            return (Some(work), 0);
        }
        wait = wait.min(left);
    }
    if state.touched {
        let left = msecs_to_jiffies(PAUSE_MS).saturating_sub(now().wrapping_sub(published));
        if left == 0 {
            state.touched = false;
            return (Some(Work::Publish), 0);
        }
        wait = wait.min(left);
    }
    (None, wait)
}

fn flush(resource: &Resource, log: &LogFile, to: u64) {
    let result = log.flush();
    let mut done = List::new();
    {
        let mut state = resource.state.lock();
        state.syncing = false;
        if result.is_ok() {
            state.stream.set_durable(to);
            let durable = state.stream.durable;
            state.undurable_since = (state.stream.logged > durable).then(now);
            while state.flushes.front().is_some_and(|r| r.end <= durable) {
                let Some(request) = state.flushes.pop_front() else {
                    break;
                };
                done.push_back(request);
                state.recent_flushes = state.recent_flushes.saturating_add(1);
            }
            state.touched = true;
        }
        resource.writeback.notify_one();
        if matches!(state.mode, Mode::Draining(_)) {
            resource.logger.notify_one();
        }
    }
    if let Err(e) = result {
        let at = {
            let state = resource.state.lock();
            state.stream.local(state.stream.durable)
        };
        resource.log_failed(operation::LOG_FLUSH, e, at);
    }
    resource.finish_all(done, Ok(()));
}
