//! Starts and stops the workers of a resource.

use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

use mars_core::link::ResourceLink;
use mars_core::log_format::LogTime;
use mars_core::plan::SyncFrom;
use mars_core::{HostName, LinkPath, LogName, ReplayPos, ResourceName};
use mars_tree::passed::load_passed;
use mars_tree::source::store_sync_source;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tracing::Instrument;

use super::event::FetchFailed;
use super::res::{FetchRun, ReplayRun, SyncRun};
use super::{Brain, Event, WorkEvent};
use crate::net::{PeerConn, StreamRequest};
use crate::work::{
    Cancel, FetchError, FetchJob, FetchProgress, ReplayControl, ReplayError, ReplayJob,
    ReplayReason, ReplayUntil, SyncError, SyncJob, SyncProgress, Throttled, Traffic, fetch,
    prepare_fetch, replay, sync,
};

/// Shortest time between two reports of a fetch: with each one everything about the resource is looked at again.
const FETCH_PAUSE: Duration = Duration::from_millis(10);

/// Where a worker reports to, and as which run.
#[derive(Clone)]
pub(super) struct Reporter {
    pub(super) events: UnboundedSender<Event>,
    pub(super) res: ResourceName,
    pub(super) run: u64,
}

impl Reporter {
    pub(super) fn send(&self, event: WorkEvent) {
        // Nobody listens only when the daemon ends.
        let _ = self
            .events
            .send(Event::Work(self.res.clone(), self.run, event));
    }
}

