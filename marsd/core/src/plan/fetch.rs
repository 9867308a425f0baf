//! Which log to fetch next, and from whom.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Facts, LogOffer, twin};
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;

/// The lowest log from the position on that this node does not have completely, with the best peer for it.
///
/// Logs that this node wrote itself are never fetched, nor is one of which this node has more than whoever finished it. A log that is still being written is fetched live, and from
/// another peer as soon as the present one has nothing more to give and the other has.
pub(super) fn plan_fetch(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
) -> Option<(LogName, HostName)> {
    let mut names: Vec<&LogName> = facts
        .offers
        .values()
        .flatten()
        .map(|o| &o.log)
        .filter(|l| l.seq >= pos.log.seq && l.host != *me && !twin::is_void(view, facts, l))
        .collect();
    names.sort();
    names.dedup();
    let rests = |peer: &HostName| facts.bad_copies.get(peer).is_some_and(|copy| copy.rests);
    for name in names {
        let have = view.log_size(name);
        let offers = || {
            facts
                .offers
                .iter()
                .flat_map(|(peer, offers)| offers.iter().map(move |o| (peer, o)))
                .filter(|(peer, o)| o.log == *name && !(o.log == pos.log && rests(peer)))
        };
        let damaged = facts.damaged && *name == pos.log;
        let whole = || offers().any(|(_, o)| o.complete && have == Some(o.durable));
        // What is not known to be records may be cut off when it is fetched.
        let known = have.filter(|_| *name != pos.log || facts.log_end == have);
        let surplus = || known.is_some_and(|have| finished_before(facts, name, have).is_some());
        if !damaged && (whole() || surplus()) {
            continue;
        }
        // The writer knows best; else whoever has most. A damaged copy is the last resort: it may be mended.
        let good = |peer: &HostName| *name != pos.log || !facts.bad_copies.contains_key(peer);
        // What follows a log that is not whole is not fetched.
        let best = offers().max_by_key(|(peer, o)| (good(peer), o.durable, **peer == name.host))?;
        let present = facts.fetching.as_ref().filter(|(log, _)| log == name);
        let present = present.and_then(|(_, from)| offers().find(|(peer, _)| *peer == from));
        let goes_on = |(peer, offer): &(&HostName, &LogOffer)| {
            if good(best.0) && !good(peer) {
                return false;
            }
            offer.durable >= best.1.durable || have.is_some_and(|have| offer.durable > have)
        };
        let (peer, _) = present.filter(goes_on).unwrap_or(best);
        return Some((name.clone(), peer.clone()));
    }
    None
}

/// Who has finished a log before byte `have` of it, and where, if no connected node has more of it: what stands behind that
/// byte here cannot be had from anybody, and is not part of the history that the other one goes on with.
pub(super) fn finished_before<'a>(
    facts: &'a Facts,
    log: &LogName,
    have: u64,
) -> Option<(&'a HostName, u64)> {
    let of_log = facts
        .offers
        .iter()
        .flat_map(|(peer, offers)| offers.iter().map(move |o| (peer, o)))
        .filter(|(_, o)| o.log == *log);
    let goes_on = |(peer, o): (&HostName, &LogOffer)| {
        o.durable > have || (!o.complete && *peer == log.host) || (o.complete && o.durable == have)
    };
    if of_log.clone().any(goes_on) {
        return None;
    }
    let mut finished = of_log.filter(|(_, o)| o.complete);
    finished.next().map(|(peer, o)| (peer, o.durable))
}

/// Why the log of `pos` ends here for good: every copy of what follows is damaged.
pub(super) fn beyond_repair(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
) -> Option<String> {
    let have = facts.log_end.unwrap_or(pos.pos);
    let is_elsewhere = |(peer, offers): (&HostName, &Vec<LogOffer>)| {
        let more = offers.iter().any(|o| o.log == pos.log && o.durable > have);
        more && facts
            .bad_copies
            .get(peer)
            .is_none_or(|copy| !copy.is_proven)
    };
    let (peer, copy) = facts
        .bad_copies
        .iter()
        .find(|(_, copy)| copy.is_proven && copy.at == have)?;
    if facts.offers.iter().any(is_elsewhere) {
        return None;
    }
    let name = view.name();
    Some(format!(
        "{} is damaged at byte {have}, on {peer} too ({}), also when fetched again: nothing behind it can be replayed; \
         repair: 'marsadm log-rotate {name}' on the primary, then 'marsadm invalidate {name}' here",
        pos.log, copy.cause
    ))
}
