//! What shims report: positions, the end of a request, their death.

use std::time::Duration;

use tokio::time::Instant;

use mars_core::control::{Attach, LogStatus, Refusal, ShimState, ShimStatus, Verb};
use mars_core::log_format::LogTime;
use mars_core::plan::{ShimPlan, is_consistent, position_links, shim_position};
use mars_core::{LinkPath, LogName, ReplayPos, ResourceName};

use super::res::{PositionQuery, Res, Shim, ShimUp};
use super::{Brain, ShimEvent};
use crate::shims::{StartJob, beginning};

/// Time before a refused stop is tried again.
const BUSY_RETRY: Duration = Duration::from_millis(300);
/// Successors tried for one dead shim before its device is given up.
const SUCCESSORS: u32 = 3;

impl Brain {
    /// Looks for shims of an earlier marsd.
    pub(super) fn adopt_shims(&mut self) {
        for res in self.shims.left_running() {
            let state = self.resources.entry(res.clone()).or_default();
            state.shim = Shim::Starting(None);
            state.shim_gen += 1;
            self.shims.adopt(res, state.shim_gen);
        }
    }

    /// Carries out what the plan wants of the shim.
    pub(super) fn act_shim(&mut self, name: &ResourceName, plan: ShimPlan, now: Instant) {
        match plan {
            ShimPlan::Start(from) => return self.start_shim(name, from, false, now),
            ShimPlan::Pass(from) => return self.start_shim(name, from, true, now),
            _ => {}
        }
        let Some(Shim::Up(up)) = self.resources.get_mut(name).map(|r| &mut r.shim) else {
            return;
        };
        let quiet = up.is_quiet(now);
        let verb = match plan {
            ShimPlan::Rotate(log) => Verb::Log { log, pos: 0 },
            ShimPlan::Resize(size_bytes) => Verb::Resize { size_bytes },
            ShimPlan::Stop => Verb::Stop,
            ShimPlan::Keep | ShimPlan::Start(_) | ShimPlan::Pass(_) => return,
        };
        if quiet {
            return;
        }
        if matches!(&verb, Verb::Log { log, .. } if !self.leave_gap(name, log)) {
            return;
        }
        if let Some(Shim::Up(up)) = self.resources.get_mut(name).map(|r| &mut r.shim) {
            up.stopping = verb == Verb::Stop;
            up.pending = Some(up.send(verb));
        }
    }

    fn start_shim(&mut self, name: &ResourceName, from: ReplayPos, pass: bool, now: Instant) {
        if let Some(Shim::Up(up)) = self.resources.get_mut(name).map(|r| &mut r.shim) {
            if !up.is_quiet(now) {
                tracing::info!(resource = %name, "its shim has a disk, and goes on at {from}");
                up.pending = Some(up.send(beginning(from, pass)));
            }
            return;
        }
        let known = self.tree.resource(name).gaps_of(&self.me).last();
        let view = self.tree.resource(name);
        let (Some(disk), Some(size_bytes)) = (view.data(&self.me), view.size_bytes()) else {
            return;
        };
        let device = self
            .device_dir
            .join(view.device(&self.me).unwrap_or(name.as_str()));
        let mut attach = Attach {
            resource: name.clone(),
            device: device.to_string_lossy().into_owned(),
            disk: disk.into(),
            size_bytes,
            log_dir: self.dir.resource_dir(name).to_string_lossy().into_owned(),
            resume: None,
        };
        let dirty_mib = self.shim_dirty_mib();
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let (hold, fuse) = match std::mem::take(&mut res.shim) {
            Shim::Off => (None, None),
            Shim::Down(resume, fd) => {
                attach.resume = Some(resume.clone());
                let copy = fd.try_clone().ok();
                (Some((resume, fd)), copy)
            }
            other => {
                res.shim = other;
                return;
            }
        };
        res.shim = Shim::Starting(hold);
        // What it does about the logs shows when it is up.
        res.passed = None;
        res.shim_gen += 1;
        tracing::info!(resource = %name, "starting the shim at {from}");
        let job = StartJob {
            attach,
            from,
            pass,
            forget_map: known.is_none() && !pass,
            fuse,
            dirty_mib,
        };
        self.shims.start(name.clone(), res.shim_gen, job);
    }