impl Brain {
    /// Runs a replay from `want`, or none.
    pub(super) fn act_replay(&mut self, name: &ResourceName, want: Option<&ReplayPos>) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        match (&res.replay, want) {
            (Some(run), Some(pos)) if run.log == pos.log => {}
            (Some(run), _) => run.cancel.cancel(),
            (None, Some(pos)) if res.sync.is_none() && !res.verify.holds() => {
                self.start_replay(name, pos.clone())
            }
            (None, _) => {}
        }
    }

    fn start_replay(&mut self, name: &ResourceName, pos: ReplayPos) {
        if pos.log.host == self.me && self.skip_passed(name, &pos) {
            return;
        }
        let view = self.tree.resource(name);
        let (Some(disk), Some(size)) = (view.data(&self.me), view.size_bytes()) else {
            return;
        };
        let file_size = view.log_size(&pos.log).unwrap_or(0);
        let own = pos.log.host == self.me;
        // A hole in the own log before the last published position is damage, behind it the tail of a crash.
        let safe = view.version(pos.log.seq, &self.me).map_or(0, |v| v.pos);
        let batch = self.replay_batch();
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let (end, follow) = watch::channel(FetchProgress::default());
        let until = match res.log_end {
            Some(valid) => {
                end.send_modify(|p| {
                    *p = FetchProgress {
                        valid,
                        size: valid,
                        ..*p
                    }
                });
                ReplayUntil::Follow(follow)
            }
            None => ReplayUntil::Fixed(file_size),
        };
        let job = ReplayJob {
            log_path: self.dir.log_path(name, &pos.log),
            log: pos.log.clone(),
            disk_path: PathBuf::from(disk),
            disk_size: size,
            from: pos.pos,
            until,
            batch,
        };
        let cancel = Cancel::new();
        let run = res.next_run();
        res.replay = Some(ReplayRun {
            run,
            is_void: false,
            log: pos.log,
            end,
            cancel: cancel.clone(),
        });
        let reporter = Reporter {
            events: self.events.clone(),
            res: name.clone(),
            run,
        };
        let tail = own.then_some(safe);
        let about = tracing::error_span!("replay", resource = %name);
        tokio::task::spawn_blocking(move || {
            about.in_scope(|| run_replay(job, cancel, &reporter, tail));
        });
    }

    /// After pass-through the disk is newer than the own logs before the mark: they are not applied again, and the
    /// position goes behind them (`symlink-spec.md` section 8.6). Tells whether nothing is to be replayed now.
    fn skip_passed(&mut self, name: &ResourceName, pos: &ReplayPos) -> bool {
        let mark = load_passed(&self.dir.resource_dir(name), &pos.log);
        let Some(res) = self.resources.get_mut(name) else {
            return true;
        };
        match mark {
            Ok(Some((log, end))) if (log.seq, end) > pos.order() => {
                tracing::warn!(resource = %name, "writes behind {log} byte {end} went past the logs: nothing before it is replayed");
                res.pos = Some(ReplayPos::new(log.clone(), end));
                res.log_end = Some(end);
                self.trim_own_log(name, &log, end, Instant::now());
                self.publish_now(name);
                self.dirty.insert(name.clone());
                true
            }
            Ok(_) => false,
            Err(e) => {
                res.fail(name, e.to_string(), Instant::now());
                true
            }
        }
    }

    /// Fetches `want`, or nothing.
    pub(super) fn act_fetch(
        &mut self,
        name: &ResourceName,
        want: Option<(LogName, HostName)>,
        now: Instant,
    ) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        match (&res.fetch, want) {
            (Some(run), Some((log, peer))) if run.log == log && run.peer == peer => {}
            (Some(run), _) => run.cancel.cancel(),
            (None, Some((log, peer))) if res.fetch_after.is_none_or(|t| now >= t) => {
                self.start_fetch(name, log, peer)
            }
            (None, _) => {}
        }
    }

    fn start_fetch(&mut self, name: &ResourceName, log: LogName, peer: HostName) {
        let Some(conn) = self.peers.get(&peer).and_then(|p| p.conn.clone()) else {
            return;
        };
        let path = self.dir.log_path(name, &log);
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let boundary = res
            .pos
            .as_ref()
            .filter(|pos| pos.log == log)
            .map_or(0, |pos| pos.pos);
        let (cancel, run) = (Cancel::new(), res.next_run());
        res.seen.fetched_once = true;
        // What is not valid behind the position is cut off before anything is asked for.
        res.damaged.take_if(|damaged| *damaged == log);
        res.fetch = Some(FetchRun {
            run,
            log: log.clone(),
            peer,
            since: Instant::now(),
            cancel: cancel.clone(),
        });
        let reporter = Reporter {
            events: self.events.clone(),
            res: name.clone(),
            run,
        };
        let traffic = self.transfer.traffic(name);
        let about = tracing::error_span!("fetch", resource = %name, peer = %conn.peer());
        let work = async move {
            let path = (path, boundary);
            let result = run_fetch(&conn, path, traffic, &log, cancel, &reporter).await;
            reporter.send(WorkEvent::FetchEnded(log, result.err()));
        };
        tokio::spawn(work.instrument(about));
    }

    /// Syncs from `want`, or not.
    pub(super) fn act_sync(&mut self, name: &ResourceName, want: Option<SyncFrom>, now: Instant) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        match (&res.sync, want) {
            (Some(run), Some(from))
                if run.peer == from.peer && run.written == from.start && run.gap == from.gap => {}
            (Some(run), _) => run.cancel.cancel(),
            (None, Some(from))
                if res.replay.is_none()
                    && !res.verify.holds()
                    && res.sync_after.is_none_or(|t| now >= t) =>
            {
                self.start_sync(name, from);
            }
            (None, _) => {}
        }
    }

    /// Stores from whom a sync comes. What came from another node does not count any more.
    fn begin_sync(&mut self, name: &ResourceName, peer: &HostName, start: u64) -> bool {
        let status = LinkPath::res(name, ResourceLink::SyncStatus(self.me.clone()));
        if start == 0 {
            self.set_link(status, "0");
        }
        let dir = self.dir.resource_dir(name);
        let Some(res) = self.resources.get_mut(name) else {
            return false;
        };
        let known = res.sync_source.clone().flatten();
        if known.as_ref() == Some(peer) {
            return true;
        }
        match store_sync_source(&dir, peer) {
            Ok(()) => res.sync_source = Some(Some(peer.clone())),
            Err(e) => {
                res.fail(name, e.to_string(), Instant::now());
                return false;
            }
        }
        true
    }

    fn start_sync(&mut self, name: &ResourceName, from: SyncFrom) {
        let SyncFrom { peer, start, gap } = from;
        // Where a sync begins depends on what the source says of itself now.
        let known = self.peers.get(&peer);
        let known = known.filter(|p| p.heard_since.is_some() || start > 0 || gap.is_some());
        let Some(conn) = known.and_then(|p| p.conn.clone()) else {
            return;
        };
        let view = self.tree.resource(name);
        let (Some(disk), Some(size)) = (view.data(&self.me), view.size_bytes()) else {
            return;
        };
        let disk_path = PathBuf::from(disk);
        if !self.begin_sync(name, &peer, start) {
            return;
        }
        let ahead = self.sync_ahead();
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let (cancel, run) = (Cancel::new(), res.next_run());
        res.seen.synced_once = true;
        tracing::info!(resource = %name, peer = %peer, "sync from {peer} begins at byte {start} of {size}");
        res.sync = Some(SyncRun {
            run,
            peer,
            gap,
            cancel: cancel.clone(),
            written: start,
            received: 0,
            is_void: false,
        });
        let reporter = Reporter {
            events: self.events.clone(),
            res: name.clone(),
            run,
        };
        let resource = name.clone();
        let request = match gap {
            Some(gap) => StreamRequest::SyncGap {
                resource,
                gap: gap.seq,
            },
            None => StreamRequest::Sync { resource },
        };
        let job = SyncJob {
            ranges_to: gap.map(|gap| gap.synced),
            disk_path,
            size_bytes: size,
            start,
            peer: conn.peer().to_string(),
            ahead,
            silence: conn.context().silence(),
            cancel,
        };
        let traffic = self.transfer.traffic(name);
        let about = tracing::error_span!("sync", resource = %name, peer = %conn.peer());
        let work = async move {
            let result = run_sync(&conn, &request, job, traffic, &reporter).await;
            reporter.send(WorkEvent::SyncEnded(result));
        };
        tokio::spawn(work.instrument(about));
    }
}

