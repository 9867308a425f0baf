//! The directory of a virtual machine: locked while its owner lives, so that the next machine can remove what a killed
//! run has left.

use std::fs::{self, File};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::error::{Context, Result};
use crate::sandbox::{base_dir, lock_dir};

const PREFIX: &str = "mars-vm.";

/// A directory that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct WorkDir {
    dir: TempDir,
    _lock: Flock<File>,
}

impl WorkDir {
    /// Makes one below [`base_dir`], and removes those whose owners are gone.
    ///
    /// # Errors
    /// The base directory cannot be used, or something stale cannot be removed.
    pub(crate) fn create() -> Result<Self> {
        Self::create_in(&base_dir())
    }

    fn create_in(base: &Path) -> Result<Self> {
        // One at a time: a directory that is not locked yet looks stale.
        let _base_lock =
            lock_dir(base, FlockArg::LockExclusive).context(format!("lock {}", base.display()))?;
        remove_stale(base)?;
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(base)
            .context(format!("create a directory in {}", base.display()))?;
        let lock = lock_dir(dir.path(), FlockArg::LockExclusiveNonblock)
            .context(format!("lock {}", dir.path().display()))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn remove_stale(base: &Path) -> Result {
    let entries = fs::read_dir(base).context(format!("read {}", base.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_ours && lock_dir(&path, FlockArg::LockExclusiveNonblock).is_ok() {
            fs::remove_dir_all(&path).context(format!("remove the stale {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_goes_and_what_is_in_use_stays() {
        let base = tempfile::tempdir().unwrap();
        let used = WorkDir::create_in(base.path()).unwrap();
        fs::create_dir_all(base.path().join("mars-vm.dead/share")).unwrap();
        fs::create_dir(base.path().join("other")).unwrap();
        let next = WorkDir::create_in(base.path()).unwrap();
        assert!(used.path().exists() && next.path().exists());
        assert!(!base.path().join("mars-vm.dead").exists());
        assert!(base.path().join("other").exists());
        let path = used.path().to_path_buf();
        drop(used);
        assert!(!path.exists());
    }
}
