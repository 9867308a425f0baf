//! What workers report.

use std::time::Duration;

use tokio::time::Instant;

use mars_core::link::ResourceLink;
use mars_core::plan::gap_ahead;
use mars_core::{LinkPath, LogName, ReplayPos, ResourceName};

use super::event::FetchFailed;
use super::retry::FetchFailure;
use super::{Brain, WorkEvent};
use crate::work::{FetchProgress, truncate_log};

/// Time before a sync that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// What a sync keeps open until it knows the position from which it is consistent, in bytes.
const LAST_BLOCK: u64 = 4096;

impl Brain {
    pub(super) fn apply_work(
        &mut self,
        name: ResourceName,
        run: u64,
        event: WorkEvent,
        now: Instant,
    ) {
        match event {
            WorkEvent::Applied { pos, time, bytes } => {
                let Some(res) = self.resources.get_mut(&name) else {
                    return;
                };
                let Some(log) = res
                    .replay
                    .as_ref()
                    .filter(|r| r.run == run && !r.is_void)
                    .map(|r| r.log.clone())
                else {
                    return;
                };
                res.pos = Some(ReplayPos::new(log, pos));
                res.seen.applied_time = time;
                res.seen.log_durable = None;
                res.failed = None;
                res.replay_meter.add(now, bytes);
            }
            WorkEvent::ReplayEnded {
                pos,
                at_end,
                error,
                damaged,
            } => {
                if damaged {
                    self.note_damage(&name, run, pos, error.as_deref().unwrap_or_default());
                }
                self.apply_replay_ended(&name, run, pos, at_end, error, now)
            }
            WorkEvent::BadSource { pos, cause } => {
                self.note_bad_source(&name, run, pos, cause, now)
            }
            WorkEvent::Fetched { log, size, valid } => {
                self.apply_fetched(&name, run, &log, size, valid, now)
            }
            WorkEvent::FetchEnded(log, error) => {
                self.apply_fetch_ended(&name, run, &log, error, now)
            }
            WorkEvent::Synced {
                synced,
                ok,
                bad,
                received,
            } => {
                self.apply_synced(&name, run, synced, (ok, bad), received, now);
            }
            WorkEvent::SyncEnded(result) => self.apply_sync_ended(&name, run, result, now),
            WorkEvent::NoRanges(why) => {
                let current = self.resources.get(&name).and_then(|r| r.sync.as_ref());
                if current.is_some_and(|sync| sync.run == run) {
                    self.give_up_base(&name, &why);
                }
            }
            WorkEvent::VerifyAsks(ask) => self.apply_verify_asks(&name, run, ask),
            WorkEvent::Verified(bytes) => self.apply_verified(&name, run, bytes),
            WorkEvent::VerifyEnded(result) => self.apply_verify_ended(&name, run, result),
        }
        self.dirty.insert(name);
    }