fn run_replay(job: ReplayJob, cancel: Cancel, reporter: &Reporter, tail: Option<u64>) {
    let from = job.from;
    let mut reached = from;
    let result = replay(job, ReplayControl::new(cancel), |report| {
        reached = report.pos;
        let time = report.stamp.unwrap_or(LogTime::default());
        reporter.send(WorkEvent::Applied {
            pos: report.pos,
            time,
            bytes: report.bytes,
        });
    });
    let ended = match result {
        Ok(end) => WorkEvent::ReplayEnded {
            pos: end.pos,
            at_end: end.reason == ReplayReason::CaughtUp,
            error: None,
            damaged: false,
        },
        Err(ReplayError::Invalid { pos, cause, .. }) if tail.is_some_and(|safe| pos >= safe) => {
            tracing::info!("the own log ends at byte {pos}: {cause}");
            WorkEvent::ReplayEnded {
                pos: reached,
                at_end: true,
                error: None,
                damaged: false,
            }
        }
        Err(e) => WorkEvent::ReplayEnded {
            pos: reached,
            at_end: false,
            error: Some(e.to_string()),
            damaged: matches!(
                e,
                ReplayError::Invalid { .. } | ReplayError::Short { .. } | ReplayError::Log { .. }
            ),
        },
    };
    reporter.send(ended);
}

async fn run_fetch(
    conn: &PeerConn,
    (path, boundary): (PathBuf, u64),
    traffic: Traffic,
    log: &LogName,
    cancel: Cancel,
    reporter: &Reporter,
) -> Result<(), FetchFailed> {
    let copy = path.clone();
    let failed = |why: String| FetchFailed {
        why,
        is_refused: false,
    };
    let prepared = tokio::task::spawn_blocking(move || prepare_fetch(&copy, boundary))
        .await
        .map_err(|e| failed(e.to_string()))?
        .map_err(|e| failed(format!("{}: {e}", path.display())))?;
    if let Some((pos, cause)) = prepared.invalid {
        tracing::error!(
            "{} is damaged at byte {pos}: {cause}; fetched again from there",
            path.display()
        );
    }
    let from = prepared.from;
    let request = StreamRequest::Fetch {
        resource: reporter.res.clone(),
        log: log.clone(),
        from,
    };
    let stream = conn.open(&request).await;
    let stream = stream.map_err(|e| failed(e.to_string()))?;
    let (progress, mut seen) = watch::channel(FetchProgress {
        size: from,
        valid: from,
        ..FetchProgress::default()
    });
    let (follow, name) = (reporter.clone(), log.clone());
    reporter.send(WorkEvent::Fetched {
        log: log.clone(),
        size: from,
        valid: from,
    });
    let follower = tokio::spawn(async move {
        while seen.changed().await.is_ok() {
            let FetchProgress { size, valid, .. } = *seen.borrow_and_update();
            follow.send(WorkEvent::Fetched {
                log: name.clone(),
                size,
                valid,
            });
            tokio::time::sleep(FETCH_PAUSE).await;
        }
    });
    let job = FetchJob {
        path,
        from,
        peer: conn.peer().to_string(),
        silence: conn.context().silence(),
        cancel,
    };
    let result = fetch(Throttled::new(stream, traffic), job, &progress).await;
    drop(progress);
    // The last progress is reported before the end.
    let _ = follower.await;
    if let Err(FetchError::Invalid { pos, cause, .. }) = &result {
        reporter.send(WorkEvent::BadSource {
            pos: *pos,
            cause: cause.to_string(),
        });
    }
    result.map(drop).map_err(|e| FetchFailed {
        why: e.to_string(),
        is_refused: matches!(e, FetchError::Refused { .. }),
    })
}

async fn run_sync(
    conn: &PeerConn,
    request: &StreamRequest,
    job: SyncJob,
    traffic: Traffic,
    reporter: &Reporter,
) -> Result<ReplayPos, String> {
    let stream = conn.open(request).await.map_err(|e| e.to_string())?;
    let (progress, mut seen) = watch::channel(SyncProgress::default());
    let follow = reporter.clone();
    let follower = tokio::spawn(async move {
        while seen.changed().await.is_ok() {
            let p = *seen.borrow_and_update();
            let (ok, bad, received) = (p.ok_blocks, p.bad_blocks, p.bytes_received);
            follow.send(WorkEvent::Synced {
                synced: p.synced,
                ok,
                bad,
                received,
            });
        }
    });
    let result = sync(Throttled::new(stream, traffic), job, &progress).await;
    drop(progress);
    let _ = follower.await;
    if let Err(e @ SyncError::NoRanges { .. }) = &result {
        reporter.send(WorkEvent::NoRanges(e.to_string()));
    }
    result
        .map_err(|e| e.to_string())?
        .consistent_from
        .ok_or_else(|| "stopped".to_owned())
}
