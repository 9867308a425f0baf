//! Brings a chaos run to rest: everything is mended, what was switched off is switched on, the operator does what the
//! status asks for and nothing else; then all disks must be equal and hold what was flushed.

use std::time::Duration;

use super::Chaos;
use super::act::shown_error;
use crate::cluster::RunningTime;
use crate::command::Output;
use crate::error::{Context, Result, fail};
use crate::node::Node;
use crate::oracle::{is_caught_up, same_disks};
use crate::setup::{DISK, RESOURCE};

/// How long the cluster may take to come to rest.
const REST_SECS: u64 = 120;
/// How long the operator watches before he believes what the status says.
const PATIENCE: Duration = Duration::from_secs(12);
/// An I/O request that takes longer hangs.
const IO_SECS: u64 = 90;

impl Chaos<'_> {
    /// Comes to rest and compares.
    ///
    /// # Errors
    /// It does not come to rest, or something is lost.
    pub(super) fn rest(&mut self) -> Result {
        self.mend()?;
        self.reap()?;
        self.writers.finish(Duration::from_secs(IO_SECS))?;
        if self.forced {
            self.writers.forget();
        }
        self.switch_on()?;
        self.operate()?;
        self.compare()?;
        self.forced = false;
        Ok(())
    }

    fn mend(&mut self) -> Result {
        for (a, b) in std::mem::take(&mut self.cut.clone()) {
            self.heal(a, b)?;
        }
        for number in 0..self.cluster.nodes().len() {
            if self.cluster[number].init().is_none() {
                self.boot(number)?;
            }
            self.start_daemon(number)?;
        }
        Ok(())
    }

    fn switch_on(&mut self) -> Result {
        for number in 0..self.cluster.nodes().len() {
            if self.joined(number) {
                self.marsadm(number, &format!("up {RESOURCE}"))?;
            }
        }
        Ok(())
    }

    fn joined(&self, number: usize) -> bool {
        self.cluster[number].own(RESOURCE, "data").is_some()
    }

    /// Watches the status until all is well, doing what it asks for.
    fn operate(&mut self) -> Result {
        let (mut clock, mut since) = (RunningTime::default(), RunningTime::default());
        while !self.at_rest() {
            if clock.passed() >= Duration::from_secs(REST_SECS) {
                return Err(fail(format!(
                    "does not come to rest\n{}{}",
                    self.status(),
                    self.cluster.diagnosis()
                )));
            }
            if self.without_primary() || self.unjoined().is_some() || since.passed() > PATIENCE {
                self.operator_step()?;
                since = RunningTime::default();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn primary(&self) -> Option<usize> {
        let value = self.cluster[0].link(&format!("resource-{RESOURCE}/primary"))?;
        self.cluster.nodes().iter().position(|n| n.name() == value)
    }

    fn without_primary(&self) -> bool {
        self.cluster
            .nodes()
            .iter()
            .all(|n| n.link_is(&format!("resource-{RESOURCE}/primary"), "(none)"))
    }

    fn unjoined(&self) -> Option<usize> {
        (0..self.cluster.nodes().len()).find(|n| !self.joined(*n))
    }

    /// Every node is a member, agrees on the primary, and has applied all of it.
    fn at_rest(&self) -> bool {
        let Some(primary) = self.primary() else {
            return false;
        };
        let writer = &self.cluster[primary];
        let agree = |n: &Node| n.link_is(&format!("resource-{RESOURCE}/primary"), writer.name());
        let mut others = self
            .cluster
            .nodes()
            .iter()
            .filter(|n| n.name() != writer.name());
        writer.serves(RESOURCE)
            && self.cluster.nodes().iter().all(agree)
            && others.all(|n| !n.serves(RESOURCE) && is_caught_up(writer, n, RESOURCE))
    }

    /// One look at the status, and what it asks for.
    fn operator_step(&mut self) -> Result {
        if let Some(number) = self.unjoined() {
            return self.marsadm(number, &format!("join-resource {RESOURCE} {DISK}"));
        }
        if self.without_primary() {
            return self.make_primary();
        }
        let Some(primary) = self.primary() else {
            return Ok(());
        };
        for number in 0..self.cluster.nodes().len() {
            let asked = self.asks_for_invalidate(number)?;
            if let Some(why) = asked.filter(|_| number != primary) {
                self.note(&format!("  {}: {why}", self.cluster[number].name()));
                if !self.forced {
                    return Err(fail(format!(
                        "{} asks to be invalidated though nothing was forced: {why}\n{}{}",
                        self.cluster[number].name(),
                        self.status(),
                        self.cluster.diagnosis()
                    )));
                }
                self.marsadm(number, &format!("invalidate {RESOURCE}"))?;
            }
        }
        Ok(())
    }

    /// What the own block of a status says that ends with an invalidate.
    fn asks_for_invalidate(&self, number: usize) -> Result<Option<String>> {
        let node = &self.cluster[number];
        if let Some(error) = shown_error(node).filter(|e| e.contains("marsadm invalidate")) {
            return Ok(Some(error));
        }
        let status = node.try_run(&format!("mars-status --resource {RESOURCE} --history"))?;
        let todo = |l: &&str| l.contains("TODO") && l.contains("SPLIT-BRAIN");
        Ok(status.text.lines().find(todo).map(|l| l.trim().to_owned()))
    }

    /// Nobody is primary: the first node that may be is made so. If there is a split brain, the remedy that the refusal
    /// names first is taken.
    fn make_primary(&mut self) -> Result {
        for number in 0..self.cluster.nodes().len() {
            let said = self.try_marsadm(number, &format!("primary {RESOURCE}"))?;
            if said.code == 0 {
                return Ok(());
            }
            if self.forced
                && let Some(keep) = kept_side(&said)
            {
                let keep = self.cluster.nodes().iter().position(|n| n.name() == keep);
                let keep = keep.context("the refusal names no node")?;
                return self.marsadm(keep, &format!("--force primary {RESOURCE}"));
            }
        }
        Ok(())
    }

    fn compare(&mut self) -> Result {
        let primary = self.primary().context("there is no primary")?;
        let writer = &self.cluster[primary];
        for node in self.cluster.nodes() {
            if node.name() != writer.name() {
                same_disks(writer, node, DISK)
                    .map_err(|e| fail(format!("{e}\n{}", self.cluster.diagnosis())))?;
            }
            let log = node.log("marsd");
            if let Some(line) = log.lines().find(|l| l.contains("panicked")) {
                return Err(fail(format!("marsd on {}: {line}", node.name())));
            }
        }
        self.writers
            .check(writer, DISK)
            .map_err(|e| fail(format!("{e}\n{}", self.cluster.diagnosis())))?;
        self.note(&format!(
            "at rest, primary {}, all disks equal",
            writer.name()
        ));
        Ok(())
    }

    fn status(&self) -> String {
        let mut text = String::new();
        for node in self.cluster.nodes() {
            let said = node.try_run(&format!("mars-status --resource {RESOURCE} --history"));
            let said = said.map_or_else(|e| e.to_string(), |o| o.text);
            text.push_str(&format!("===== {}: status\n{said}\n", node.name()));
        }
        text
    }
}

/// `to keep the data of HOST, there: ...`
fn kept_side(said: &Output) -> Option<String> {
    let (_, rest) = said.text.split_once("to keep the data of ")?;
    let (host, _) = rest.split_once(',')?;
    Some(host.to_owned())
}
