//! Acts on the plan of one resource: starts, stops, switches and publishes the difference.

use std::collections::BTreeMap;
use std::time::Duration;

use mars_tree::source::load_sync_source;
use tokio::time::Instant;

use mars_core::link::{ActualKey, ResourceLink};
use mars_core::plan::{
    Facts, LogOffer, Plan, ShimPlan, SwitchStep, knows_primary, plan, position_links, publish,
};
use mars_core::{HostName, LinkPath, LogName, ReplayPos, ResourceName};

use super::Brain;
use super::res::{FetchRun, Shim};

/// Time between two writes of the positions of a busy resource.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(300);

/// What the links of several nodes say together is believed when it has stood for so long.
const SETTLE: Duration = Duration::from_secs(5);

/// A fetch that has run for so long has got over what its forerunner failed of.
const FETCH_LASTS: Duration = Duration::from_secs(3);

impl Brain {
    /// Looks at one resource and does what is to be done.
    pub(super) fn drive(&mut self, name: &ResourceName, now: Instant) {
        let offers = self.offers_of(name);
        let view = self.tree.resource(name);
        let res = self.resources.entry(name.clone()).or_default();
        res.adopt_link(view, &self.me);
        if res.log_end.is_none() && matches!(res.shim, Shim::Off) {
            // A log that ends exactly at the position has nothing more to say.
            res.log_end = res
                .pos
                .as_ref()
                .and_then(|pos| view.log_size(&pos.log).filter(|size| *size == pos.pos));
        }
        if res.pos.is_none() {
            // Not (or no longer) a member.
            res.cancel_all();
            self.withdraw_logs(name);
            return;
        }
        if res.sync_source.is_none() {
            let known = load_sync_source(&self.dir.resource_dir(name));
            res.sync_source = Some(known.unwrap_or_else(|e| {
                tracing::warn!(resource = %name, "{e}");
                None
            }));
        }
        self.refresh_passed(name, now);
        self.publish_gap(name);
        let view = self.tree.resource(name);
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let facts = Facts {
            stopping: self.stopping.is_some(),
            unheard: self.unheard.is_some(),
            ..res.facts(offers, self.space, now)
        };
        if facts.stopping {
            res.verify.cancel();
        }
        let mut plan = plan(view, &facts, &self.me);
        if matches!(res.shim, Shim::Starting(_)) {
            plan = Plan::default();
        }
        res.forget_shim_failure(&plan, now);
        res.sync_elsewhere(&mut plan, now);
        let lasts = |run: &FetchRun| now >= run.since + FETCH_LASTS;
        if plan.fetch.is_none() || res.fetch.as_ref().is_some_and(lasts) {
            res.fetch_error = None;
        }
        let waiting = plan.waiting.take().or_else(|| {
            let failure = res.fetch_error.as_ref();
            failure.map(|failure| failure.shown(name))
        });
        let shim_error = match &res.shim {
            Shim::Up(up) => up.status.error.clone(),
            _ => None,
        };
        let spoilt = res.spoilt_log(view, &self.me);
        let error = plan.error.take().or(shim_error).or(spoilt);
        let error = res.visible_error(error, waiting, now);
        res.seen.error = error;
        let given_up = std::mem::take(&mut plan.discard);
        self.discard(name, given_up, now);
        self.act(name, plan, now);
        if !facts.stopping {
            self.act_verify(name, &facts, now);
        }
        self.watch_disk(name);
        self.offer_logs(name, now);
        self.publish(name, &facts, now);
        self.confirm_role(name);
    }

    /// Who takes the role over waits until this node has said what it does, knowing of it (`symlink-spec.md` section 8.4).
    fn confirm_role(&mut self, name: &ResourceName) {
        let is_settled = self.resources.get(name).is_some_and(|r| match &r.shim {
            Shim::Off | Shim::Down(..) => true,
            Shim::Up(up) => up.status.device.is_some(),
            Shim::Starting(_) => false,
        });
        if !is_settled || knows_primary(self.tree.resource(name), &self.me) {
            return;
        }
        self.publish_now(name);
        let key = ResourceLink::Actual(self.me.clone(), ActualKey::IsPrimary);
        let path = LinkPath::res(name, key);
        if let Some(value) = self.tree.get(&path).map(ToOwned::to_owned) {
            self.stamp_link(path, &value);
        }
    }

