//! Decides, from a snapshot and local facts alone, what should run for one resource on one node
//! (`symlink-spec.md` section 8).
//!
//! [`plan`] is called after every change. It never remembers anything: what is already running stands in the
//! [`Facts`], and the caller starts or stops the difference.

mod branch;
mod delete;
mod fetch;
mod gap;
#[cfg(test)]
mod gap_tests;
mod log;
mod offer;
mod publish;
mod retire;
#[cfg(test)]
mod retire_tests;
mod shim;
mod space;
mod sync;
#[cfg(test)]
mod tests;
mod twin;
mod verify;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::control::{Resume, ShimStatus};
use crate::gap::SyncBase;
use crate::link::Switch;
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;

pub use branch::branch_of;
pub use delete::{
    DeleteStep, ORDER_ROOT, colliding_orders, deleted_resources, highest_order, plan_delete,
    room_before,
};
pub use gap::{Gap, gap_ahead, own_next, way_back_decided};
pub use log::chain_version;
pub use offer::{is_whole, offers_of_files};
pub use publish::{Published, knows_primary, position_links, publish};
pub use retire::OrderBook;
pub use shim::shim_position;
pub use space::{SpaceLimits, SpaceStep, plan_space};
pub use sync::{is_consistent, sync_needed};
pub use verify::{LogSpan, VerifyStep, logs_between, plan_verify};

/// What a peer can send of one logfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOffer {
    /// The logfile.
    pub log: LogName,
    /// Bytes that are on stable storage there.
    pub durable: u64,
    /// Nothing will be added any more.
    pub complete: bool,
}

/// The copy of a log that a peer has sent, as far as it was no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCopy {
    /// Byte in the log from which on it is none.
    pub at: u64,
    /// What is wrong there.
    pub cause: String,
    /// It was the same each time that it was fetched.
    pub is_proven: bool,
    /// It is not asked for now.
    pub rests: bool,
}

/// What is known of the shim of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ShimFacts {
    /// None runs, and no device is held for it.
    #[default]
    Off,
    /// It runs.
    Up(ShimStatus),
    /// It died, its device waits for a successor.
    Down(Resume),
}

/// What the node knows of one resource beyond the tree.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Position up to which the disk was written and flushed; `None` if this node has not joined.
    pub pos: Option<ReplayPos>,
    /// End in bytes of the valid records of the log of `pos`; `None` if not yet known.
    pub log_end: Option<u64>,
    /// The shim.
    pub shim: ShimFacts,
    /// A sync runs.
    pub syncing: bool,
    /// A replay runs.
    pub replaying: bool,
    /// The peer from which the present or the last sync came.
    pub sync_source: Option<HostName>,
    /// The log that is being fetched, and from whom.
    pub fetching: Option<(LogName, HostName)>,
    /// The disk is being compared and must not be written.
    pub verifying: bool,
    /// The log of `pos` is damaged in the copy that is here, behind `pos`.
    pub damaged: bool,
    /// Peers whose copy of the log of `pos` is damaged.
    pub bad_copies: BTreeMap<HostName, BadCopy>,
    /// What each connected peer offers.
    pub offers: BTreeMap<HostName, Vec<LogOffer>>,
    /// Why a worker gave up at the present position: nothing new is started until that changes.
    pub failed: Option<String>,
    /// `/mars` is below its limit of free space.
    pub exhausted: bool,
    /// Why no data may be transferred now, though the switches allow it.
    pub paused: Option<String>,
    /// `/mars` has no room for anything.
    pub full: bool,
    /// The log behind which the writes of this node went past the logs, if its disk stands there.
    pub passed: Option<LogName>,
    /// The daemon ends.
    pub stopping: bool,
    /// The daemon has just begun, and does not know yet what the other nodes have decided meanwhile.
    pub unheard: bool,
}

/// What the shim should do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ShimPlan {
    /// Stay as it is.
    #[default]
    Keep,
    /// Start (or succeed the dead one) and log from this position.
    Start(ReplayPos),
    /// Start, and write past the logs from this position on.
    Pass(ReplayPos),
    /// Log to the next logfile.
    Rotate(LogName),
    /// Grow the device to this many bytes.
    Resize(u64),
    /// Stop as soon as nobody has the device open.
    Stop,
}

/// A step from one log to the next, done at once by writing links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchStep {
    /// The log that is finished, and its end.
    pub finished: ReplayPos,
    /// The log that follows, from its beginning.
    pub next: LogName,
}

/// What to sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncFrom {
    /// From whom.
    pub peer: HostName,
    /// Bytes at the beginning that are synced already.
    pub start: u64,
    /// Only what was written past the logs in a gap; else everything.
    pub gap: Option<GapSync>,
}