    pub(super) fn apply_shim(
        &mut self,
        name: ResourceName,
        generation: u64,
        event: ShimEvent,
        now: Instant,
    ) {
        let Some(res) = self.resources.get_mut(&name) else {
            return;
        };
        if res.shim_gen != generation {
            return;
        }
        match event {
            ShimEvent::Up(socket, status) => {
                let hold = match std::mem::take(&mut res.shim) {
                    Shim::Starting(hold) => hold,
                    _ => None,
                };
                res.shim_tries = 0;
                res.failed = None;
                res.shim = Shim::Up(Box::new(ShimUp::new(
                    name.clone(),
                    socket,
                    status.clone(),
                    hold,
                )));
                tracing::info!(resource = %name, "device {} is served", status.device.as_deref().unwrap_or("(none)"));
                self.take_status(&name, &status);
            }
            ShimEvent::Status(status) => self.take_status(&name, &status),
            ShimEvent::Hold(resume, fd) => match &mut res.shim {
                Shim::Starting(hold) => *hold = Some((resume, fd)),
                Shim::Up(up) => up.hold = Some((resume, fd)),
                _ => {}
            },
            ShimEvent::Reply(id, result) => self.apply_reply(&name, id, result, now),
            ShimEvent::Failed(why) => self.apply_start_failed(&name, why, now),
            ShimEvent::Gone => self.apply_gone(&name, now),
        }
        self.dirty.insert(name);
    }

