//! Writes past the logs: published as gaps by the primary, crossed by the others (`symlink-spec.md` section 8.6).

use tokio::time::Instant;

use mars_core::control::ShimState;
use mars_core::gap::{NO_GAP, SyncBase, format_base};
use mars_core::link::ResourceLink;
use mars_core::plan::{ORDER_ROOT, RebaseStep, chain_version};
use mars_core::{HostName, LinkPath, LogName, ReplayPos, ResourceName, VersionValue};
use mars_tree::passed::load_passed;

use super::Brain;
use super::res::Shim;

impl Brain {
    /// Looks whether the writes of this node went past the logs behind its position: then the disk holds everything
    /// before the mark.
    pub(super) fn refresh_passed(&mut self, name: &ResourceName, now: Instant) {
        let Some(res) = self.resources.get(name) else {
            return;
        };
        let serving = match &res.shim {
            Shim::Up(up) => up.status.state != ShimState::PassThrough,
            Shim::Starting(_) => true,
            Shim::Off | Shim::Down(..) => false,
        };
        let Some(pos) = res.pos.clone().filter(|_| !serving) else {
            if let Some(res) = self.resources.get_mut(name).filter(|_| serving) {
                res.passed = None;
            }
            return;
        };
        if matches!(&res.passed, Some((at, _)) if *at == pos.log) {
            return;
        }
        let mark = load_passed(&self.dir.resource_dir(name), &pos.log);
        let up = matches!(res.shim, Shim::Up(_));
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        match mark {
            Ok(Some((log, end))) if !up && (log.seq, end) > pos.order() => {
                tracing::warn!(resource = %name, "writes behind {log} byte {end} went past the logs: nothing before it is replayed");
                res.pos = Some(ReplayPos::new(log.clone(), end));
                res.log_end = Some(end);
                res.passed = Some((log.clone(), Some(log.clone())));
                self.trim_own_log(name, &log, end, now);
                self.publish_now(name);
            }
            Ok(mark) => {
                let passed = mark.map(|(log, _)| log).filter(|log| *log == pos.log);
                // While it passes through, the mark is there or could not be stored.
                let passed = passed.or_else(|| up.then(|| pos.log.clone()));
                res.passed = Some((pos.log, passed));
            }
            Err(e) => res.fail(name, e.to_string(), now),
        }
    }

    /// Publishes the gap that this node makes.
    pub(super) fn publish_gap(&mut self, name: &ResourceName) {
        let Some(log) = self.resources.get(name).and_then(|r| r.passed_log()) else {
            return self.forget_gaps(name);
        };
        let gap = log.seq + 1;
        let gaps = self.tree.resource(name).gaps_of(&self.me);
        if gaps.contains(gap) {
            return;
        }
        // A log that was begun and not used is in its place.
        let unused = LogName::new(gap, &self.me);
        if self.tree.resource(name).log_size(&unused) == Some(0) {
            if let Err(e) = self.dir.remove_log(name, &unused) {
                return self.warn_once(&unused.to_string(), &e.to_string());
            }
            self.refresh_log(name, &unused);
        }
        let link = LinkPath::res(name, ResourceLink::Unlogged(self.me.clone()));
        self.set_link(link, &gaps.with(gap).to_string());
        self.make_durable();
        if self.tree.resource(name).gaps_of(&self.me).contains(gap) {
            tracing::error!(resource = %name, "/mars has no room for logs: writes go past them; the other nodes are to be synced");
        }
    }

    /// Gaps that all members have crossed need not be known any more.
    fn forget_gaps(&mut self, name: &ResourceName) {
        let view = self.tree.resource(name);
        let Some(last) = view.gaps_of(&self.me).last() else {
            return;
        };
        let crossed = |host: &HostName| {
            let synced = view.sync_status(host) >= view.size_bytes();
            synced && view.replay(host).is_some_and(|at| at.log.seq > last)
        };
        let all = view.links().all(|(link, _)| match link {
            ResourceLink::Device(host) => crossed(host),
            _ => true,
        });
        if all {
            tracing::info!(resource = %name, "what was written past the logs is everywhere");
            let link = LinkPath::res(name, ResourceLink::Unlogged(self.me.clone()));
            self.set_link(link, NO_GAP);
        }
    }

