//! Processes as the machine sees them: whether they live, which namespace they are in, and their end.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::RunningTime;
use crate::error::{Context, Result, fail};

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Number in the PID namespace of the machine.
    pub pid: i32,
    start_ticks: u64,
}

impl Process {
    /// The living process `pid`, if there is one.
    pub fn find(pid: i32) -> Option<Self> {
        let start_ticks = start_ticks(pid)?;
        Some(Self { pid, start_ticks })
    }

    /// Reads a file written by [`Self::store`]; `None` if the process is gone.
    pub fn load(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let found = Self::find(pid.parse().ok()?)?;
        (start.parse() == Ok(found.start_ticks)).then_some(found)
    }

    /// Writes number and start time, so that the file appears complete.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn store(&self, path: &Path) -> Result {
        let temp = path.with_extension("tmp");
        fs::write(&temp, format!("{} {}\n", self.pid, self.start_ticks))
            .and_then(|()| fs::rename(&temp, path))
            .context(format!("write {}", path.display()))
    }

    /// Whether it still runs; a zombie does not.
    pub fn lives(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks) && !is_zombie(self.pid)
    }

    /// `SIGKILL`, and waits until it is gone.
    ///
    /// # Errors
    /// It still lives after `deadline`.
    pub fn kill(&self, deadline: Duration) -> Result {
        let mut clock = RunningTime::default();
        while self.lives() {
            // A process that is gone already is what is wanted.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
            if clock.passed() >= deadline {
                return Err(fail(format!(
                    "process {} survives SIGKILL (state {})",
                    self.pid,
                    state(self.pid).unwrap_or('?')
                )));
            }
            sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result {
        if !self.lives() {
            return Err(fail(format!("process {} is gone", self.pid)));
        }
        kill(Pid::from_raw(self.pid), signal).context(format!("signal process {}", self.pid))
    }

    /// Living processes with this command name in the PID namespace of `self`.
    pub fn peers_named(&self, name: &str) -> Vec<Self> {
        let Some(space) = pid_namespace(self.pid) else {
            return Vec::new();
        };
        all_pids()
            .filter(|pid| comm(*pid).as_deref() == Some(name))
            .filter(|pid| pid_namespace(*pid).as_ref() == Some(&space))
            .filter_map(Self::find)
            .filter(Self::lives)
            .collect()
    }
}

fn all_pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn pid_namespace(pid: i32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn comm(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(text.trim_end().to_owned())
}

/// Fields of `/proc/PID/stat` from the state on: the command name before may hold blanks.
fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn start_ticks(pid: i32) -> Option<u64> {
    stat_fields(pid)?.get(19)?.parse().ok()
}

fn state(pid: i32) -> Option<char> {
    stat_fields(pid)?.first()?.chars().next()
}

/// Whether it only waits for its parent. The first thread of a process is a zombie already while others still end.
fn is_zombie(pid: i32) -> bool {
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    matches!(state(pid), Some('Z' | 'X')) && threads() <= 1
}
