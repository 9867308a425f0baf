//! What a secondary does about a gap in the logs: writes of the primary that are in no log (`symlink-spec.md` section 8.6).
//!
//! A gap is crossed by syncing the regions that were written then. Only a disk that stands exactly at the end of
//! the log before the gap can be helped that way; any other is synced wholly, beginning behind the gap.

use alloc::format;
use alloc::string::ToString;

use super::log::{chain_version, split_brain};
use super::{Facts, GapSync, Plan, RebaseStep, SwitchStep, SyncFrom, is_consistent};
use crate::gap::SyncBase;
use crate::link::Switch;
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;
use crate::version::VersionValue;

/// A gap and the node that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Number of the log that was never written.
    pub seq: u64,
    /// Who wrote past the logs.
    pub maker: HostName,
}

/// The next gap of another node that a disk at log `seq` has still before it.
pub fn gap_ahead(view: ResourceView<'_>, seq: u64, me: &HostName) -> Option<Gap> {
    view.all_gaps()
        .filter(|(maker, _)| *maker != me)
        .flat_map(|(maker, gaps)| {
            gaps.iter()
                .map(move |g| (g, maker.clone()))
                .collect::<alloc::vec::Vec<_>>()
        })
        .filter(|(gap, _)| *gap > seq)
        .min()
        .map(|(seq, maker)| Gap { seq, maker })
}

/// The number of the log that node `me` writes after log `seq`: gaps of its own are left out.
pub fn own_next(view: ResourceView<'_>, seq: u64, me: &HostName) -> u64 {
    let gaps = view.gaps_of(me);
    let mut next = seq + 1;
    while gaps.contains(next) {
        next += 1;
    }
    next
}

/// Whether somebody has decided, since node `me` last began to write past the logs, that it shall log again.
pub fn way_back_decided(view: ResourceView<'_>, me: &HostName) -> bool {
    match (view.primary_stamp(), view.gaps_stamp(me)) {
        (Some(decided), Some(began)) => decided > began,
        _ => false,
    }
}

/// Where a disk stands towards a gap.
enum Place {
    /// At the end of the log before it.
    At,
    /// Somewhere before.
    Before,
    /// In another history.
    Split,
}

/// Marks the disk for the gap that has been noticed, if that is not done yet.
pub(super) fn plan_mark(
    view: ResourceView<'_>,
    pos: &ReplayPos,
    me: &HostName,
    plan: &mut Plan,
) -> Option<Gap> {
    let gap = gap_ahead(view, pos.log.seq, me)?;
    let synced = view.sync_status(me)?;
    if view.sync_base(me).is_none_or(|base| base.gap != gap.seq) {
        plan.mark = Some(SyncBase {
            gap: gap.seq,
            synced,
        });
    }
    Some(gap)
}

/// Plans the way across `gap`; the disk is marked for it. Tells whether replay may go on meanwhile.
pub(super) fn plan_gap(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
    gap: &Gap,
    plan: &mut Plan,
) -> bool {
    let (Some(done), Some(size)) = (view.sync_status(me), view.size_bytes()) else {
        return true;
    };
    let Some(base) = view.sync_base(me).filter(|base| base.gap == gap.seq) else {
        return true;
    };
    match place(view, pos, me, gap) {
        Place::Split => {
            plan.error = Some(split_brain(pos.log.seq, me, &gap.maker));
            false
        }
        Place::At if done >= size => {
            plan.switch = Some(SwitchStep {
                finished: pos.clone(),
                next: LogName::new(gap.seq + 1, &gap.maker),
            });
            false
        }
        Place::At if base.synced > 0 && !maker_is_lost(view, facts, gap) => {
            if may_sync(view, facts, me, &gap.maker, gap.seq, plan) {
                plan.sync = Some(SyncFrom {
                    peer: gap.maker.clone(),
                    start: done,
                    gap: Some(GapSync {
                        seq: gap.seq,
                        synced: base.synced,
                    }),
                });
            }
            false
        }
        Place::Before if base.synced > 0 && !is_unreachable(view, facts, pos, gap) => true,
        Place::At | Place::Before => {
            plan_rebase(view, facts, me, plan);
            plan.rebase.is_none()
        }
    }
}