    pub(super) fn offers_of(&self, name: &ResourceName) -> BTreeMap<HostName, Vec<LogOffer>> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.conn.is_some())
            .map(|(host, peer)| {
                (
                    host.clone(),
                    peer.offers.get(name).cloned().unwrap_or_default(),
                )
            })
            .collect()
    }

    fn act(&mut self, name: &ResourceName, plan: Plan, now: Instant) {
        self.act_replay(name, plan.replay.as_ref());
        if let Some(base) = &plan.mark {
            self.mark_for_gap(name, base);
        }
        if let Some(step) = &plan.rebase {
            self.rebase(name, step);
        }
        self.act_fetch(name, plan.fetch, now);
        self.act_sync(name, plan.sync, now);
        let busy = self
            .resources
            .get(name)
            .is_some_and(|r| r.replay.is_some() || r.sync.is_some() || r.verify.holds());
        if let Some(step) = plan.switch
            && !busy
        {
            self.switch_log(name, &step);
        }
        if let Some(other) = plan.instead
            && !busy
        {
            self.stand_at(name, &other);
        }
        let stopping_only = !matches!(plan.shim, ShimPlan::Start(_) | ShimPlan::Pass(_));
        if stopping_only || !busy {
            self.act_shim(name, plan.shim, now);
        }
    }

    /// Goes from one log to the next: final links of the old, then the first of the new.
    fn switch_log(&mut self, name: &ResourceName, step: &SwitchStep) {
        tracing::info!(resource = %name, "{} ends at byte {}, {} follows", step.finished.log, step.finished.pos, step.next);
        let next = ReplayPos::new(step.next.clone(), 0);
        for (pos, end) in [(&step.finished, step.finished.pos), (&next, 0)] {
            if *pos == next && !self.bridge_gap(name, &step.finished, &step.next) {
                return;
            }
            for (link, value) in position_links(self.tree.resource(name), pos, end, &self.me) {
                self.set_link(LinkPath::res(name, link), &value);
            }
        }
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        res.pos = Some(next.clone());
        res.link = Some(next);
        res.log_end = None;
        self.dirty.insert(name.clone());
    }

    /// Goes over from the beginning of an empty log to that of another one of the same number.
    fn stand_at(&mut self, name: &ResourceName, other: &LogName) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let Some(old) = res.pos.take().map(|pos| pos.log) else {
            return;
        };
        tracing::info!(resource = %name, "nothing was written to {old}: {other} takes its place");
        let pos = ReplayPos::new(other.clone(), 0);
        res.pos = Some(pos.clone());
        res.link = Some(pos.clone());
        res.log_end = None;
        for (link, value) in position_links(self.tree.resource(name), &pos, 0, &self.me) {
            self.set_link(LinkPath::res(name, link), &value);
        }
        self.remove_log(name, &old);
        self.dirty.insert(name.clone());
    }

    /// Removes copies of logs of a history that was given up, if they have been that for a while: links arrive one after
    /// the other.
    fn discard(&mut self, name: &ResourceName, logs: Vec<LogName>, now: Instant) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        if logs.is_empty() {
            res.given_up = None;
            return;
        }
        match &res.given_up {
            Some((known, since)) if *known == logs => {
                if now < *since + SETTLE {
                    return;
                }
            }
            _ => {
                res.given_up = Some((logs, now));
                return;
            }
        }
        for log in logs {
            tracing::warn!(resource = %name, "{log} is removed here: its history was given up");
            self.remove_log(name, &log);
        }
    }

    fn remove_log(&mut self, name: &ResourceName, log: &LogName) {
        match self.dir.remove_log(name, log) {
            Ok(()) => self.board.forget(name, log),
            Err(e) => self.warn_once(&log.to_string(), &e.to_string()),
        }
        self.refresh_log(name, log);
    }

    /// Tells the sync server about the disk.
    fn watch_disk(&mut self, name: &ResourceName) {
        let view = self.tree.resource(name);
        let consistent = mars_core::plan::is_consistent(view, &self.me);
        let Some(disk) = view.data(&self.me).map(ToOwned::to_owned) else {
            return;
        };
        let size = view.size_bytes().unwrap_or(0);
        self.sources
            .set(name, disk.clone().into(), size, consistent);
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        if res.seen.disk_bytes.is_none() {
            res.seen.disk_bytes = crate::disk::size_bytes(std::path::Path::new(&disk)).ok();
        }
    }

    fn publish(&mut self, name: &ResourceName, facts: &Facts, now: Instant) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        res.seen.fetching = res.fetch.is_some();
        let due = res
            .published_at
            .is_none_or(|at| now >= at + PUBLISH_INTERVAL);
        if !due {
            return;
        }
        res.published_at = Some(now);
        res.seen.replay_rate = res.replay_meter.rate(now);
        res.seen.file_rate = res.fetch_meter.rate(now);
        res.seen.sync_rate = res.sync_meter.rate(now);
        let facts = Facts {
            pos: res.pos.clone(),
            syncing: res.sync.is_some(),
            ..facts.clone()
        };
        self.write_published(name, &facts);
    }

    /// Publishes at once, at a turn of events.
    pub(super) fn publish_now(&mut self, name: &ResourceName) {
        let Some(res) = self.resources.get(name) else {
            return;
        };
        let facts = res.facts(BTreeMap::new(), self.space, Instant::now());
        self.write_published(name, &facts);
    }

    fn write_published(&mut self, name: &ResourceName, facts: &Facts) {
        let Some(res) = self.resources.get(name) else {
            return;
        };
        let links = publish(self.tree.resource(name), facts, &res.seen, &self.me);
        for (link, value) in links {
            self.set_link(LinkPath::res(name, link), &value);
        }
        if let Some(res) = self.resources.get_mut(name)
            && self.tree.resource(name).replay(&self.me) == res.pos
        {
            res.link.clone_from(&res.pos);
        }
    }
}
