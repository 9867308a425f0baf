//! Histories that exclude each other, as the version links tell them, and the logs of those that were not chosen
//! (`symlink-spec.md` sections 6 and 8.7).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Facts;
use crate::link::ResourceLink;
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;
use crate::version::VersionValue;

/// The lowest log at which the histories of `a` and `b` exclude each other.
///
/// They do if they name different writers of a log, or stand at the same position of it with different digests, or if one
/// has gone on to a later log and the other has got further in this one, or has gone on with another end of it.
pub fn branch_of(view: ResourceView<'_>, a: &HostName, b: &HostName) -> Option<u64> {
    let last = |host: &HostName| {
        let own = view.links().filter_map(|(link, _)| match link {
            ResourceLink::Version(seq, h) if h == host => Some(*seq),
            _ => None,
        });
        own.max()
    };
    let (last_a, last_b) = (last(a)?, last(b)?);
    let mine = view.links().filter_map(|(link, raw)| match link {
        ResourceLink::Version(seq, host) if host == a => Some((*seq, raw)),
        _ => None,
    });
    let excluded = |&(seq, raw): &(u64, &str)| {
        let theirs = view.version_raw(seq, b).filter(|theirs| *theirs != raw);
        let values = theirs
            .and_then(|t| Some((VersionValue::parse(raw).ok()?, VersionValue::parse(t).ok()?)));
        values.is_some_and(|(a, b)| exclude((&a, last_a > seq), (&b, last_b > seq)))
    };
    mine.filter(excluded).map(|(seq, _)| seq).min()
}

/// Whether two different values for one log exclude each other; each with whether its node has gone on to a later log.
fn exclude((a, a_left): (&VersionValue, bool), (b, b_left): (&VersionValue, bool)) -> bool {
    if a.log_host != b.log_host || a.pos == b.pos {
        return true;
    }
    // Who has gone on has finished the log: nobody can have more of it.
    if a.pos < b.pos { a_left } else { b_left }
}

/// Whether `log` belongs to a history that excludes that of the primary: its writer went on from another end of a log
/// before, and the decision fell against it.
pub(super) fn is_given_up(view: ResourceView<'_>, log: &LogName) -> bool {
    let primary = view.primary().flatten().filter(|p| *p != log.host);
    primary.is_some_and(|primary| {
        branch_of(view, &primary, &log.host).is_some_and(|seq| is_behind(view, log, &primary, seq))
    })
}

/// Whether `log` is of its writer's own way, which left that of the primary at log `seq`.
fn is_behind(view: ResourceView<'_>, log: &LogName, primary: &HostName, seq: u64) -> bool {
    let other = |v: VersionValue| v.log_host != log.host;
    log.seq > seq || (log.seq == seq && view.version(seq, primary).is_some_and(other))
}

/// The facts without what peers offer of logs from which on their history excludes that of the primary: what they have of
/// them is not what the primary has, and where they take them to end is not their end. `None` if that is nothing.
pub(super) fn without_given_up(view: ResourceView<'_>, facts: &Facts) -> Option<Facts> {
    let primary = view.primary().flatten()?;
    let others = facts.offers.keys().filter(|peer| **peer != primary);
    let branches: Vec<(&HostName, u64)> = others
        .filter_map(|peer| Some((peer, branch_of(view, &primary, peer)?)))
        .collect();
    if branches.is_empty() {
        return None;
    }
    let mut kept = facts.clone();
    for (peer, seq) in branches {
        let offers = kept.offers.entry(peer.clone()).or_default();
        offers.retain(|offer| offer.log.seq < seq);
    }
    Some(kept)
}

/// Copies here of logs of a history that was given up. They can never be applied to a disk that is on the way of the
/// primary, and nobody is to take them for a part of it when their writer has been invalidated.
pub(super) fn copies_given_up(
    view: ResourceView<'_>,
    pos: &ReplayPos,
    me: &HostName,
) -> Vec<LogName> {
    let Some(primary) = view.primary().flatten() else {
        return Vec::new();
    };
    if primary != *me && branch_of(view, &primary, me).is_some() {
        return Vec::new();
    }
    let copies = || {
        let logs = view.logs().map(|(log, _)| log);
        logs.filter(|log| log.host != primary && log.host != *me && **log != pos.log)
    };
    let writers: BTreeSet<&HostName> = copies().map(|log| &log.host).collect();
    let branches: BTreeMap<&HostName, u64> = writers
        .into_iter()
        .filter_map(|host| Some((host, branch_of(view, &primary, host)?)))
        .collect();
    let behind = |log: &&LogName| {
        let seq = branches.get(&log.host);
        seq.is_some_and(|seq| is_behind(view, log, &primary, *seq))
    };
    copies().filter(behind).cloned().collect()
}

/// What is shown on a node whose data the primary cannot have.
pub(super) fn left_behind(view: ResourceView<'_>, me: &HostName) -> Option<String> {
    let primary = view.primary().flatten().filter(|p| p != me)?;
    let seq = branch_of(view, &primary, me)?;
    Some(format!(
        "SPLIT BRAIN at log {seq}: the data of {me} and of {primary}, which is primary, went different ways there; \
         keep one side as primary and run 'marsadm invalidate {}' on the other",
        view.name()
    ))
}
