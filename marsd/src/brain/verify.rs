//! Comparing a disk by order: begins and stops the comparison, answers what it asks, and publishes how far it is.

use std::time::Duration;

use tokio::time::Instant;

use mars_core::link::{ActualKey, LinkPath, ResourceLink};
use mars_core::plan::{Facts, VerifyStep, logs_between, plan_verify};
use mars_core::verify::{VerifyAnswer, VerifyMode, VerifyOrder, VerifyOutcome, VerifyState};
use mars_core::{HostName, ReplayPos, ResourceName};
use tokio::sync::oneshot;
use tracing::Instrument;

use super::spawn::Reporter;
use super::verify_run::run_verify;
use super::{Brain, VerifyAsk, VerifyGrant, WorkEvent};
use crate::work::{Cancel, LogPart, VerifyJob};

/// How long a peer may be away before an order fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two publications of how far it is.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(300);

/// The comparison of one resource.
#[derive(Debug, Default)]
pub(super) struct Verify {
    run: Option<VerifyRun>,
    /// Since when an order waits.
    waiting: Option<Instant>,
}

#[derive(Debug)]
struct VerifyRun {
    run: u64,
    order: VerifyOrder,
    cancel: Cancel,
    /// Why it was cancelled.
    reason: Option<String>,
    /// No replay may run.
    holds: bool,
    /// What it waits for.
    ask: Option<VerifyAsk>,
    bytes: u64,
    published: Option<(u64, Instant)>,
}

impl Verify {
    /// Whether the disk is (about to be) held by a comparison.
    pub(super) fn holds(&self) -> bool {
        self.run.as_ref().is_some_and(|r| r.holds)
    }

    /// Whether a comparison runs.
    pub(super) fn runs(&self) -> bool {
        self.run.is_some()
    }

    pub(super) fn cancel(&self) {
        if let Some(run) = &self.run {
            run.cancel.cancel();
        }
    }

    fn stop(&mut self, why: &str) {
        if let Some(run) = &mut self.run {
            run.reason.get_or_insert_with(|| why.to_owned());
            run.cancel.cancel();
        }
    }

    fn running(&mut self, run: u64) -> Option<&mut VerifyRun> {
        self.run.as_mut().filter(|r| r.run == run)
    }
}

impl Brain {
    /// Does what the last order wants.
    pub(super) fn act_verify(&mut self, name: &ResourceName, facts: &Facts, now: Instant) {
        let step = plan_verify(self.tree.resource(name), facts, &self.me);
        let Some(verify) = self.resources.get_mut(name).map(|r| &mut r.verify) else {
            return;
        };
        if !matches!(step, VerifyStep::Wait(..)) {
            verify.waiting = None;
        }
        let current = verify.run.as_ref().map(|r| r.order);
        match (step, current) {
            (VerifyStep::Nothing, Some(_)) => verify.stop("the order is gone"),
            (VerifyStep::Nothing, None) => {}
            (
                VerifyStep::Run(order, _)
                | VerifyStep::Wait(order, _)
                | VerifyStep::Refuse(order, _),
                Some(old),
            ) if order != old => verify.stop("stopped by another order"),
            (VerifyStep::Refuse(_, why), Some(_)) => verify.stop(&why),
            // A comparison that runs notices itself that the peer is gone.
            (VerifyStep::Wait(..), Some(_)) => {}
            (VerifyStep::Run(_, peer), Some(_)) => self.serve_verify(name, facts, &peer, now),
            (VerifyStep::Run(order, peer), None) => self.start_verify(name, order, &peer, now),
            (VerifyStep::Refuse(order, why), None) => {
                self.answer_verify(name, order.number, VerifyState::Failed(why));
            }
            (VerifyStep::Wait(order, why), None) => {
                let since = *verify.waiting.get_or_insert(now);
                if now >= since + PATIENCE {
                    verify.waiting = None;
                    self.answer_verify(name, order.number, VerifyState::Failed(why));
                }
            }
        }
    }

    fn start_verify(
        &mut self,
        name: &ResourceName,
        order: VerifyOrder,
        peer: &HostName,
        now: Instant,
    ) {
        let view = self.tree.resource(name);
        let (Some(disk), Some(size_bytes)) = (view.data(&self.me), view.size_bytes()) else {
            return;
        };
        let cancel = Cancel::new();
        let job = VerifyJob {
            disk_path: disk.into(),
            size_bytes,
            repair: order.mode == VerifyMode::Repair,
            silence: self.net.silence(),
            cancel: cancel.clone(),
        };
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let run = res.next_run();
        res.verify.run = Some(VerifyRun {
            run,
            order,
            cancel,
            reason: None,
            holds: false,
            ask: None,
            bytes: 0,
            published: Some((0, now)),
        });
        tracing::info!(resource = %name, %peer, "verify: order {order}, the disk is compared with that of {peer}");
        self.answer_verify(name, order.number, VerifyState::Running(0));
        let reporter = Reporter {
            events: self.events.clone(),
            res: name.clone(),
            run,
        };
        let about = tracing::error_span!("verify", resource = %name, %peer);
        tokio::spawn(run_verify(job, reporter).instrument(about));
    }

