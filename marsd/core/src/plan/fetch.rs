//! Which log to fetch next, and from whom.

use alloc::vec::Vec;

use super::Facts;
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;

/// The lowest log from the position on that this node does not have completely, with the best peer for it.
///
/// Logs that this node wrote itself are never fetched. A log that is still being written is fetched live.
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
        .filter(|l| l.seq >= pos.log.seq && l.host != *me)
        .collect();
    names.sort();
    names.dedup();
    names.into_iter().find_map(|name| {
        let have = view.log_size(name);
        let offers = || {
            facts
                .offers
                .iter()
                .flat_map(|(peer, offers)| offers.iter().map(move |o| (peer, o)))
                .filter(|(_, o)| o.log == *name)
        };
        let done = offers().any(|(_, o)| o.complete && have == Some(o.durable));
        if done {
            return None;
        }
        // The writer knows best; else whoever has most.
        let best = offers().max_by_key(|(peer, o)| (o.durable, **peer == name.host))?;
        Some((name.clone(), best.0.clone()))
    })
}
