//! Whether the disk is to be compared with that of a peer, and which log records may explain differences
//! (`symlink-spec.md` section 8.9).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::sync::{is_consistent, sync_needed};
use super::{Facts, ShimFacts};
use crate::link::Switch;
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;
use crate::verify::{VerifyMode, VerifyOrder};

/// What to do about the last order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyStep {
    /// There is none, or it has been answered.
    Nothing,
    /// Compare with the disk of this peer.
    Run(VerifyOrder, HostName),
    /// Not possible now, but perhaps soon: why.
    Wait(VerifyOrder, String),
    /// Not possible: why.
    Refuse(VerifyOrder, String),
}

/// Decides about the order that stands in the tree.
pub fn plan_verify(view: ResourceView<'_>, facts: &Facts, me: &HostName) -> VerifyStep {
    let Some(order) = view.verify_order(me) else {
        return VerifyStep::Nothing;
    };
    let answered = view
        .verify_answer(me)
        .is_some_and(|a| a.number > order.number || (a.number == order.number && a.is_final()));
    if answered {
        return VerifyStep::Nothing;
    }
    if let Some(why) = refusal(view, facts, &order, me) {
        return VerifyStep::Refuse(order, why);
    }
    let primary = view.primary().flatten().filter(|p| p != me);
    let is_connected = |h: &HostName| facts.offers.contains_key(h);
    let connect = || view.connect(me).filter(|h| h != me);
    let peer = match primary {
        Some(primary) if is_connected(&primary) => Some(primary),
        other => connect().filter(is_connected).or(other).or_else(connect),
    };
    let Some(peer) = peer else {
        let why = format!("there is no peer to compare with: no primary, and no connect-{me}");
        return VerifyStep::Refuse(order, why);
    };
    // The logs of such a node do not explain what is on its disk.
    if view.is_jammed(&peer) {
        let why = format!("{peer} has stopped logging for lack of space: nothing to compare with");
        return VerifyStep::Refuse(order, why);
    }
    if !is_connected(&peer) {
        return VerifyStep::Wait(order, format!("{peer} is not connected"));
    }
    if !is_consistent(view, &peer) {
        let why = format!("the disk of {peer} is not consistent itself");
        return VerifyStep::Wait(order, why);
    }
    VerifyStep::Run(order, peer)
}

fn refusal(
    view: ResourceView<'_>,
    facts: &Facts,
    order: &VerifyOrder,
    me: &HostName,
) -> Option<String> {
    let size = view.size_bytes().unwrap_or(0);
    if order.mode == VerifyMode::Stop {
        return Some("stopped by order".into());
    }
    if view.data(me).is_none() || facts.pos.is_none() {
        return Some(format!("{me} has not joined resource {}", view.name()));
    }
    if view.is_designated_primary(me) || facts.shim != ShimFacts::Off {
        return Some(format!("{me} is primary: verify its secondaries"));
    }
    for switch in [Switch::Attach, Switch::Connect] {
        if !view.switch(me, switch) {
            return Some(format!("{} is off on {me}", switch.as_str()));
        }
    }
    if sync_needed(view, me, size) || facts.syncing {
        return Some(format!("{me} is not synced"));
    }
    if !is_consistent(view, me) {
        return Some(format!(
            "{me} has not yet replayed what was written during its sync"
        ));
    }
    facts.failed.clone()
}

/// A part of a logfile that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSpan {
    /// The log.
    pub log: LogName,
    /// Byte from which its records are needed.
    pub from: u64,
    /// Byte up to which they are needed; what follows is of interest, too, if it is there.
    pub to: u64,
}

/// The local logfiles that hold all records behind `from`, at least up to `to`; `None` while some of that is still to
/// come. Whatever else this node has of the logs is part of it: an earlier replay that was killed may have applied it.
///
/// # Errors
/// A log is not here any more, or the logs here are those of another history than `to`.
pub fn logs_between(
    view: ResourceView<'_>,
    facts: &Facts,
    me: &HostName,
    from: &ReplayPos,
    to: &ReplayPos,
) -> Result<Option<Vec<LogSpan>>, String> {
    let applied = facts.pos.as_ref().map_or(0, |pos| pos.log.seq);
    let at = |seq: u64| view.logs().find(move |(l, _)| l.seq == seq);
    for seq in from.log.seq..=to.log.seq {
        let Some((log, size)) = at(seq) else {
            if seq < applied {
                return Err(format!(
                    "the log of number {seq} is not here any more: it was deleted meanwhile, verify again"
                ));
            }
            return Ok(None);
        };
        for end in [from, to] {
            if end.log.seq == seq && end.log != *log {
                return Err(format!(
                    "{log} is here, but {} there: this is a split brain",
                    end.log
                ));
            }
        }
        let there = if seq == to.log.seq {
            size >= to.pos
        } else {
            seq < applied || is_complete(view, facts, me, log, size)
        };
        if !there {
            return Ok(None);
        }
    }
    let spans = view
        .logs()
        .filter(|(l, _)| l.seq >= from.log.seq)
        .map(|(log, _)| LogSpan {
            log: log.clone(),
            from: if log.seq == from.log.seq { from.pos } else { 0 },
            to: if log.seq == to.log.seq { to.pos } else { 0 },
        });
    Ok(Some(spans.collect()))
}

fn is_complete(
    view: ResourceView<'_>,
    facts: &Facts,
    me: &HostName,
    log: &LogName,
    size: u64,
) -> bool {
    log.host == *me
        || view.logs().any(|(l, n)| l.seq == log.seq + 1 && n > 0)
        || facts
            .offers
            .values()
            .flatten()
            .any(|o| o.log == *log && o.complete && o.durable == size)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