    /// Answers what a running comparison waits for, if that is so now, and publishes how far it is.
    fn serve_verify(&mut self, name: &ResourceName, facts: &Facts, peer: &HostName, now: Instant) {
        let Some(run) = self
            .resources
            .get_mut(name)
            .and_then(|r| r.verify.run.as_mut())
        else {
            return;
        };
        let (number, bytes) = (run.order.number, run.bytes);
        let due = run
            .published
            .is_none_or(|(old, at)| old != bytes && now >= at + PUBLISH_INTERVAL);
        if due {
            run.published = Some((bytes, now));
        }
        let ask = run.ask.take();
        if due {
            self.answer_verify(name, number, VerifyState::Running(bytes));
        }
        let kept = ask.and_then(|ask| self.serve_ask(name, facts, peer, ask));
        if let Some(run) = self
            .resources
            .get_mut(name)
            .and_then(|r| r.verify.run.as_mut())
        {
            run.ask = kept;
        }
    }

    /// Returns what cannot be answered yet.
    fn serve_ask(
        &self,
        name: &ResourceName,
        facts: &Facts,
        peer: &HostName,
        ask: VerifyAsk,
    ) -> Option<VerifyAsk> {
        match ask {
            VerifyAsk::Hold(tx) => match self.grant(name, peer) {
                Some(grant) => drop(tx.send(grant)),
                None => return Some(VerifyAsk::Hold(tx)),
            },
            VerifyAsk::Logs(from, to, tx) => match self.logs(name, facts, &from, &to) {
                Ok(None) => return Some(VerifyAsk::Logs(from, to, tx)),
                Ok(Some(parts)) => drop(tx.send(Ok(parts))),
                Err(why) => drop(tx.send(Err(why))),
            },
            VerifyAsk::Release(to, tx) => {
                let reached = |to: &ReplayPos| {
                    facts
                        .pos
                        .as_ref()
                        .is_some_and(|pos| pos.order() >= to.order())
                };
                match to {
                    Some(to) if !reached(&to) => return Some(VerifyAsk::Release(Some(to), tx)),
                    _ => drop(tx.send(())),
                }
            }
        }
        None
    }

    fn grant(&self, name: &ResourceName, peer: &HostName) -> Option<VerifyGrant> {
        let res = self.resources.get(name)?;
        if res.replay.is_some() || res.sync.is_some() || res.paused.is_some() {
            return None;
        }
        let conn = self.peers.get(peer)?.conn.clone()?;
        let mine = res.pos.clone()?;
        // What the peer has published is on its disk before anything of it is read.
        let theirs = self.tree.resource(name).replay(peer)?;
        let both_have = if theirs.order() < mine.order() {
            theirs
        } else {
            mine
        };
        let traffic = self.transfer.traffic(name);
        Some(VerifyGrant {
            conn,
            traffic,
            both_have,
        })
    }

    fn logs(
        &self,
        name: &ResourceName,
        facts: &Facts,
        from: &ReplayPos,
        to: &ReplayPos,
    ) -> Result<Option<Vec<LogPart>>, String> {
        let spans = logs_between(self.tree.resource(name), facts, &self.me, from, to)?;
        let part = |span: mars_core::plan::LogSpan| LogPart {
            path: self.dir.log_path(name, &span.log),
            from: span.from,
            to: span.to,
        };
        Ok(spans.map(|spans| spans.into_iter().map(part).collect()))
    }

    pub(super) fn apply_verify_asks(&mut self, name: &ResourceName, run: u64, ask: VerifyAsk) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        if let Some(run) = res.verify.running(run) {
            run.holds = !matches!(ask, VerifyAsk::Release(..));
            run.ask = Some(ask);
        }
    }

    pub(super) fn apply_verified(&mut self, name: &ResourceName, run: u64, bytes: u64) {
        if let Some(run) = self
            .resources
            .get_mut(name)
            .and_then(|r| r.verify.running(run))
        {
            run.bytes = bytes;
        }
    }

    pub(super) fn apply_verify_ended(
        &mut self,
        name: &ResourceName,
        run: u64,
        result: Result<VerifyOutcome, String>,
    ) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let Some(ended) = res.verify.run.take_if(|r| r.run == run) else {
            return;
        };
        if self.stopping.is_some() {
            // The next daemon carries the order out anew.
            return;
        }
        let state = match result {
            Ok(outcome) => {
                let VerifyOutcome {
                    differing,
                    repaired,
                    unchecked,
                    ..
                } = outcome;
                let text = format!(
                    "verify ended: {differing} blocks differ, {repaired} repaired, {unchecked} unchecked"
                );
                match differing {
                    0 => tracing::info!(resource = %name, "{text}"),
                    _ => tracing::error!(resource = %name, "{text}"),
                }
                VerifyState::Done(outcome)
            }
            Err(why) => {
                let why = ended.reason.unwrap_or(why);
                tracing::warn!(resource = %name, "verify failed: {why}");
                VerifyState::Failed(why)
            }
        };
        self.answer_verify(name, ended.order.number, state);
    }

    fn answer_verify(&mut self, name: &ResourceName, number: u64, state: VerifyState) {
        let link = ResourceLink::Actual(self.me.clone(), ActualKey::Verify);
        let value = VerifyAnswer { number, state }.to_string();
        self.set_link(LinkPath::res(name, link), &value);
    }
}

/// Asks the brain of `reporter`; `None` if it ends.
pub(super) async fn ask<T>(
    reporter: &Reporter,
    make: impl FnOnce(oneshot::Sender<T>) -> VerifyAsk,
) -> Option<T> {
    let (tx, rx) = oneshot::channel();
    reporter.send(WorkEvent::VerifyAsks(make(tx)));
    rx.await.ok()
}
