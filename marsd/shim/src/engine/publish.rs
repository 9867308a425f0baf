//! Tells the control side when positions or the state have changed, at most every few milliseconds, and less often while
//! a stream of writes runs.

use std::time::{Duration, Instant};

use mars_core::control::{LogStatus, ShimState};

use super::{Engine, Mode, Snapshot};
use crate::stream::Marks;

/// Shortest time between two snapshots ...
const PAUSE: Duration = Duration::from_millis(4);
/// ... and while a stream of writes runs, of which each one tells of much.
const PAUSE_BUSY: Duration = Duration::from_millis(20);

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Published {
    key: Option<Key>,
    at: Option<Instant>,
    pending: bool,
}

/// What makes a new snapshot worth telling.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    state: ShimState,
    marks: Marks,
    complete: usize,
    logs: usize,
    newest: u64,
    error: bool,
    size_bytes: u64,
}

impl Engine {
    fn state(&self) -> ShimState {
        match self.mode {
            Mode::Failed => ShimState::Failed,
            _ if self.drain.is_some() => ShimState::Draining,
            Mode::Idle | Mode::Loading(_) => ShimState::Attached,
            Mode::Logging => ShimState::Logging,
            Mode::Draining => ShimState::Draining,
            Mode::PassThrough => ShimState::PassThrough,
        }
    }

    fn key(&self) -> Key {
        let logs = &self.log.logs;
        Key {
            state: self.state(),
            marks: self.log.marks,
            complete: logs.iter().filter(|l| l.span.complete).count(),
            logs: logs.len(),
            newest: logs.last().map_or(0, |l| l.span.name.seq),
            error: self.error.is_some(),
            size_bytes: self.size_bytes,
        }
    }

    /// When a change that waits is to be told.
    pub(super) fn publish_due(&self) -> Option<Instant> {
        if !self.published.pending {
            return None;
        }
        self.published.at.map(|at| at + self.publish_pause())
    }

    fn publish_pause(&self) -> Duration {
        if self.pace.busy() { PAUSE_BUSY } else { PAUSE }
    }

    /// Tells a change, or notes that there is one to be told later.
    pub(super) fn publish(&mut self) {
        let early = self
            .published
            .at
            .is_some_and(|at| self.now.duration_since(at) < self.publish_pause());
        if early {
            if !self.published.pending {
                self.published.pending = self.published.key.as_ref() != Some(&self.key());
            }
        } else if self.published.pending || self.published.key.as_ref() != Some(&self.key()) {
            self.publish_now();
        }
    }

    /// Makes the snapshot current.
    pub(super) fn publish_now(&mut self) {
        let mut counters = self.counters;
        counters.dirty_bytes = self.map.dirty_bytes();
        let marks = &self.log.marks;
        let logs: Vec<LogStatus> = self.log.logs.iter().map(|l| l.span.status(marks)).collect();
        self.shared.set_snapshot(Snapshot {
            state: self.state(),
            logs,
            error: self.error.clone(),
            counters,
            size_bytes: self.size_bytes,
        });
        self.published.key = Some(self.key());
        self.published.at = Some(self.now);
        self.published.pending = false;
    }
}
