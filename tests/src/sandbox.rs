//! The work directory of a cluster: made with a lock that says its owner lives, removed by a supervisor process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::command::wait_child;
use crate::error::{Context, Result, fail};
use crate::requirements::built_dir;
use crate::supervisor::destroy;

const PREFIX: &str = "mars-tests.";
/// Lies in the directory of a cluster that was left up on purpose.
const KEPT_FILE: &str = "kept";
/// Sent to the supervisor before the pipe closes: leave the cluster up.
pub const KEEP: &[u8] = b"keep";
/// Printed by the supervisor once it holds the lock.
pub const READY: &[u8] = b"ready\n";

/// A work directory and the process that will remove it and all that was made for it.
#[derive(Debug)]
pub struct Sandbox {
    dir: PathBuf,
    supervisor: Child,
    pipe: Option<ChildStdin>,
}

/// Where work directories are made: `MARS_TESTS_DIR`, or `/var/tmp`. It must be a real disk, not tmpfs.
pub fn base_dir() -> PathBuf {
    std::env::var_os("MARS_TESTS_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

impl Sandbox {
    /// Removes what killed runs left, then makes a directory and its supervisor.
    ///
    /// # Errors
    /// The disk is not usable or the supervisor is not built.
    pub fn create() -> Result<Self> {
        let base = base_dir();
        check_disk(&base)?;
        let base_lock =
            lock_dir(&base, FlockArg::LockExclusive).context(format!("lock {}", base.display()))?;
        for stale in stale_dirs(&base)? {
            destroy(&stale).context(format!("remove the stale {}", stale.display()))?;
        }
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&base)
            .context(format!("create a directory in {}", base.display()))?
            .keep();
        let (supervisor, pipe) = start_supervisor(&dir)?;
        drop(base_lock);
        Ok(Self {
            dir,
            supervisor,
            pipe: Some(pipe),
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves everything up; the supervisor waits for [`remove_kept`].
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn keep(mut self) -> Result<PathBuf> {
        let mark = self.dir.join(KEPT_FILE);
        std::fs::write(&mark, "").context(format!("write {}", mark.display()))?;
        if let Some(mut pipe) = self.pipe.take() {
            pipe.write_all(KEEP)
                .context("tell the supervisor to keep the cluster")?;
        }
        Ok(self.dir.clone())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Closing the pipe is the order to remove everything; a kept cluster has closed it before.
        let Some(pipe) = self.pipe.take() else { return };
        drop(pipe);
        // Beyond the deadline the supervisor goes on alone.
        let _ = wait_child(&mut self.supervisor, Duration::from_secs(60));
    }
}

/// Directories of clusters that were left up with [`Sandbox::keep`].
///
/// # Errors
/// The base directory cannot be read.
pub fn kept_dirs() -> Result<Vec<PathBuf>> {
    let mut dirs = all_dirs()?;
    dirs.retain(|dir| dir.join(KEPT_FILE).exists());
    Ok(dirs)
}

/// Clusters that stand, with or without a living owner.
fn all_dirs() -> Result<Vec<PathBuf>> {
    let base = base_dir();
    let entries = fs::read_dir(&base).context(format!("read {}", base.display()))?;
    Ok(entries
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|e| e.path())
        .collect())
}

/// Removes a cluster that was kept.
///
/// # Errors
/// Something of it cannot be removed.
pub fn remove_kept(dir: &Path) -> Result {
    let supervisor = crate::process::Process::load(&dir.join("supervisor"));
    if let Some(process) = supervisor {
        process.kill(Duration::from_secs(10))?;
    }
    destroy(dir)
}

fn stale_dirs(base: &Path) -> Result<Vec<PathBuf>> {
    let is_free = |dir: &PathBuf| lock_dir(dir, FlockArg::LockExclusiveNonblock).is_ok();
    Ok(all_dirs()
        .context(format!("look for stale directories in {}", base.display()))?
        .into_iter()
        .filter(is_free)
        .collect())
}

/// Locks a directory for as long as the value lives.
///
/// # Errors
/// It cannot be opened, or is locked by somebody else and `how` does not wait.
pub fn lock_dir(dir: &Path, how: FlockArg) -> std::io::Result<Flock<File>> {
    let file = File::open(dir)?;
    Flock::lock(file, how).map_err(|(_, errno)| errno.into())
}

/// Starts the supervisor and waits until it has locked the directory.
fn start_supervisor(dir: &Path) -> Result<(Child, ChildStdin)> {
    let program = built_dir()?.join("mars-node");
    let mut child = Command::new(&program)
        .arg("supervise")
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(format!("start {}", program.display()))?;
    let (Some(pipe), Some(mut ready)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(fail("the supervisor has no standard input or output"));
    };
    let mut line = [0; READY.len()];
    ready
        .read_exact(&mut line)
        .context("wait for the supervisor")?;
    Ok((child, pipe))
}

fn check_disk(base: &Path) -> Result {
    let stat = statfs(base).context(format!("look at {}", base.display()))?;
    if stat.filesystem_type() == TMPFS_MAGIC {
        return Err(fail(format!(
            "{} is a tmpfs, which cannot do direct I/O; set MARS_TESTS_DIR to a directory on a disk",
            base.display()
        )));
    }
    Ok(())
}
