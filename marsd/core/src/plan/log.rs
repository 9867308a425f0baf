//! What happens at the present position of the log: replay on, switch to the next log, or begin to log.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Facts, Plan, ShimPlan, SwitchStep, fetch, own_next, twin, way_back_decided};
use crate::link::Switch;
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;
use crate::version::VersionValue;

/// The decision of `symlink-spec.md` section 8 at `pos`, while no shim and no sync runs.
pub(super) fn plan_log(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
    primary: bool,
    plan: &mut Plan,
) {
    let own_and_missing = pos.log.host == *me && view.log_size(&pos.log).is_none();
    // A log that somebody has begun behind a missing one says that it goes on without that.
    let next = LogName::new(own_next(view, pos.log.seq, me), me);
    let end = if own_and_missing && (pos.pos == 0 || view.log_size(&next).is_some()) {
        Some(pos.pos)
    } else {
        facts.log_end
    };
    let replay_allowed = view.switch(me, Switch::AllowReplay);
    match end {
        None => {
            // Reading the log is what finds its end.
            if view.log_size(&pos.log).is_none() {
                plan_missing(view, facts, pos, me, primary, plan);
            } else if replay_allowed {
                plan.replay = Some(pos.clone());
            }
        }
        Some(end) if end < pos.pos && plan.fetch.as_ref().is_some_and(|(l, _)| *l == pos.log) => {
            plan.waiting = Some(format!(
                "{} is fetched again: byte {} is not yet here, which was replayed last",
                pos.log, pos.pos
            ));
        }
        Some(end) if end < pos.pos => {
            plan.error = Some(format!(
                "{} ends at byte {end}, but byte {} of it was already replayed: the logfile is damaged; \
                 remove it so that it is fetched again, or run 'marsadm invalidate'",
                pos.log, pos.pos
            ));
        }
        Some(end) => {
            let applied = end == pos.pos;
            match next_log(view, facts, &pos.log, me) {
                Some(next) if applied && is_complete(view, facts, pos, &next, me) => {
                    plan_switch(view, pos, me, next, plan);
                }
                None if applied && primary && !more_is_offered(view, facts, pos, me) => {
                    plan_logging(view, facts, pos, me, plan)
                }
                next => {
                    if next.is_some() && applied {
                        plan.waiting = surplus(facts, pos);
                    }
                    plan.replay = replay_allowed.then(|| pos.clone());
                }
            }
        }
    }
}

/// The log of the position is not here.
fn plan_missing(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
    primary: bool,
    plan: &mut Plan,
) {
    let name = view.name();
    let later = |log: &LogName| log.seq > pos.log.seq;
    if pos.log.host == *me {
        plan.error = primary.then(|| {
            format!(
                "{} is missing: what was logged behind byte {} is lost unless the file is put back; \
                 to go on without it: 'marsadm log-rotate {name}' here, then 'marsadm invalidate-remote {name}'",
                pos.log, pos.pos
            )
        });
    } else if plan.fetch.as_ref().is_none_or(|(log, _)| later(log))
        && twin::known(view, facts).any(later)
    {
        plan.waiting = Some(format!(
            "{} is missing here, and no connected node has it: put the file back on one of them, or run \
             'marsadm invalidate {name}' here",
            pos.log
        ));
    }
}

/// A new primary first takes all that a connected peer still has of the log before.
fn more_is_offered(view: ResourceView<'_>, facts: &Facts, pos: &ReplayPos, me: &HostName) -> bool {
    pos.log.host != *me
        && view.switch(me, Switch::Connect)
        && facts
            .offers
            .iter()
            .filter(|(peer, _)| !is_proven_bad(facts, peer))
            .flat_map(|(_, offers)| offers)
            .any(|o| o.log == pos.log && o.durable > pos.pos)
}

/// Whether what `peer` has of the log of the position is of no use.
fn is_proven_bad(facts: &Facts, peer: &HostName) -> bool {
    let copy = facts.bad_copies.get(peer);
    copy.is_some_and(|copy| copy.is_proven)
}