    fn apply_start_failed(&mut self, name: &ResourceName, why: String, now: Instant) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        res.shim_tries += 1;
        match std::mem::take(&mut res.shim) {
            Shim::Starting(Some((resume, fd))) if res.shim_tries < SUCCESSORS => {
                res.shim = Shim::Down(resume, fd)
            }
            Shim::Starting(Some(_)) => {
                tracing::error!(resource = %name, "the device is given up after {SUCCESSORS} tries");
            }
            _ => {}
        }
        // Only a shim that is adopted has no position yet.
        if res.pos.is_none() {
            tracing::info!(resource = %name, "the shim of an earlier marsd is gone: {why}");
        } else {
            res.fail_shim(name, format!("shim: {why}"), now);
        }
    }

    fn apply_gone(&mut self, name: &ResourceName, now: Instant) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let Shim::Up(up) = std::mem::take(&mut res.shim) else {
            return;
        };
        if up.stopped {
            tracing::info!(resource = %name, "the shim has stopped");
            return;
        }
        res.log_end = None;
        match up.hold {
            Some((resume, fd)) => {
                tracing::warn!(resource = %name, "the shim died, its device is held for a successor");
                res.shim = Shim::Down(resume, fd);
            }
            None => res.fail_shim(name, "the shim died and its device with it".into(), now),
        }
        let logs: Vec<_> = self
            .tree
            .resource(name)
            .logs()
            .map(|(l, _)| l.clone())
            .collect();
        for log in logs {
            self.refresh_log(name, &log);
        }
    }

    fn apply_reply(
        &mut self,
        name: &ResourceName,
        id: u64,
        result: Result<ShimStatus, Refusal>,
        now: Instant,
    ) {
        let Some(Shim::Up(up)) = self.resources.get_mut(name).map(|r| &mut r.shim) else {
            return;
        };
        if let Some(query) = up.queries.remove(&id) {
            let answer = result
                .as_ref()
                .map_err(ToString::to_string)
                .and_then(end_of);
            let _ = query.send(answer);
        } else if up.pending == Some(id) {
            up.pending = None;
            match &result {
                Ok(_) => up.stopped = up.stopping,
                Err(Refusal::Busy { device, by }) if self.stopping.is_some() => {
                    up.kept = true;
                    tracing::info!(resource = %name, "{device} is in use ({by}): its shim goes on");
                }
                Err(Refusal::Busy { device, by }) => {
                    up.quiet_until = Some(now + BUSY_RETRY);
                    let text = format!("{device} is in use ({by}): it goes when it is closed");
                    self.warn_once(&format!("resource-{name}"), &text);
                }
                Err(other) => {
                    up.quiet_until = Some(now + BUSY_RETRY);
                    self.warn_once(&format!("resource-{name}"), &format!("its shim: {other}"));
                }
            }
        }
        if let Ok(status) = result {
            let names: Vec<_> = status.logs.iter().map(|l| l.log.clone()).collect();
            self.take_status(name, &status);
            for log in names {
                self.refresh_log(name, &log);
            }
        }
    }

    /// Moves the position of the node to where the shim has written back to.
    pub(super) fn take_status(&mut self, name: &ResourceName, status: &ShimStatus) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let jammed = res.is_jammed();
        if let Shim::Up(up) = &mut res.shim {
            up.status.clone_from(status);
        }
        if res.is_jammed() != jammed {
            self.check_space();
        }
        self.dirty.insert(name.clone());
        let Some(new) = shim_position(status) else {
            return;
        };
        let finished: Vec<LogStatus> = status
            .logs
            .iter()
            .filter(|l| l.log.seq < new.log.seq)
            .cloned()
            .collect();
        for old in finished {
            self.finish_log(name, &old);
        }
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        if let Some(log) = status.logs.iter().find(|l| l.log == new.log) {
            res.seen.log_durable = Some((log.log.clone(), log.durable));
            let stamp = log.written_back_stamp;
            res.seen.applied_time = LogTime {
                secs: stamp.secs,
                nanos: stamp.nanos,
            };
            let stopped = matches!(&res.shim, Shim::Up(up) if up.stopped);
            res.log_end = stopped.then_some(log.logged);
        }
        let switched = res.pos.as_ref().is_some_and(|pos| pos.log != new.log);
        res.pos = Some(new);
        if switched {
            self.publish_now(name);
        }
    }

    /// Before a shim that passes through goes on with `next`: the links of the log before the gap, and of the gap; false if
    /// that failed.
    fn leave_gap(&mut self, name: &ResourceName, next: &LogName) -> bool {
        let Some(pos) = self.resources.get(name).and_then(|r| r.pos.clone()) else {
            return false;
        };
        if next.seq > pos.log.seq + 1 {
            for (link, value) in position_links(self.tree.resource(name), &pos, pos.pos, &self.me) {
                if !self.set_and_check(LinkPath::res(name, link), &value) {
                    return false;
                }
            }
        }
        self.bridge_gap(name, &pos, next)
    }

    /// Writes the last version link of a log, once, when it is wholly on the disk.
    fn finish_log(&mut self, name: &ResourceName, old: &LogStatus) {
        // That of a shim which was adopted a moment ago is not yet known but from its link.
        let known = self.resources.get(name).and_then(|res| res.pos.clone());
        let known = known.or_else(|| self.tree.resource(name).replay(&self.me));
        if known.is_none_or(|pos| pos.log.seq > old.log.seq) {
            return;
        }
        let end = ReplayPos::new(old.log.clone(), old.logged);
        for (link, value) in position_links(self.tree.resource(name), &end, old.logged, &self.me) {
            self.set_link(LinkPath::res(name, link), &value);
        }
    }

    /// Answers the position from which all that was read of the disk until now is consistent.
    pub(super) fn apply_end_position(&mut self, name: &ResourceName, answer: PositionQuery) {
        let Some(res) = self.resources.get_mut(name) else {
            let _ = answer.send(Err(format!("resource {name} is unknown here")));
            return;
        };
        match &mut res.shim {
            Shim::Up(up) => {
                let id = up.send(Verb::Status);
                up.queries.insert(id, answer);
            }
            Shim::Off if !is_consistent(self.tree.resource(name), &self.me) => {
                let _ = answer.send(Err(format!(
                    "the disk of {name} is not consistent any more"
                )));
            }
            Shim::Off => {
                let size = |log| self.tree.resource(name).log_size(log);
                let _ = answer.send(match &res.pos {
                    None => Err(format!("this node has not joined {name}")),
                    // Behind the records of an own log may stand what was prepared for more.
                    Some(pos) if pos.log.host == self.me && res.log_end.is_none() => Err(format!(
                        "the end of {} is not yet known (is replay switched off?), try again",
                        pos.log
                    )),
                    Some(pos) => {
                        let end = res.log_end.or(size(&pos.log)).unwrap_or(pos.pos);
                        Ok(ReplayPos::new(pos.log.clone(), end))
                    }
                });
            }
            Shim::Starting(_) | Shim::Down(..) => {
                let _ = answer.send(Err("the shim is being started, try again".into()));
            }
        }
    }
}

fn end_of(status: &ShimStatus) -> Result<ReplayPos, String> {
    if status.state != ShimState::Logging {
        return Err("the source writes past its logs".into());
    }
    let log = status.logs.last().ok_or("the shim has no log")?;
    // The disk has nothing that is not on stable storage in the log, and what is not may be lost.
    Ok(ReplayPos::new(log.log.clone(), log.durable))
}

impl Res {
    /// Whether logging had to stop although the device is served.
    pub(super) fn is_jammed(&self) -> bool {
        matches!(&self.shim, Shim::Up(up) if up.status.state == ShimState::PassThrough)
    }

    /// Cancels every worker.
    pub(super) fn cancel_all(&mut self) {
        self.stop_replay();
        if let Some(run) = &self.fetch {
            run.cancel.cancel();
        }
        if let Some(run) = &self.sync {
            run.cancel.cancel();
        }
        self.verify.cancel();
    }
}
