//! Carries the decisions of a chaos run out. A refusal of marsadm is a good answer; a crash, a panic and a hang are not.

use std::time::Duration;

use super::Chaos;
use super::decide::Decision;
use crate::command::Output;
use crate::error::{Result, fail};
use crate::node::Node;
use crate::setup::{DISK, RESOURCE};

/// Bound of each wait of a command, in seconds.
const WAIT_SECS: u64 = 6;
/// How long a killed process may take to end.
const KILLED: Duration = Duration::from_secs(10);
/// A command that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);

impl Chaos<'_> {
    /// Does what was decided, if it can be done at present.
    pub(super) fn act(&mut self, decision: &Decision) -> Result {
        match decision {
            Decision::Write(count) => self.write(*count),
            Decision::Command(n, command) => self.marsadm(*n, &format!("{command} {RESOURCE}")),
            Decision::Background(n, command) => self.background(*n, command),
            Decision::Force(n) => {
                self.forced = true;
                self.marsadm(*n, &format!("--force primary {RESOURCE}"))
            }
            Decision::FakeSync(n) => self.fake_sync(*n),
            Decision::InvalidateRemote(a, b) => {
                let target = self.cluster[*b].name().to_owned();
                self.marsadm(*a, &format!("--node {target} invalidate-remote {RESOURCE}"))
            }
            Decision::Leave(n) => self.leave(*n),
            Decision::Join(n) => self.marsadm(*n, &format!("join-resource {RESOURCE} {DISK}")),
            Decision::KillDaemon(n, again) => self.kill_daemon(*n, *again),
            Decision::StartDaemon(n) => self.start_daemon(*n),
            Decision::KillShim(n) => {
                let shims = self.cluster[*n].processes("mars-shim")?;
                shims.iter().try_for_each(|s| s.kill(KILLED))
            }
            Decision::PowerOff(n) => {
                self.cluster[*n].power_off()?;
                self.writers.node_died(*n);
                self.background.retain(|(node, _)| node != n);
                Ok(())
            }
            Decision::Boot(n) => self.boot(*n),
            Decision::Cut(a, b) => {
                self.cut.insert((*a, *b));
                self.cluster.cut(&self.cluster[*a], &self.cluster[*b])
            }
            Decision::Heal(a, b) => self.heal(*a, *b),
            Decision::Clock(n, secs) => self.cluster[*n].set_clock(*secs),
            Decision::Pause(millis) => {
                std::thread::sleep(Duration::from_millis(*millis));
                Ok(())
            }
        }
    }

    fn write(&mut self, count: u64) -> Result {
        for (number, node) in self.cluster.nodes().iter().enumerate() {
            let up = node.init().is_some();
            if up && node.serves(RESOURCE) {
                self.writers.start(number, node, count)?;
            }
        }
        Ok(())
    }

    /// Runs a command of marsadm on a node and notes what it says.
    pub(super) fn marsadm(&mut self, number: usize, command: &str) -> Result {
        self.try_marsadm(number, command).map(drop)
    }

    /// As [`Self::marsadm`]; returns the answer.
    pub(super) fn try_marsadm(&mut self, number: usize, command: &str) -> Result<Output> {
        let node = &self.cluster[number];
        let output = node.try_run_for(&format!("marsadm --timeout {WAIT_SECS} {command}"), HANG)?;
        let error = output.text.lines().find(|l| l.starts_with("ERROR"));
        let said = error.or_else(|| output.text.trim_end().lines().last());
        self.note(&format!("    {} {}", output.code, said.unwrap_or_default()));
        check_sane(&output)?;
        Ok(output)
    }

    fn background(&mut self, number: usize, command: &str) -> Result {
        self.serial += 1;
        let task = self.cluster[number].spawn(
            &format!("marsadm-{}", self.serial),
            &format!("exec marsadm --timeout {WAIT_SECS} {command} {RESOURCE}"),
        )?;
        self.background.push((number, task));
        Ok(())
    }

    /// Waits for the commands in the background.
    pub(super) fn reap(&mut self) -> Result {
        for (_, mut task) in std::mem::take(&mut self.background) {
            // A refusal is an error here too; a hang and a panic are told apart by the text.
            let ended = task.wait(HANG);
            let text = task.output();
            if let Err(e) = ended
                && (e.to_string().contains("still runs") || text.contains("panicked"))
            {
                return Err(e);
            }
        }
        Ok(())
    }

    /// Only a disk that is right may be called so.
    fn fake_sync(&mut self, number: usize) -> Result {
        let node = &self.cluster[number];
        if !node.is_synced(RESOURCE) {
            return Ok(());
        }
        self.marsadm(number, &format!("fake-sync {RESOURCE}"))
    }

    fn leave(&mut self, number: usize) -> Result {
        for command in [
            "detach",
            "disconnect-local",
            "pause-sync-local",
            "pause-replay-local",
            "leave-resource",
        ] {
            let said = self.try_marsadm(number, &format!("{command} {RESOURCE}"))?;
            if said.code != 0 {
                break;
            }
        }
        Ok(())
    }

    fn kill_daemon(&mut self, number: usize, again: bool) -> Result {
        let node = &self.cluster[number];
        // A child that it has just made bears its name for a moment, and would pass for a daemon that runs.
        loop {
            let left = node.processes("marsd")?;
            if left.is_empty() {
                break;
            }
            left.iter().try_for_each(|p| p.kill(KILLED))?;
        }
        if again {
            self.start_daemon(number)
        } else {
            Ok(())
        }
    }

    pub(super) fn start_daemon(&mut self, number: usize) -> Result {
        let node = &self.cluster[number];
        if node.processes("marsd")?.is_empty() {
            // It runs on without its handle.
            drop(node.start_marsd()?);
        }
        Ok(())
    }

    pub(super) fn boot(&mut self, number: usize) -> Result {
        let node = &self.cluster[number];
        self.cluster.boot(node)?;
        // The rules against its peers died with its network; those of the peers stand.
        let cut: Vec<(usize, usize)> = self
            .cut
            .iter()
            .copied()
            .filter(|(a, b)| *a == number || *b == number)
            .collect();
        for (a, b) in cut {
            self.cluster.cut(&self.cluster[a], &self.cluster[b])?;
        }
        self.start_daemon(number)
    }

    pub(super) fn heal(&mut self, a: usize, b: usize) -> Result {
        if self.cut.remove(&(a, b)) {
            let (a, b) = (&self.cluster[a], &self.cluster[b]);
            for (node, peer) in [(a, b), (b, a)] {
                if node.init().is_some() {
                    node.run(&crate::network::heal_script(peer.number()))?;
                }
            }
        }
        Ok(())
    }
}

fn check_sane(output: &Output) -> Result {
    let crashed = output.code == 101 || output.code >= 126;
    if crashed || output.text.contains("panicked") {
        return Err(fail(format!(
            "`{}` crashed with {}: {}",
            output.command, output.code, output.text
        )));
    }
    Ok(())
}

/// The last error that the daemon of a node shows for the resource.
pub(super) fn shown_error(node: &Node) -> Option<String> {
    node.actual(RESOURCE, "error").filter(|e| e != "none")
}