fn plan_logging(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
    plan: &mut Plan,
) {
    if facts.passed.as_ref() == Some(&pos.log) {
        // Until it is decided otherwise, and there is room, writes go past the logs on.
        let back = way_back_decided(view, me) && !facts.exhausted;
        if !back || !view.gaps_of(me).contains(pos.log.seq + 1) {
            plan.shim = ShimPlan::Pass(pos.clone());
            return;
        }
    } else if facts.full {
        plan.shim = ShimPlan::Pass(pos.clone());
        return;
    }
    if facts.passed.is_none() && pos.pos == 0 && pos.log.host == *me {
        plan.shim = ShimPlan::Start(pos.clone());
    } else {
        plan.switch = Some(SwitchStep {
            finished: pos.clone(),
            next: LogName::new(own_next(view, pos.log.seq, me), me),
        });
    }
}

/// The log that follows `log`, here or at a connected peer.
fn next_log(
    view: ResourceView<'_>,
    facts: &Facts,
    log: &LogName,
    me: &HostName,
) -> Option<LogName> {
    let next = own_next(view, log.seq, me);
    twin::known(view, facts)
        .find(|l| l.seq == next && !twin::is_void(view, facts, l))
        .cloned()
}

/// Nothing will be added to the log of `pos`, which is applied up to its present end.
fn is_complete(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    next: &LogName,
    me: &HostName,
) -> bool {
    // An own log is finished once no shim runs; the next log is fetched only after this one was complete.
    pos.log.host == *me
        || view.log_size(next).is_some_and(|size| size > 0)
        || facts
            .offers
            .values()
            .flatten()
            .any(|o| o.log == pos.log && o.complete && o.durable == pos.pos)
}

/// What was applied here of a log goes beyond the end at which others have left it.
fn surplus(facts: &Facts, pos: &ReplayPos) -> Option<String> {
    let (peer, end) = fetch::finished_before(facts, &pos.log, pos.pos)?;
    Some(format!(
        "{} ends at byte {end} on {peer}, but {} bytes of it were replayed here: if this stays, it is a split brain: \
         keep one side, 'marsadm invalidate' the other",
        pos.log, pos.pos
    ))
}

fn plan_switch(
    view: ResourceView<'_>,
    pos: &ReplayPos,
    me: &HostName,
    next: LogName,
    plan: &mut Plan,
) {
    let seq = pos.log.seq;
    let Some(mine) = chain_version(view, me, pos) else {
        plan.waiting = Some(format!(
            "version-{:09}-{me} is missing: cannot check log {seq} for split brain",
            seq - 1
        ));
        return;
    };
    let witnesses: &[&HostName] = if is_way_of_primary(view, seq, &mine, &next) {
        &[]
    } else {
        &[&pos.log.host, &next.host]
    };
    for &witness in witnesses.iter().filter(|w| **w != me) {
        match view.version(seq, witness) {
            Some(theirs) if theirs.to_string() == mine => {}
            Some(theirs) if theirs.pos == pos.pos => {
                plan.error = Some(split_brain(seq, me, witness));
                return;
            }
            Some(theirs) if theirs.pos > pos.pos => {
                let name = view.name();
                let way = if view.primary().flatten().as_ref() == Some(me) {
                    format!("run 'marsadm primary --force {name}' on a node that has it, then ")
                } else {
                    String::new()
                };
                plan.waiting = Some(format!(
                    "{} has {} bytes on {witness}, but {} are here, and no connected node offers the rest: \
                     if this stays, the rest is lost: {way}run 'marsadm invalidate {name}' here",
                    pos.log, theirs.pos, pos.pos,
                ));
                return;
            }
            theirs => {
                let at = theirs.map_or_else(|| "none".to_string(), |v| v.pos.to_string());
                plan.waiting = Some(format!(
                    "log {seq} ends at byte {} here, but version-{seq:09}-{witness} says {at}: \
                     if this stays, it is a split brain: keep one side, 'marsadm invalidate' the other",
                    pos.pos
                ));
                return;
            }
        }
    }
    // The log has no other end than this.
    let disks = [me, &next.host];
    if let Some(why) = disks
        .iter()
        .find_map(|of| synced_elsewhere(view, pos, of, &next))
    {
        plan.error = Some(why);
        return;
    }
    plan.switch = Some(SwitchStep {
        finished: pos.clone(),
        next,
    });
}

