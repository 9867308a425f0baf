//! What every connection of this node needs: its name, its key, the directory, and places for sockets.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mars_core::HostName;
use tokio::sync::Mutex as AsyncMutex;

use super::directory::Directory;
use super::error::NetError;
use super::hello::Protocol;
use super::identity::Identity;

/// Shared context of all connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct NetContext {
    inner: Arc<Inner>,
    protocol: Protocol,
}

#[derive(Debug)]
struct Inner {
    me: HostName,
    identity: Identity,
    directory: Directory,
    bridge_dir: PathBuf,
    bridge_exe: PathBuf,
    bridges: AtomicU64,
    staging_locks: Mutex<HashMap<PathBuf, Arc<AsyncMutex<()>>>>,
    /// 0 = for ever.
    silence_secs: AtomicU64,
}

/// How long a peer may be silent, where nothing else is said.
const SILENCE_SECS: u64 = 30;
/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl NetContext {
    /// Context of node `me`. Sockets are made in `RUN_DIR/bridge`, which is emptied; `bridge_exe` is the program that
    /// calls [`super::bridge_main`] when started as `EXE rsync-bridge SOCKET` (marsd itself).
    ///
    /// # Errors
    /// The directory cannot be made or emptied.
    pub fn new(
        me: HostName,
        identity: Identity,
        directory: Directory,
        run_dir: &Path,
        bridge_exe: PathBuf,
    ) -> Result<Self, NetError> {
        let bridge_dir = run_dir.join("bridge");
        make_empty(&bridge_dir).map_err(|cause| NetError::Local {
            operation: "make the directory for sockets",
            path: bridge_dir.clone(),
            cause,
        })?;
        let inner = Inner {
            me,
            identity,
            directory,
            bridge_dir,
            bridge_exe,
            bridges: AtomicU64::new(0),
            staging_locks: Mutex::default(),
            silence_secs: AtomicU64::new(SILENCE_SECS),
        };
        Ok(Self {
            inner: Arc::new(inner),
            protocol: Protocol::default(),
        })
    }

    /// The same context speaking other versions of the protocol.
    #[must_use]
    pub fn speaking(&self, protocol: Protocol) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            protocol,
        }
    }

    /// Name of this node.
    pub fn me(&self) -> &HostName {
        &self.inner.me
    }

    /// Key of this node.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// All nodes.
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// Sets for how many seconds a peer may be silent before it is given up; 0 = for ever. Connections that stand keep
    /// what they began with.
    pub fn set_silence_secs(&self, secs: u64) {
        self.inner.silence_secs.store(secs, Ordering::Relaxed);
    }

    /// How long a peer may be silent before it is given up.
    pub fn silence(&self) -> Duration {
        match self.inner.silence_secs.load(Ordering::Relaxed) {
            0 => FOR_EVER,
            secs => Duration::from_secs(secs),
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn bridge_exe(&self) -> &Path {
        &self.inner.bridge_exe
    }

    /// A path for a socket that no other mirror of this node uses.
    pub(super) fn bridge_socket(&self) -> PathBuf {
        let number = self.inner.bridges.fetch_add(1, Ordering::Relaxed);
        self.inner.bridge_dir.join(format!("{number}.sock"))
    }

    /// The lock that serialises mirrors into one staging directory.
    pub(super) fn staging_lock(&self, staging: &Path) -> Arc<AsyncMutex<()>> {
        let locks = &self.inner.staging_locks;
        let mut locks = locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(staging.to_owned()).or_default())
    }
}

fn make_empty(dir: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}
