//! When to sync and from whom, and when a disk is consistent.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Facts, LogOffer, Plan, RebaseStep, SyncFrom, branch_of};
use crate::link::Switch;
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
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

/// Plans the sync: from whom and from which byte on (`symlink-spec.md` section 8.5).
///
/// What was begun is continued from the same peer, as blocks that were read there may be newer than those of another.
/// While the peer that is meant cannot be read from, [`Plan::sync_elsewhere`] names one that can.
///
/// `false` if the disk begins anew at a later log, or waits for that as an own log is gone: the log goes no further.
pub(super) fn plan_sync(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    size: u64,
    me: &HostName,
    plan: &mut Plan,
) -> bool {
    let is_needed = sync_needed(view, me, size);
    let lacks_own = lacks_own_log(view, pos, me);
    if !(is_needed || lacks_own) || !view.switch(me, Switch::Sync) {
        return true;
    }
    let Some(connect) = view.connect(me) else {
        return true;
    };
    let start = view.sync_status(me).unwrap_or(0);
    let begun = facts.sync_source.clone().filter(|_| start > 0);
    let meant = begun.unwrap_or_else(|| connect.clone());
    let Err(why) = usable(view, facts, pos, me, &meant) else {
        if (start == 0 || lacks_own) && begins_later(view, facts, pos, &meant, lacks_own, plan) {
            return plan.rebase.is_none() && !lacks_own;
        }
        plan.sync = is_needed.then_some(SyncFrom {
            peer: meant,
            start,
            gap: None,
        });
        return true;
    };
    plan.waiting = Some(why);
    let primary = view.primary().flatten();
    let others = facts.offers.keys().cloned();
    plan.sync_elsewhere = [connect]
        .into_iter()
        .chain(primary)
        .chain(others)
        .find(|peer| peer != me && *peer != meant && usable(view, facts, pos, me, peer).is_ok());
    true
}

/// Whether the log at which this node, whose disk is not consistent, stands is an own one that is not here: it was away
/// since it wrote that. Own logs are not fetched.
fn lacks_own_log(view: ResourceView<'_>, pos: &ReplayPos, me: &HostName) -> bool {
    pos.log.host == *me && view.log_size(&pos.log).is_none() && !is_consistent(view, me)
}

/// A sync of which nothing is done yet begins at the log that its source is writing: what stands before that need not be
/// replayed, and may be damaged or gone. So does one whose end cannot be reached, as this node lacks an own log.
fn begins_later(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    peer: &HostName,
    lacks_own: bool,
    plan: &mut Plan,
) -> bool {
    let offers = |log: &LogName| facts.offers.values().flatten().any(|o| o.log == *log);
    let source = view.replay(peer).map(|at| at.log);
    let is_later = source.as_ref().is_some_and(|l| l.seq > pos.log.seq);
    if is_later
        && view.is_designated_primary(peer)
        && facts.offers.get(peer).is_none_or(Vec::is_empty)
    {
        plan.waiting = Some(format!(
            "sync waits: {peer} has not yet told what logs it has"
        ));
        return true;
    }
    if let Some(log) = source.filter(|log| log.seq > pos.log.seq && offers(log))
        && let Some(previous) = view.version_raw(log.seq - 1, peer)
    {
        plan.rebase = Some(RebaseStep {
            previous: previous.into(),
            log,
        });
        return true;
    }
    let is_bad = facts.bad_copies.values().any(|copy| copy.is_proven);
    let later = |o: &LogOffer| o.log.seq > pos.log.seq;
    let has_more = view.replay(peer).is_some_and(|at| at.order() > pos.order());
    let is_gone = (lacks_own && has_more)
        || (!offers(&pos.log) && facts.offers.values().flatten().any(later));
    if is_bad || is_gone {
        let what = if is_bad {
            "damaged"
        } else {
            "not there any more"
        };
        plan.waiting = Some(format!(
            "sync waits until {peer} has left {}, which is {what} (on the primary: 'marsadm log-rotate {}')",
            pos.log,
            view.name()
        ));
    }
    is_bad || is_gone
}

/// Why nothing can be synced from `peer` now, if that is so.
fn usable(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
    peer: &HostName,
) -> Result<(), String> {
    if !facts.offers.contains_key(peer) {
        return Err(format!("cannot sync: {peer} is not connected"));
    }
    if view.is_jammed(peer) {
        return Err(format!(
            "sync waits: {peer} has no room for logs and writes past them (jammed-{peer} is 1)"
        ));
    }
    if !is_consistent(view, peer) {
        return Err(format!(
            "cannot sync: the disk of {peer} is not consistent itself"
        ));
    }
    // What was replayed here must be on the disk there: a block read from an older disk would never be repaired.
    let source = view.replay(peer).filter(|s| s.order() >= pos.order());
    let Some(source) = source else {
        return Err(format!(
            "sync waits: {peer} has not yet written back to {pos}"
        ));
    };
    let primary = view.primary().flatten();
    let witness = primary.as_ref().unwrap_or(me);
    let is_off = primary
        .as_ref()
        .is_some_and(|p| branch_of(view, p, peer).is_some());
    if is_off || (peer != witness && !agree(view, (peer, source.log.seq), witness, pos.log.seq)) {
        return Err(format!(
            "cannot sync: {peer} has another history than {witness}"
        ));
    }
    Ok(())
}

/// Whether a node, which stands at log `at`, and `witness` have applied the same history from the log before `from` on, as
/// far as both have one.
fn agree(
    view: ResourceView<'_>,
    (node, at): (&HostName, u64),
    witness: &HostName,
    from: u64,
) -> bool {
    let reached = view.replay(witness).map_or(0, |replay| replay.log.seq);
    (from.saturating_sub(1)..=at).all(|seq| {
        match (view.version(seq, node), view.version(seq, witness)) {
            (Some(a), Some(b)) if seq < at.min(reached) || a.pos == b.pos => a == b,
            (Some(a), Some(b)) => a.log_host == b.log_host,
            _ => true,
        }
    })
}
