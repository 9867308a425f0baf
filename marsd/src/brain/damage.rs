//! Logs that are damaged or gone: fetched again a few times, named where that does not help, and left behind by the node that
//! writes them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use mars_core::control::ShimState;
use mars_core::plan::BadCopy;
use mars_core::{HostName, LogName, ResourceName, ResourceView};

use super::Brain;
use super::res::{Res, Shim};

/// A copy that was the same nonsense so many times in a row will not get better by itself.
const TRIES: u32 = 3;
/// Time before such a copy is asked for again: somebody may have mended it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A log of which peers have sent what is no record.
#[derive(Debug)]
pub(super) struct BadLog {
    log: LogName,
    copies: BTreeMap<HostName, Copy>,
}

#[derive(Debug)]
struct Copy {
    at: u64,
    cause: String,
    tries: u32,
    last: Instant,
}

/// A log of this node that others cannot get from it beyond a byte.
#[derive(Debug)]
pub(super) struct SpoiltLog {
    log: LogName,
    at: u64,
    why: String,
}

impl Res {
    /// What is known of damaged copies of the log `at`.
    pub(super) fn bad_copies(
        &self,
        at: Option<&LogName>,
        now: Instant,
    ) -> BTreeMap<HostName, BadCopy> {
        let bad = self.bad.iter().filter(|bad| Some(&bad.log) == at);
        bad.flat_map(|bad| &bad.copies)
            .map(|(peer, copy)| {
                let is_proven = copy.tries >= TRIES;
                let fact = BadCopy {
                    at: copy.at,
                    cause: copy.cause.clone(),
                    is_proven,
                    rests: is_proven && now < copy.last + LOOK_AGAIN,
                };
                (peer.clone(), fact)
            })
            .collect()
    }

    /// Why members cannot get past a log of this node, as long as one of them stands before the damage.
    pub(super) fn spoilt_log(&mut self, view: ResourceView<'_>, me: &HostName) -> Option<String> {
        let spoilt = self.spoilt.as_ref()?;
        let (border, name) = ((spoilt.log.seq, spoilt.at), view.name());
        let mut others = view.replays().into_iter().filter(|(host, _)| *host != me);
        if !others.any(|(_, at)| at.order() <= border) {
            self.spoilt = None;
            return None;
        }
        Some(format!(
            "{}: who has not yet replayed it cannot do so any more; repair: 'marsadm invalidate-remote {name}', \
             and look at the disk of the tree",
            spoilt.why
        ))
    }
}

impl Brain {
    /// The copy of a log is damaged behind `pos`. If a peer has the log, it is fetched again from there.
    pub(super) fn note_damage(&mut self, name: &ResourceName, run: u64, pos: u64, why: &str) {
        let offers = self.offers_of(name);
        let me = self.me.clone();
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let current = res.replay.as_ref().filter(|r| r.run == run && !r.is_void);
        let log = current.map(|r| &r.log);
        let Some(log) = log.filter(|log| log.host != me).cloned() else {
            return;
        };
        if !offers
            .values()
            .flatten()
            .any(|o| o.log == log && o.durable > pos)
        {
            return;
        }
        tracing::error!(resource = %name, "{why}; the copy is fetched again from there");
        if let Some(fetch) = res.fetch.as_ref().filter(|f| f.log == log) {
            fetch.cancel.cancel();
        }
        res.damaged = Some(log);
    }

    /// The peer that a log is being fetched from has a damaged copy.
    pub(super) fn note_bad_source(
        &mut self,
        name: &ResourceName,
        run: u64,
        at: u64,
        cause: String,
        now: Instant,
    ) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let Some(fetch) = res.fetch.as_ref().filter(|f| f.run == run) else {
            return;
        };
        let (log, peer) = (fetch.log.clone(), fetch.peer.clone());
        if res.bad.as_ref().is_none_or(|bad| bad.log != log) {
            let copies = BTreeMap::new();
            res.bad = Some(BadLog {
                log: log.clone(),
                copies,
            });
        }
        let Some(bad) = &mut res.bad else { return };
        let before = bad.copies.get(&peer).filter(|copy| copy.at == at);
        let tries = before.map_or(0, |copy| copy.tries).saturating_add(1);
        if tries == TRIES {
            tracing::error!(resource = %name, peer = %peer, "{log} is damaged at byte {at} on {peer} ({cause}), {tries} times in a row: it is left alone for {} s", LOOK_AGAIN.as_secs());
        }
        let copy = Copy {
            at,
            cause,
            tries,
            last: now,
        };
        bad.copies.insert(peer, copy);
    }

    /// A logfile has vanished: who still works on it would work on nothing.
    pub(super) fn lose_log(&mut self, name: &ResourceName, log: &LogName) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        if let Some(fetch) = res.fetch.as_ref().filter(|f| f.log == *log) {
            fetch.cancel.cancel();
        }
        if let Some(replay) = res.replay.as_ref().filter(|r| r.log == *log) {
            replay.cancel.cancel();
        }
        if matches!(res.shim, Shim::Off) && res.pos.as_ref().is_some_and(|pos| pos.log == *log) {
            res.log_end = None;
        }
        if res.is_writing(log) {
            self.leave_log(name, log, u64::MAX, format!("{log} is missing"));
        }
    }

    /// A peer could not use what it was sent of a log, and the file here is damaged indeed.
    pub(super) fn note_spoilt(&mut self, name: &ResourceName, log: &LogName, at: u64, why: &str) {
        if log.host != self.me {
            let text = format!("is damaged at byte {at}: {why}");
            return self.warn_once(&format!("resource-{name}/{log}"), &text);
        }
        self.leave_log(
            name,
            log,
            at,
            format!("{log} is damaged at byte {at} ({why})"),
        );
    }

    /// Others cannot get from this node what stands in its log from byte `at` on. A new log is begun, so that a sync
    /// need not rely on that one.
    fn leave_log(&mut self, name: &ResourceName, log: &LogName, at: u64, why: String) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        if res
            .spoilt
            .as_ref()
            .is_some_and(|s| s.log == *log && s.at == at)
        {
            return;
        }
        tracing::error!(resource = %name, "{why}");
        let writing = res.is_writing(log);
        res.spoilt = Some(SpoiltLog {
            log: log.clone(),
            at,
            why,
        });
        let next = LogName::new(log.seq + 1, &self.me);
        if writing && self.tree.resource(name).log_size(&next).is_none() {
            self.begin_log(name, &next);
        }
        self.dirty.insert(name.clone());
    }
}

impl Res {
    /// Whether the shim appends to this log.
    fn is_writing(&self, log: &LogName) -> bool {
        let Shim::Up(up) = &self.shim else {
            return false;
        };
        let newest = up.status.logs.last().map(|status| &status.log);
        up.status.state == ShimState::Logging && newest == Some(log)
    }
}