    /// Writes the version links of the gaps between `from` and `next`; false if that failed.
    pub(super) fn bridge_gap(
        &mut self,
        name: &ResourceName,
        from: &ReplayPos,
        next: &LogName,
    ) -> bool {
        let mut at = from.clone();
        for seq in from.log.seq + 1..next.seq {
            let view = self.tree.resource(name);
            let Some(previous) = chain_version(view, &self.me, &at) else {
                return false;
            };
            let version = VersionValue::chain(&next.host, seq, 0, &previous).to_string();
            let link = ResourceLink::Version(seq, self.me.clone());
            if !self.set_and_check(LinkPath::res(name, link), &version) {
                return false;
            }
            at = ReplayPos::new(LogName::new(seq, &next.host), 0);
            self.make_durable();
        }
        true
    }

    /// Sets an own link; false if it does not stand there now, for want of room as a rule.
    pub(super) fn set_and_check(&mut self, path: LinkPath, value: &str) -> bool {
        self.set_link(path.clone(), value);
        self.tree.get(&path) == Some(value)
    }

    /// Marks the disk: it lacks what was written in a gap.
    pub(super) fn mark_for_gap(&mut self, name: &ResourceName, base: &SyncBase) {
        if let Some(res) = self.resources.get_mut(name) {
            res.stop_sync();
        }
        // In this order: a base beside an older progress would say that the gap is crossed so far.
        let me = self.me.clone();
        let status = LinkPath::res(name, ResourceLink::SyncStatus(me.clone()));
        if !self.set_and_check(status, "0") {
            return;
        }
        self.make_durable();
        tracing::error!(resource = %name, "the primary has written past its logs in place of log {}: this disk is to be synced", base.gap);
        let base = format_base(Some(base));
        self.set_link(LinkPath::res(name, ResourceLink::SyncBase(me)), &base);
    }

    /// The regions of a gap are not known: everything is to be synced.
    pub(super) fn give_up_base(&mut self, name: &ResourceName, why: &str) {
        let Some(base) = self.tree.resource(name).sync_base(&self.me) else {
            return;
        };
        tracing::warn!(resource = %name, "{why}: everything is synced");
        let base = SyncBase { synced: 0, ..base };
        let link = ResourceLink::SyncBase(self.me.clone());
        self.set_link(LinkPath::res(name, link), &format_base(Some(&base)));
    }

    /// Begins anew at a log behind the gap, with nothing synced.
    pub(super) fn rebase(&mut self, name: &ResourceName, step: &RebaseStep) {
        tracing::warn!(resource = %name, "everything is synced anew, beginning at {}", step.log);
        // It read what its source had before that log, and its progress may still be on the way.
        if let Some(res) = self.resources.get_mut(name) {
            res.stop_sync();
        }
        let (me, seq) = (self.me.clone(), step.log.seq);
        let own = |link: ResourceLink| LinkPath::res(name, link);
        let old: Vec<LinkPath> = self
            .tree
            .resource(name)
            .links()
            .filter(|(link, _)| {
                matches!(link, ResourceLink::Version(n, h) if *h == me && *n != seq && n + 1 != seq)
            })
            .map(|(link, _)| own(link.clone()))
            .collect();
        let version = VersionValue::chain(&step.log.host, seq, 0, &step.previous).to_string();
        let start = ReplayPos::new(step.log.clone(), 0);
        let links = [
            (ResourceLink::SyncStatus(me.clone()), "0".to_owned()),
            (ResourceLink::SyncBase(me.clone()), NO_GAP.into()),
            (
                ResourceLink::Version(seq - 1, me.clone()),
                step.previous.clone(),
            ),
            (ResourceLink::Version(seq, me.clone()), version),
            (ResourceLink::Replay(me), start.to_string()),
        ];
        for (link, value) in links {
            if !self.set_and_check(own(link), &value) {
                return;
            }
        }
        let target = |link: &LinkPath| (format!("{ORDER_ROOT}{link}"), None);
        let orders: Vec<_> = old.iter().map(target).collect();
        self.give_orders(&orders);
        if let Some(res) = self.resources.get_mut(name) {
            res.stop_replay();
            res.pos = Some(start.clone());
            res.link = Some(start);
            res.log_end = None;
            res.failed = None;
        }
        self.dirty.insert(name.clone());
    }

    /// Links that others rely on survive a power loss.
    fn make_durable(&mut self) {
        if let Err(e) = self.dir.sync_dirs() {
            self.warn_once("the tree", &e.to_string());
        }
    }
}
