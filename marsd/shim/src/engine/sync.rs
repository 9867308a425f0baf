//! Durability: fdatasync of the log when somebody waits for it, and by itself soon after a write.

use std::time::{Duration, Instant};

use super::{Engine, Op};

/// What is in the log becomes durable after this time even if nobody asks, so that peers can be sent it.
const BACKGROUND: Duration = Duration::from_millis(40);

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
