//! What the brain keeps of one resource: positions, runs of workers, the shim.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use mars_core::control::{Request, Resume, ShimStatus, Verb};
use mars_core::plan::{Facts, GapSync, LogOffer, Plan, Published, ShimFacts, ShimPlan, SyncFrom};
use mars_core::{HostName, LogName, ReplayPos, ReplayPos as Pos, ResourceName, ResourceView};
use mars_tree::control_socket::ControlSocket;
use tokio::sync::{oneshot, watch};

use super::Space;
use super::damage::{BadLog, SpoiltLog};
use super::retry::FetchFailure;
use super::verify::Verify;
use crate::shims::FIRST_BRAIN_ID;
use crate::work::{Cancel, FetchProgress, RateMeter};

/// How long the node waits before it tries again what failed.
const RETRY: Duration = Duration::from_secs(10);
/// How long a condition may be waited for before it is shown as an error.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the peer to sync from may be unusable before another one is taken and the sync begins anew.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);

/// Who asked for the end position of a sync.
pub(super) type PositionQuery = oneshot::Sender<Result<Pos, String>>;

/// The shim as the brain sees it.
#[derive(Debug, Default)]
pub(super) enum Shim {
    /// None.
    #[default]
    Off,
    /// Being started or adopted.
    Starting(Option<(Resume, OwnedFd)>),
    /// Connected.
    Up(Box<ShimUp>),
    /// Dead, its device held.
    Down(Resume, OwnedFd),
}

/// A connected shim.
#[derive(Debug)]
pub(super) struct ShimUp {
    name: ResourceName,
    pub(super) socket: Arc<ControlSocket>,
    pub(super) status: ShimStatus,
    pub(super) hold: Option<(Resume, OwnedFd)>,
    next_id: u64,
    /// The one request that changes something and is not yet answered.
    pub(super) pending: Option<u64>,
    /// Whether that request is to stop.
    pub(super) stopping: bool,
    /// No further request of that kind before this time.
    pub(super) quiet_until: Option<Instant>,
    pub(super) stopped: bool,
    /// The daemon ends, and the device is in use: the shim goes on without it.
    pub(super) kept: bool,
    pub(super) queries: BTreeMap<u64, PositionQuery>,
}

impl ShimUp {
    pub(super) fn new(
        name: ResourceName,
        socket: Arc<ControlSocket>,
        status: ShimStatus,
        hold: Option<(Resume, OwnedFd)>,
    ) -> Self {
        Self {
            name,
            socket,
            status,
            hold,
            next_id: FIRST_BRAIN_ID,
            pending: None,
            stopping: false,
            quiet_until: None,
            stopped: false,
            kept: false,
            queries: BTreeMap::new(),
        }
    }

    /// Whether nothing may be asked of it now.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let later = self.quiet_until.is_some_and(|t| now < t);
        self.pending.is_some() || self.stopped || self.kept || later
    }

    /// Sends a request and returns its id; a failure shows as the end of the connection.
    pub(super) fn send(&mut self, verb: Verb) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if let Err(e) = self.socket.send(&Request { id, verb }, None) {
            tracing::warn!(resource = %self.name, "{e}");
        }
        id
    }
}

/// A running replay.
#[derive(Debug)]
pub(super) struct ReplayRun {
    pub(super) run: u64,
    /// Somebody has set the position anew: what this run still reports does not count.
    pub(super) is_void: bool,
    pub(super) log: LogName,
    pub(super) end: watch::Sender<FetchProgress>,
    pub(super) cancel: Cancel,
}

/// A running fetch.
#[derive(Debug)]
pub(super) struct FetchRun {
    pub(super) run: u64,
    pub(super) log: LogName,
    pub(super) peer: HostName,
    pub(super) since: Instant,
    pub(super) cancel: Cancel,
}

/// A running sync.
#[derive(Debug)]
pub(super) struct SyncRun {
    pub(super) run: u64,
    pub(super) peer: HostName,
    pub(super) gap: Option<GapSync>,
    pub(super) cancel: Cancel,
    /// Value of `syncstatus` as this run wrote it last; anything else there means: throw the progress away.
    pub(super) written: u64,
    pub(super) received: u64,
    /// What it has done does not count, though `syncstatus` may have the same value as before.
    pub(super) is_void: bool,
}