    fn apply_replay_ended(
        &mut self,
        name: &ResourceName,
        run: u64,
        pos: u64,
        at_end: bool,
        error: Option<String>,
        now: Instant,
    ) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let ended = res.replay.take_if(|r| r.run == run);
        let Some(log) = ended.filter(|r| !r.is_void).map(|r| r.log) else {
            return;
        };
        res.pos = Some(ReplayPos::new(log.clone(), pos));
        if res.damaged.as_ref() == Some(&log) {
            res.log_end = Some(pos);
        } else if let Some(why) = error {
            res.fail(name, why, now);
        } else if at_end {
            res.failed = None;
            res.log_end = Some(res.log_end.map_or(pos, |end| end.max(pos)));
            self.trim_own_log(name, &log, pos, now);
        }
        self.publish_now(name);
    }

    /// What follows the last whole record of an own log was never acknowledged as stable: it is cut off. What stands
    /// before it is made stable before it is offered.
    pub(super) fn trim_own_log(
        &mut self,
        name: &ResourceName,
        log: &LogName,
        end: u64,
        now: Instant,
    ) {
        if log.host != self.me {
            return;
        }
        let size = self.tree.resource(name).log_size(log).unwrap_or(0);
        if size > end {
            tracing::info!(resource = %name, "{log} is trimmed from {size} to {end} bytes, the end of its records");
        }
        if let Err(e) = truncate_log(&self.dir.log_path(name, log), end.min(size))
            && let Some(res) = self.resources.get_mut(name)
        {
            res.fail(name, format!("trim {log}: {e}"), now);
        }
        self.refresh_log(name, log);
    }

    fn apply_fetched(
        &mut self,
        name: &ResourceName,
        run: u64,
        log: &LogName,
        size: u64,
        valid: u64,
        now: Instant,
    ) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        if res.fetch.as_ref().is_none_or(|f| f.run != run) {
            return;
        }
        let logs = self.tree.logs.entry(name.clone()).or_default();
        let before = logs.insert(log.clone(), size).unwrap_or(0);
        if size > before {
            res.fetch_error = None;
        }
        res.fetch_meter.add(now, size.saturating_sub(before));
        res.note_valid(log, valid);
    }

    fn apply_fetch_ended(
        &mut self,
        name: &ResourceName,
        run: u64,
        log: &LogName,
        error: Option<FetchFailed>,
        now: Instant,
    ) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        if res.fetch.take_if(|f| f.run == run).is_none() {
            return;
        }
        if let Some(FetchFailed { why, is_refused }) = error {
            let failure = FetchFailure::after(res.fetch_error.as_ref(), log, &why, is_refused);
            if failure.is_new() {
                tracing::warn!(resource = %name, "fetch of {log}: {why}");
            }
            res.fetch_after = Some(now + failure.pause());
            res.fetch_error = Some(failure);
        } else {
            res.fetch_error = None;
        }
        self.refresh_log(name, log);
    }

    fn apply_synced(
        &mut self,
        name: &ResourceName,
        run: u64,
        synced: u64,
        verified: (u64, u64),
        received: u64,
        now: Instant,
    ) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let Some(sync) = res.sync.as_mut().filter(|s| s.run == run) else {
            return;
        };
        let view = self.tree.resource(name);
        // Without the end position nothing is called synced: the last block stays open until then.
        let synced = synced.min(view.size_bytes().unwrap_or(0).saturating_sub(LAST_BLOCK));
        if !sync.counts(view.sync_status(&self.me)) {
            // Invalidated meanwhile, or a new beginning.
            sync.cancel.cancel();
            return;
        }
        res.sync_meter.add(
            now,
            received
                .saturating_sub(sync.received)
                .max(synced.saturating_sub(sync.written)),
        );
        sync.received = received;
        sync.written = synced;
        res.seen.verified = Some(verified);
        let me = self.me.clone();
        self.set_link(
            LinkPath::res(name, ResourceLink::SyncStatus(me)),
            &synced.to_string(),
        );
    }

    fn apply_sync_ended(
        &mut self,
        name: &ResourceName,
        run: u64,
        result: Result<ReplayPos, String>,
        now: Instant,
    ) {
        let me = self.me.clone();
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let Some(sync) = res.sync.take_if(|s| s.run == run) else {
            return;
        };
        let view = self.tree.resource(name);
        let ahead = res
            .pos
            .as_ref()
            .and_then(|pos| gap_ahead(view, pos.log.seq, &me));
        let valid = sync.counts(view.sync_status(&me))
            && sync.gap.map(|gap| gap.seq) == ahead.map(|gap| gap.seq);
        match (result, view.size_bytes()) {
            (Ok(from), Some(size)) if valid => {
                let (ok, bad) = res.seen.verified.unwrap_or_default();
                let from = view
                    .sync_pos(&me)
                    .filter(|old| sync.gap.is_some() && old.order() > from.order())
                    .unwrap_or(from);
                tracing::info!(resource = %name, "synced: {} bytes compared, {} received; consistent from {from} on", (ok + bad) * LAST_BLOCK, sync.received);
                res.failed = None;
                let consistent = LinkPath::res(name, ResourceLink::SyncPos(me.clone()));
                // Without that link the disk would be called consistent too early: then the rest is synced again.
                if self.set_and_check(consistent, &from.to_string()) {
                    self.set_link(
                        LinkPath::res(name, ResourceLink::SyncStatus(me)),
                        &size.to_string(),
                    );
                }
            }
            (Ok(_), _) => {
                tracing::warn!(resource = %name, "the sync was overtaken by an invalidate or a new beginning, it begins again")
            }
            (Err(_), _) if self.stopping.is_some() => {}
            (Err(why), _) => {
                tracing::warn!(resource = %name, peer = %sync.peer, "sync from {}: {why}", sync.peer);
                res.sync_after = Some(now + RETRY);
            }
        }
        self.publish_now(name);
    }
}

impl super::Res {
    /// The records of `log` are whole up to `valid`: replay may go so far.
    pub(super) fn note_valid(&mut self, log: &LogName, valid: u64) {
        if self.pos.as_ref().is_none_or(|pos| pos.log != *log) {
            return;
        }
        self.log_end = Some(valid);
        if let Some(run) = self.replay.as_ref().filter(|r| r.log == *log) {
            run.end.send_modify(|p| {
                *p = FetchProgress {
                    valid,
                    size: valid,
                    ..*p
                }
            });
        }
    }
}
