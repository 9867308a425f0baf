//! When to sync and from whom, and when a disk is consistent.

use alloc::format;
use alloc::string::String;

use super::Facts;
use crate::link::Switch;
use crate::name::HostName;
use crate::position::ReplayPos;
use crate::resource::ResourceView;

/// Whether `host` has not yet received all of `size` bytes.
pub fn sync_needed(view: ResourceView<'_>, host: &HostName, size: u64) -> bool {
    view.sync_status(host).is_some_and(|done| done < size)
}

/// Whether the disk of `host` holds one state of the history: synced, and replayed to where the sync became whole.
pub fn is_consistent(view: ResourceView<'_>, host: &HostName) -> bool {
    let (Some(size), Some(done), Some(replay)) =
        (view.size_bytes(), view.sync_status(host), view.replay(host))
    else {
        return false;
    };
    done >= size
        && view
            .sync_pos(host)
            .is_none_or(|from| replay.order() >= from.order())
}

/// The peer to sync from and the byte to begin at, if a sync may run now.
pub(super) fn plan_sync(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    size: u64,
    me: &HostName,
    waiting: &mut Option<String>,
) -> Option<(HostName, u64)> {
    if !sync_needed(view, me, size) || !view.switch(me, Switch::Sync) {
        return None;
    }
    let peer = view.connect(me)?;
    let source = view.replay(&peer);
    if !facts.offers.contains_key(&peer) {
        *waiting = Some(format!("cannot sync: {peer} is not connected"));
        return None;
    }
    if view.is_jammed(&peer) {
        *waiting = Some(format!(
            "sync waits: {peer} has no room for logs and writes past them (jammed-{peer} is 1)"
        ));
        return None;
    }
    if !is_consistent(view, &peer) {
        *waiting = Some(format!(
            "cannot sync: the disk of {peer} is not consistent itself"
        ));
        return None;
    }
    // What was replayed here must be on the disk there: a block read from an older disk would never be repaired.
    if source.is_none_or(|s| s.order() < pos.order()) {
        *waiting = Some(format!(
            "sync waits: {peer} has not yet written back to {pos}"
        ));
        return None;
    }
    Some((peer, view.sync_status(me).unwrap_or(0)))
}
