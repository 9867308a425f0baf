//! Begins a copy anew: what join-resource and invalidate write so that a node starts from the source's current log
//! with nothing synced (`symlink-spec.md` sections 4.2, 6 rule 2 and 8.5).

use mars_core::gap::NO_GAP;
use mars_core::link::ResourceLink;
use mars_core::{HostName, LinkPath, LogName, ReplayPos, ResourceView, VersionValue};

use crate::context::Edit;

/// Where a new copy begins.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// The log of the source that is being written.
    pub(crate) log: LogName,
    /// The source's version value of the log before; `None` for the first log.
    pub(crate) previous: Option<String>,
}

/// The start from `source`; the reason if the tree does not (yet) tell enough.
pub(crate) fn start(view: ResourceView<'_>, source: &HostName) -> Result<Start, String> {
    let log = view
        .replay(source)
        .ok_or_else(|| format!("the replay position of {source}"))?
        .log;
    if log.seq <= 1 {
        return Ok(Start {
            log,
            previous: None,
        });
    }
    let seq = log.seq - 1;
    let previous = view
        .version_raw(seq, source)
        .ok_or_else(|| format!("version-{seq:09}-{source}"))?;
    Ok(Start {
        log,
        previous: Some(previous.into()),
    })
}

/// The edits that make `me` begin there. What remains of an older history of this node is removed, here and by orders
/// everywhere, as it would look like a split brain.
pub(crate) fn edits(view: ResourceView<'_>, me: &HostName, start: &Start) -> Vec<Edit> {
    let res = view.name();
    let own = |link: ResourceLink| LinkPath::res(res, link);
    let seq = start.log.seq;
    let mut edits = vec![Edit::Set(
        own(ResourceLink::SyncStatus(me.clone())),
        "0".into(),
    )];
    for (log, _) in view.logs() {
        edits.push(Edit::RemoveLog(res.clone(), log.clone()));
    }
    let mut orders = Vec::new();
    for (link, _) in view.links() {
        if let ResourceLink::Version(n, host) = link
            && host == me
            && *n != seq
            && n + 1 != seq
        {
            edits.push(Edit::Remove(own(link.clone())));
            orders.push(Edit::Order(own(link.clone()).to_string()));
        }
    }
    if let Some(previous) = &start.previous {
        let link = own(ResourceLink::Version(seq - 1, me.clone()));
        edits.push(Edit::Set(link, previous.clone()));
    }
    let previous = start.previous.as_deref().unwrap_or("");
    let version = VersionValue::chain(&start.log.host, seq, 0, previous);
    let link = own(ResourceLink::Version(seq, me.clone()));
    edits.push(Edit::Set(link, version.to_string()));
    let replay = ReplayPos::new(start.log.clone(), 0);
    edits.push(Edit::Set(
        own(ResourceLink::Replay(me.clone())),
        replay.to_string(),
    ));
    // What is thrown away is no base for a shorter sync, and no gap of this node is of interest any more.
    for link in [
        ResourceLink::SyncBase(me.clone()),
        ResourceLink::Unlogged(me.clone()),
    ] {
        if view.get(link.clone()).is_some_and(|v| v != NO_GAP) {
            edits.push(Edit::Set(own(link), NO_GAP.into()));
        }
    }
    edits.extend(orders);
    edits
}