fn place(view: ResourceView<'_>, pos: &ReplayPos, me: &HostName, gap: &Gap) -> Place {
    let Some(mine) = chain_version(view, me, pos) else {
        return Place::Before;
    };
    let Some(theirs) = view.version_raw(gap.seq, &gap.maker) else {
        return Place::Before;
    };
    let across = VersionValue::chain(&gap.maker, gap.seq, 0, &mine).to_string();
    if pos.log.seq + 1 != gap.seq {
        return Place::Before;
    }
    if across == theirs {
        return Place::At;
    }
    let end = view.version(pos.log.seq, &gap.maker).map(|v| v.pos);
    if end.is_some_and(|end| pos.pos >= end) {
        Place::Split
    } else {
        Place::Before
    }
}

/// The node with the map has gone, and another one that is past the gap is primary.
fn maker_is_lost(view: ResourceView<'_>, facts: &Facts, gap: &Gap) -> bool {
    let Some(Some(primary)) = view.primary() else {
        return false;
    };
    primary != gap.maker
        && !facts.offers.contains_key(&gap.maker)
        && facts.offers.contains_key(&primary)
        && view.replay(&primary).is_some_and(|at| at.log.seq > gap.seq)
}

/// Some log before the gap is not here and no connected node has it, though the node that made the gap is connected.
fn is_unreachable(view: ResourceView<'_>, facts: &Facts, pos: &ReplayPos, gap: &Gap) -> bool {
    let known = |h: &HostName| facts.offers.get(h).is_some_and(|o| !o.is_empty());
    let witness = view.primary().flatten().filter(|p| *p != gap.maker);
    if !known(&gap.maker) && !witness.as_ref().is_some_and(known) {
        return false;
    }
    (pos.log.seq..gap.seq).any(|seq| {
        let end = view.version(seq, &gap.maker).map(|v| v.pos);
        if seq == pos.log.seq && end == Some(pos.pos) {
            return false;
        }
        let local = view.logs().find(|(log, _)| log.seq == seq);
        let here = match (local, end) {
            (Some((_, size)), Some(end)) => size >= end,
            (local, None) => local.is_some(),
            (None, Some(_)) => false,
        };
        let offered = facts
            .offers
            .values()
            .flatten()
            .any(|o| o.log.seq == seq && end.is_none_or(|end| o.durable >= end));
        !here && !offered
    })
}

/// Whether a sync from `peer`, which is past log `seq`, may run now.
fn may_sync(
    view: ResourceView<'_>,
    facts: &Facts,
    me: &HostName,
    peer: &HostName,
    seq: u64,
    plan: &mut Plan,
) -> bool {
    if !view.switch(me, Switch::Sync) || !view.switch(me, Switch::Connect) || facts.exhausted {
        return false;
    }
    let why = if !facts.offers.contains_key(peer) {
        format!("{peer} is not connected")
    } else if view.is_jammed(peer) {
        format!("{peer} has no room for logs and writes past them (jammed-{peer} is 1)")
    } else if view.replay(peer).is_none_or(|at| at.log.seq <= seq) {
        format!("{peer} does not log again yet")
    } else if !is_consistent(view, peer) {
        format!("the disk of {peer} is not consistent itself")
    } else {
        return true;
    };
    plan.waiting = Some(format!("sync waits: {why}"));
    false
}

/// A whole sync begins behind all gaps, at the current log of the node to sync from.
fn plan_rebase(view: ResourceView<'_>, facts: &Facts, me: &HostName, plan: &mut Plan) {
    let Some(peer) = view.connect(me) else { return };
    let last = view
        .all_gaps()
        .filter_map(|(_, gaps)| gaps.last())
        .max()
        .unwrap_or(0);
    if !may_sync(view, facts, me, &peer, last, plan) {
        return;
    }
    let Some(at) = view.replay(&peer) else { return };
    let offered = facts
        .offers
        .get(&peer)
        .is_some_and(|offers| offers.iter().any(|o| o.log == at.log));
    let previous = view.version_raw(at.log.seq - 1, &peer);
    match previous {
        Some(previous) if offered => {
            plan.rebase = Some(RebaseStep {
                log: at.log,
                previous: previous.into(),
            });
        }
        _ => {
            plan.waiting = Some(format!(
                "sync waits: {} or the version link before it has not yet been seen of {peer}",
                at.log
            ));
        }
    }
}
