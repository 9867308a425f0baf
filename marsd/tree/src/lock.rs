//! The lock of the tree: whoever reads a link in order to replace it holds it meanwhile.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::dir::TreeDir;
use crate::error::TreeError;

const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(2);

/// The held lock; it is released when this is dropped, or when the process ends in any way.
///
/// Do not call the locking methods of [`TreeDir`] while holding it, use those of the lock.
#[derive(Debug)]
pub struct TreeLock {
    dir: TreeDir,
    _held: Flock<File>,
}

impl TreeLock {
    /// The locked tree.
    pub fn dir(&self) -> &TreeDir {
        &self.dir
    }
}

impl TreeDir {
    /// Takes the lock `ROOT/.lock`, waiting up to 10 seconds for another holder.
    pub fn lock(&self) -> Result<TreeLock, TreeError> {
        self.lock_within(LOCK_WAIT)
    }

    /// Takes the lock, waiting at most `wait`.
    pub fn lock_within(&self, wait: Duration) -> Result<TreeLock, TreeError> {
        let path = self.root().join(".lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(|e| TreeError::io("open lock", &path, e))?;
        let deadline = Instant::now() + wait;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => {
                    return Ok(TreeLock {
                        dir: self.clone(),
                        _held: held,
                    });
                }
                Err((back, Errno::EAGAIN | Errno::EINTR)) if Instant::now() < deadline => {
                    file = back;
                    std::thread::sleep(LOCK_POLL);
                }
                Err((_, Errno::EAGAIN | Errno::EINTR)) => {
                    return Err(TreeError::Locked {
                        path,
                        secs: wait.as_secs(),
                    });
                }
                Err((_, errno)) => return Err(TreeError::io("lock", &path, errno)),
            }
        }
    }
}
