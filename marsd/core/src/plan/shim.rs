//! What a running or a dead shim should do.

use alloc::format;

use super::{Facts, Plan, ShimFacts, ShimPlan, SwitchStep, own_next, way_back_decided};
use crate::control::{ShimState, ShimStatus};
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;

/// Why a primary does not yet begin.
pub(super) const UNHEARD: &str = "whether the other nodes have another primary";

/// Position of the disk under a running shim: the oldest log that is not complete, as far as it is written back.
pub fn shim_position(status: &ShimStatus) -> Option<ReplayPos> {
    let log = status
        .logs
        .iter()
        .find(|l| !l.complete)
        .or(status.logs.last())?;
    let dirty = i64::try_from(log.durable.saturating_sub(log.written_back)).unwrap_or(i64::MAX);
    Some(ReplayPos {
        log: log.log.clone(),
        pos: log.written_back,
        dirty_len: dirty,
    })
}

/// Plans a shim that runs.
pub(super) fn plan_running(
    view: ResourceView<'_>,
    facts: &Facts,
    status: &ShimStatus,
    size: u64,
    me: &HostName,
    primary: bool,
) -> ShimPlan {
    // Without a disk, or without a log to go on with, it is of no use: its successor begins as it should.
    let is_begun = !matches!(status.state, ShimState::Idle | ShimState::Attached);
    if !primary || !is_begun {
        return plan_end(status);
    }
    let open = status.logs.iter().filter(|l| !l.complete).count();
    if let (ShimState::Logging, Some(newest), true) = (status.state, status.logs.last(), open < 2) {
        let next = LogName::new(newest.log.seq + 1, me);
        if view.log_size(&next).is_some() {
            return ShimPlan::Rotate(next);
        }
    }
    if let (ShimState::PassThrough, Some(pos)) = (status.state, &facts.pos) {
        let listed = view.gaps_of(me).contains(pos.log.seq + 1);
        if listed && way_back_decided(view, me) && !facts.exhausted {
            return ShimPlan::Rotate(LogName::new(own_next(view, pos.log.seq, me), me));
        }
    }
    if status.size_bytes < size {
        ShimPlan::Resize(size)
    } else {
        ShimPlan::Keep
    }
}

/// A device that is in use stays, whatever is planned.
fn plan_end(status: &ShimStatus) -> ShimPlan {
    if status.state == ShimState::Draining {
        ShimPlan::Keep
    } else {
        ShimPlan::Stop
    }
}

/// Plans the end of the daemon: nothing new is begun, devices that nobody uses are given up. Only a device that is held
/// for the successor of a killed shim still gets one: it would fail otherwise.
pub(super) fn plan_stopping(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
    plan: &mut Plan,
) {
    match &facts.shim {
        ShimFacts::Up(status) => plan.shim = plan_end(status),
        ShimFacts::Down(_) => plan_successor(view, facts, pos, me, plan),
        ShimFacts::Off => {}
    }
}

/// Whether marsd was killed between giving the disk to a shim and telling it the log. It may hold the device of a
/// predecessor.
pub(super) fn is_half_begun(status: &ShimStatus, pos: &ReplayPos, me: &HostName) -> bool {
    status.state == ShimState::Attached && pos.log.host == *me
}

/// Plans what a shim that only has its disk was to do.
pub(super) fn plan_half_begun(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
    plan: &mut Plan,
) {
    if facts.unheard {
        plan.waiting = Some(UNHEARD.into());
    } else {
        plan_successor(view, facts, pos, me, plan);
    }
}

/// Plans the succession of a shim that died while its device is held.
pub(super) fn plan_successor(
    view: ResourceView<'_>,
    facts: &Facts,
    pos: &ReplayPos,
    me: &HostName,
    plan: &mut Plan,
) {
    let next = LogName::new(own_next(view, pos.log.seq, me), me);
    if view.log_size(&next).is_none() {
        // The successor takes the rest of the log into its dirty map by itself.
        if !facts.replaying {
            let passing = facts.passed.as_ref() == Some(&pos.log);
            plan.shim = if passing {
                ShimPlan::Pass(pos.clone())
            } else {
                ShimPlan::Start(pos.clone())
            };
        }
        return;
    }
    // It died around a switch of logs: the rest of the old log goes to the disk first, while the device waits.
    match facts.log_end {
        Some(end) if end == pos.pos => {
            plan.switch = Some(SwitchStep {
                finished: pos.clone(),
                next,
            })
        }
        Some(end) if end < pos.pos => {
            plan.error = Some(format!(
                "{} ends at byte {end}, before the replayed position {}",
                pos.log, pos.pos
            ));
        }
        _ => plan.replay = Some(pos.clone()),
    }
}
