//! Logs that say nothing of what is to be replayed: one of two with the same number to which nothing was ever written, and
//! those of a history that was given up (`symlink-spec.md` section 8.7).

use super::{Facts, branch};
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;

/// All logs known here or at connected peers.
pub(super) fn known<'a>(
    view: ResourceView<'a>,
    facts: &'a Facts,
) -> impl Iterator<Item = &'a LogName> {
    let offered = facts.offers.values().flatten().map(|offer| &offer.log);
    view.logs().map(|(log, _)| log).chain(offered)
}

/// Whether no byte of a log is known anywhere.
fn is_empty(view: ResourceView<'_>, facts: &Facts, log: &LogName) -> bool {
    view.log_size(log).unwrap_or(0) == 0
        && facts
            .offers
            .values()
            .flatten()
            .all(|offer| offer.log != *log || offer.durable == 0)
}

/// Whether a log is to be passed over: it is of a history that was given up, or it is empty, and there is another one of its
/// number that is not, or whose writer is primary.
pub(super) fn is_void(view: ResourceView<'_>, facts: &Facts, log: &LogName) -> bool {
    let counts = |other: &LogName| {
        other.seq == log.seq
            && other.host != log.host
            && (!is_empty(view, facts, other) || view.is_designated_primary(&other.host))
    };
    if view.is_designated_primary(&log.host) {
        return false;
    }
    let is_twin = is_empty(view, facts, log) && known(view, facts).any(counts);
    is_twin || branch::is_given_up(view, log)
}

/// The log of the same number to which a node goes over that stands at the beginning of an empty one: its disk is at the end
/// of the log before, if the writer of the other log has that log equally.
pub(super) fn other_beginning(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
) -> Option<LogName> {
    if pos.pos != 0 || !is_void(view, facts, &pos.log) {
        return None;
    }
    let mut others = known(view, facts).filter(|log| {
        log.seq == pos.log.seq && log.host != *me && **log != pos.log && !is_void(view, facts, log)
    });
    let other = others.next()?.clone();
    let same_before = pos.log.seq <= 1 || {
        let before = |host: &HostName| view.version_raw(pos.log.seq - 1, host);
        before(me).is_some() && before(me) == before(&other.host)
    };
    (same_before && others.all(|log| *log == other)).then_some(other)
}