/// Why the disk of `host`, as it was synced, is not what the way that leads from the end of the log of `pos` to `next` makes
/// of it: its source had written then what is not on this way.
fn synced_elsewhere(
    view: ResourceView<'_>,
    pos: &ReplayPos,
    host: &HostName,
    next: &LogName,
) -> Option<String> {
    let until = view.sync_pos(host).filter(|s| s.order() > pos.order())?;
    let is_off = until.log.seq == pos.log.seq || (until.log.seq == next.seq && until.log != *next);
    is_off.then(|| {
        format!(
            "SPLIT BRAIN at log {}: the disk of {host} was synced from a state that had byte {} of {}, but {} ends at \
             byte {} and {next} follows: run 'marsadm invalidate {}' here",
            until.log.seq,
            until.pos,
            until.log,
            pos.log,
            pos.pos,
            view.name()
        )
    })
}

/// Whether the designated primary itself has gone on from log `seq` to `next`, at the same position of the same history.
/// Then it does not count what the writer of log `seq` has or says: the decision fell for this way.
fn is_way_of_primary(view: ResourceView<'_>, seq: u64, mine: &str, next: &LogName) -> bool {
    view.primary().flatten().is_some_and(|primary| {
        view.version_raw(seq, &primary) == Some(mine)
            && view
                .version(seq + 1, &primary)
                .is_some_and(|v| v.log_host == next.host)
    })
}

pub(super) fn split_brain(seq: u64, me: &HostName, witness: &HostName) -> String {
    format!(
        "SPLIT BRAIN at log {seq}: the version links of {me} and {witness} differ at the same position; \
         keep one side as primary and run 'marsadm invalidate' on the other"
    )
}

/// The value that `version-SEQ-me` must have at `pos`; `None` while the link before it is missing.
pub fn chain_version(view: ResourceView<'_>, me: &HostName, pos: &ReplayPos) -> Option<String> {
    let seq = pos.log.seq;
    let previous = if seq <= 1 {
        ""
    } else {
        view.version_raw(seq - 1, me)?
    };
    Some(VersionValue::chain(&pos.log.host, seq, pos.pos, previous).to_string())
}

/// Two logs of one number, or a gap in the numbers, from that of `present` on: nothing may be started.
pub(super) fn log_conflict(
    view: ResourceView<'_>,
    facts: &Facts,
    present: &LogName,
    me: &HostName,
) -> Option<String> {
    let mut names: Vec<&LogName> = twin::known(view, facts)
        .filter(|log| log.seq >= present.seq && !twin::is_void(view, facts, log))
        .collect();
    names.sort();
    names.dedup();
    let gaps: Vec<_> = view.all_gaps().collect();
    let gap_at = |seq: u64| gaps.iter().find(|(_, list)| list.contains(seq));
    for log in names.iter().filter(|log| log.host != *me) {
        if let Some((maker, _)) = gap_at(log.seq) {
            return Some(format!(
                "SPLIT BRAIN: {maker} wrote past the logs where {log} stands; \
                 keep one side as primary and run 'marsadm invalidate' on the other"
            ));
        }
    }
    for pair in names.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if a.seq == b.seq {
            return Some(format!(
                "SPLIT BRAIN: {a} and {b} have the same number; \
                 keep one side as primary and run 'marsadm invalidate' on the other"
            ));
        }
        let missing = (a.seq + 1..b.seq).any(|seq| gap_at(seq).is_none());
        if missing && view.log_size(b).is_some() {
            return Some(format!(
                "logfiles are not consecutive: {a} is followed by {b}; put back what is missing, or run \
                 'marsadm invalidate {}' on the node that lacks it",
                view.name()
            ));
        }
    }
    None
}