impl SyncRun {
    /// Whether what it reports counts while `status` stands in `syncstatus`.
    pub(super) fn counts(&self, status: Option<u64>) -> bool {
        !self.is_void && status == Some(self.written)
    }
}

/// One resource.
#[derive(Debug, Default)]
pub(super) struct Res {
    pub(super) pos: Option<ReplayPos>,
    /// The replay link as this node wrote or adopted it last.
    pub(super) link: Option<ReplayPos>,
    pub(super) log_end: Option<u64>,
    pub(super) shim: Shim,
    pub(super) shim_gen: u64,
    pub(super) shim_tries: u32,
    pub(super) replay: Option<ReplayRun>,
    pub(super) fetch: Option<FetchRun>,
    pub(super) sync: Option<SyncRun>,
    pub(super) verify: Verify,
    pub(super) runs: u64,
    pub(super) failed: Option<(String, Instant)>,
    /// That was the shim.
    pub(super) shim_failed: bool,
    pub(super) waiting: Option<(String, Instant)>,
    pub(super) fetch_after: Option<Instant>,
    pub(super) fetch_error: Option<FetchFailure>,
    /// A log whose copy here is damaged behind the position: to be fetched again.
    pub(super) damaged: Option<LogName>,
    /// A log of which peers have sent what is no record.
    pub(super) bad: Option<BadLog>,
    /// Logs of this node that others cannot get from it.
    pub(super) spoilt: Option<SpoiltLog>,
    pub(super) sync_after: Option<Instant>,
    /// Why no data may be transferred now.
    pub(super) paused: Option<String>,
    /// From whom was synced last, once it was looked up.
    pub(super) sync_source: Option<Option<HostName>>,
    /// Since when the peer to sync from cannot be read from, though another can.
    pub(super) sync_blocked: Option<Instant>,
    /// The log of the position that was last looked for, and the log behind which writes went past the logs.
    pub(super) passed: Option<(LogName, Option<LogName>)>,
    /// Copies of logs of a history that was given up, and since when they are just these.
    pub(super) given_up: Option<(Vec<LogName>, Instant)>,
    pub(super) seen: Published,
    pub(super) replay_meter: RateMeter,
    pub(super) fetch_meter: RateMeter,
    pub(super) sync_meter: RateMeter,
    pub(super) published_at: Option<Instant>,
    pub(super) offered_at: Option<Instant>,
    pub(super) offered: Vec<LogOffer>,
}

impl Res {
    /// A new number for a run of a worker.
    pub(super) fn next_run(&mut self) -> u64 {
        self.runs += 1;
        self.runs
    }

    /// Takes over a replay link that somebody else wrote: joined, invalidated, or this daemon was just started.
    pub(super) fn adopt_link(&mut self, view: ResourceView<'_>, me: &HostName) {
        let link = if view.size_bytes().is_some() && view.data(me).is_some() {
            view.replay(me)
        } else {
            None
        };
        let changed = link != self.link;
        self.link.clone_from(&link);
        let idle = matches!(self.shim, Shim::Off);
        // A shim that was adopted and has no log does not tell where the disk stands.
        let untold = self.pos.is_none() && matches!(self.shim, Shim::Off | Shim::Up(_));
        if (idle && changed) || untold {
            self.stop_replay();
            self.pos = link;
            self.log_end = None;
            self.failed = None;
        }
    }

    /// Turns to another peer for the sync if the one that is meant stays unusable.
    pub(super) fn sync_elsewhere(&mut self, plan: &mut Plan, now: Instant) {
        let Some(peer) = plan.sync_elsewhere.take() else {
            self.sync_blocked = None;
            return;
        };
        let since = *self.sync_blocked.get_or_insert(now);
        if now >= since + SYNC_PATIENCE {
            plan.waiting = None;
            plan.replay = None;
            plan.switch = None;
            plan.shim = ShimPlan::Keep;
            plan.sync = Some(SyncFrom {
                peer,
                start: 0,
                gap: None,
            });
        }
    }

    /// The log behind which the writes of this node went past the logs.
    pub(super) fn passed_log(&self) -> Option<LogName> {
        self.passed.as_ref().and_then(|(_, log)| log.clone())
    }