/// The sync that crosses a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapSync {
    /// The gap.
    pub seq: u64,
    /// What lies behind so many bytes of the disk is synced besides.
    pub synced: u64,
}

/// A copy is begun anew behind the gaps in the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebaseStep {
    /// The log to begin with.
    pub log: LogName,
    /// Version value of the log before, as the source has it.
    pub previous: String,
}

/// What should run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The shim.
    pub shim: ShimPlan,
    /// Replay from this position on.
    pub replay: Option<ReplayPos>,
    /// Sync, as soon as no replay runs.
    pub sync: Option<SyncFrom>,
    /// Whom to sync from, from the first byte on, if what `waiting` says lasts.
    pub sync_elsewhere: Option<HostName>,
    /// Fetch this log from this peer.
    pub fetch: Option<(LogName, HostName)>,
    /// Mark the disk for a gap in the logs: it is to be synced.
    pub mark: Option<SyncBase>,
    /// Begin anew, with nothing synced.
    pub rebase: Option<RebaseStep>,
    /// Go on to the next log.
    pub switch: Option<SwitchStep>,
    /// Stand at the beginning of this log instead of that of the empty one of the same number.
    pub instead: Option<LogName>,
    /// Copies of logs that are to be removed if this lasts: their history was given up.
    pub discard: Vec<LogName>,
    /// Why nothing can go on, if that is so: an error for the admin.
    pub error: Option<String>,
    /// What is waited for, if anything: becomes an error only if it lasts.
    pub waiting: Option<String>,
}

/// Plans one resource for node `me`.
pub fn plan(view: ResourceView<'_>, facts: &Facts, me: &HostName) -> Plan {
    let mut plan = Plan::default();
    let (Some(pos), Some(size), Some(_)) = (&facts.pos, view.size_bytes(), view.data(me)) else {
        return plan;
    };
    if facts.stopping {
        shim::plan_stopping(view, facts, pos, me, &mut plan);
        return plan;
    }
    let way = branch::without_given_up(view, facts);
    let facts = way.as_ref().unwrap_or(facts);
    plan.discard = branch::copies_given_up(view, pos, me);
    let attached = view.switch(me, Switch::Attach);
    let primary = attached && view.is_designated_primary(me);
    match &facts.shim {
        ShimFacts::Up(status) => {
            if primary && shim::is_half_begun(status, pos, me) {
                shim::plan_half_begun(view, facts, pos, me, &mut plan);
            } else {
                plan.shim = shim::plan_running(view, facts, status, size, me, primary);
            }
            return plan;
        }
        ShimFacts::Down(_) => {
            shim::plan_successor(view, facts, pos, me, &mut plan);
            return plan;
        }
        ShimFacts::Off => {}
    }
    if !attached {
        return plan;
    }
    if primary && facts.unheard {
        plan.waiting = Some(shim::UNHEARD.into());
        return plan;
    }
    let gap = (!primary)
        .then(|| gap::plan_mark(view, pos, me, &mut plan))
        .flatten();
    plan.error = facts
        .failed
        .clone()
        .or_else(|| log::log_conflict(view, facts, &pos.log, me));
    if plan.error.is_some() {
        if facts.failed.is_none() && pos.log.host == *me && view.log_size(&pos.log).is_some() {
            // Whether anything was written to the own log shows only when it is read.
            let unknown = facts.log_end.is_none() && view.switch(me, Switch::AllowReplay);
            plan.replay = unknown.then(|| pos.clone());
        }
        return plan;
    }
    plan.instead = twin::other_beginning(view, facts, pos, me);
    if plan.instead.is_some() {
        return plan;
    }
    let mut may_replay = true;
    if let Some(gap) = &gap {
        may_replay = gap::plan_gap(view, facts, pos, me, gap, &mut plan);
    } else if !primary && view.switch(me, Switch::Connect) && !facts.exhausted {
        may_replay = sync::plan_sync(view, facts, pos, size, me, &mut plan);
    }
    if view.switch(me, Switch::Connect) && !facts.exhausted && view.sync_status(me).is_some() {
        plan.fetch = fetch::plan_fetch(view, facts, pos, me);
    }
    if let Some(why) = &facts.paused
        && plan.sync.take().is_some() | plan.fetch.take().is_some()
    {
        plan.waiting = Some(why.clone());
    }
    if may_replay && plan.sync.is_none() && !facts.syncing && !facts.verifying {
        log::plan_log(view, facts, pos, me, primary, &mut plan);
    }
    if !primary {
        plan.waiting = branch::left_behind(view, me).or(plan.waiting);
    }
    // What is here is replayed nevertheless.
    if plan.error.is_none() {
        plan.error = fetch::beyond_repair(view, facts, pos);
    }
    plan
}
