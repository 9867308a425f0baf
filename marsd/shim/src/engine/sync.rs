//! Durability: fdatasync of the log when somebody waits for it, and by itself soon after a write.

use std::time::{Duration, Instant};

use super::{Engine, Op};

/// What is in the log becomes durable after this time even if nobody asks, so that peers can be sent it.
const BACKGROUND: Duration = Duration::from_millis(40);

/// After so many writes in a row that were each followed by a flush ...
const HABIT: u8 = 3;
/// ... the next one is made durable as it is written, if it is not longer than this: the flush that will come finds it done.
const HABIT_BYTES: usize = 256 * 1024;

/// Whether writes are followed by flushes, as those of somebody who syncs each of them.
#[derive(Debug, Default)]
pub(super) struct FlushHabit {
    flushed: bool,
    streak: u8,
}

impl FlushHabit {
    /// A flush was asked for.
    pub(super) fn note_flush(&mut self) {
        self.flushed = true;
    }

    /// Whether a flush is expected after the next write.
    pub(super) fn expected(&self) -> bool {
        self.flushed && self.streak >= HABIT - 1
    }

    /// A batch of `len` bytes is about to be written: should it be durable at once?
    pub(super) fn next_write(&mut self, len: usize) -> bool {
        let expected = self.expected();
        let flushed = std::mem::take(&mut self.flushed);
        self.streak = if flushed {
            self.streak.saturating_add(1)
        } else {
            0
        };
        expected && len <= HABIT_BYTES
    }
}

impl Engine {
    /// When the background flush is due.
    pub(super) fn sync_due(&self) -> Option<Instant> {
        let log = &self.log;
        let idle = log.syncing.is_some() || log.broken || log.marks.durable >= log.marks.logged;
        if idle {
            return None;
        }
        log.undurable_since.map(|since| since + BACKGROUND)
    }

    /// Starts an fdatasync if one is needed and none is in flight. It covers what is in the log now, no more.
    pub(super) fn pump_sync(&mut self) {
        let log = &mut self.log;
        if log.syncing.is_some() || log.broken || log.marks.durable >= log.marks.logged {
            return;
        }
        let durable = log.marks.durable;
        let logged = log.marks.logged;
        let wanted = self.flushes.iter().any(|(at, _)| *at <= logged)
            || self.round.as_ref().is_some_and(|r| r.waits_beyond(durable))
            || self.drain.is_some()
            || log.switching()
            || log
                .undurable_since
                .is_none_or(|since| self.now >= since + BACKGROUND);
        if !wanted {
            return;
        }
        // An older log comes first: durability has no holes.
        let oldest = log
            .logs
            .iter()
            .find(|l| l.span.end.is_none_or(|end| end > durable));
        let Some((file, target)) = oldest.and_then(|l| {
            let file = l.file.as_ref()?;
            Some((file, l.span.limit(log.marks.logged)))
        }) else {
            return;
        };
        log.syncing = Some(target);
        self.ring.datasync(Op::LogSync, file.as_ref());
    }

    pub(super) fn log_synced(&mut self, result: i32) {
        let Some(target) = self.log.syncing.take() else {
            return;
        };
        if result < 0 {
            if matches!(-result, libc::EINTR | libc::EAGAIN) {
                return;
            }
            return self.log_failed("fdatasync of", -result);
        }
        self.log_durable(target);
    }

    /// The log is on stable storage up to `target`: answers who waits for it.
    pub(super) fn log_durable(&mut self, target: u64) {
        self.log.marks.durable = target;
        self.log.undurable_since = (self.log.marks.logged > target).then_some(self.now);
        let flushes = std::mem::take(&mut self.flushes);
        let (done, waiting) = flushes.into_iter().partition(|(at, _)| *at <= target);
        self.flushes = waiting;
        for (_, unique) in done {
            self.reply(unique, 0, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_flushes_after_each_write_gets_durable_writes() {
        let mut habit = FlushHabit::default();
        let mut write = |flushes: bool, len| {
            let durable = habit.next_write(len);
            if flushes {
                habit.note_flush();
            }
            durable
        };
        let first: Vec<bool> = (0..5).map(|_| write(true, 8192)).collect();
        assert_eq!(first, [false, false, false, true, true]);
        assert!(!write(true, 1 << 20), "long ones gain nothing");
        assert!(write(false, 8192), "the flush before counts");
        assert!(!write(false, 8192), "none came");
        assert!(!write(true, 8192));
    }
}