    /// Stops the replay, whose position does not count any more; it reports its end.
    pub(super) fn stop_replay(&mut self) {
        if let Some(run) = &mut self.replay {
            run.is_void = true;
            run.cancel.cancel();
        }
    }

    /// Stops the sync, whose progress does not count any more, also what it has not yet reported; it reports its end.
    pub(super) fn stop_sync(&mut self) {
        if let Some(run) = &mut self.sync {
            run.is_void = true;
            run.cancel.cancel();
        }
    }

    /// The facts for planning.
    pub(super) fn facts(
        &self,
        offers: BTreeMap<HostName, Vec<LogOffer>>,
        space: Space,
        now: Instant,
    ) -> Facts {
        let shim = match &self.shim {
            Shim::Off | Shim::Starting(_) => ShimFacts::Off,
            Shim::Up(up) => ShimFacts::Up(up.status.clone()),
            Shim::Down(resume, _) => ShimFacts::Down(resume.clone()),
        };
        let failed = self
            .failed
            .as_ref()
            .filter(|(_, since)| now < *since + RETRY)
            .map(|(why, _)| why.clone());
        let at = self.pos.as_ref().map(|pos| &pos.log);
        Facts {
            pos: self.pos.clone(),
            log_end: self.log_end,
            shim,
            syncing: self.sync.is_some(),
            replaying: self.replay.is_some(),
            sync_source: self.sync_source.clone().flatten(),
            fetching: self
                .fetch
                .as_ref()
                .map(|run| (run.log.clone(), run.peer.clone())),
            verifying: self.verify.holds(),
            damaged: self.damaged.is_some() && self.damaged.as_ref() == at,
            bad_copies: self.bad_copies(at, now),
            offers,
            failed,
            paused: self.paused.clone(),
            exhausted: space.exhausted,
            full: space.full,
            passed: self.passed_log(),
            stopping: false,
            unheard: false,
        }
    }

    /// Notes that something failed: it is shown, and tried again later.
    pub(super) fn fail(&mut self, res: &ResourceName, why: String, now: Instant) {
        if self.failed.as_ref().is_none_or(|(old, _)| *old != why) {
            tracing::error!(resource = %res, "{why}");
        }
        self.failed = Some((why, now));
        self.shim_failed = false;
    }

    /// As [`Self::fail`], of the shim.
    pub(super) fn fail_shim(&mut self, res: &ResourceName, why: String, now: Instant) {
        self.fail(res, why, now);
        self.shim_failed = true;
    }

    /// A shim that is not wanted any more has not failed.
    pub(super) fn forget_shim_failure(&mut self, plan: &Plan, now: Instant) {
        let is_over = self
            .failed
            .as_ref()
            .is_some_and(|(_, since)| now >= *since + RETRY);
        let is_wanted = matches!(plan.shim, ShimPlan::Start(_) | ShimPlan::Pass(_));
        if self.shim_failed && is_over && !is_wanted && matches!(self.shim, Shim::Off) {
            self.failed = None;
        }
    }

    /// The error to be shown: a failure, or a condition that has been waited for too long.
    pub(super) fn visible_error(
        &mut self,
        error: Option<String>,
        waiting: Option<String>,
        now: Instant,
    ) -> Option<String> {
        match waiting {
            Some(why) => match &self.waiting {
                Some((old, _)) if *old == why => {}
                _ => self.waiting = Some((why, now)),
            },
            None => self.waiting = None,
        }
        let patient = self
            .waiting
            .as_ref()
            .filter(|(_, since)| now >= *since + PATIENCE)
            .map(|(why, _)| why.clone());
        error
            .or_else(|| self.failed.as_ref().map(|(why, _)| why.clone()))
            .or(patient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stopped_sync_reports_late_does_not_count_where_the_new_one_begins() {
        let mut res = Res {
            sync: Some(SyncRun {
                run: 1,
                peer: HostName::new("A").unwrap(),
                gap: None,
                cancel: Cancel::new(),
                written: 0,
                received: 0,
                is_void: false,
            }),
            ..Res::default()
        };
        let counts = |res: &Res, status| res.sync.as_ref().unwrap().counts(Some(status));
        assert!(counts(&res, 0) && !counts(&res, 4096));
        res.stop_sync();
        assert!(!counts(&res, 0));
        assert!(res.sync.unwrap().cancel.is_cancelled());
    }
}
