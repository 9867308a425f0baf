//! The Ed25519 key of a node, by which its peers know it: the private half in a hidden file that is never replicated,
//! the public half in `ips/key-HOST` (`symlink-spec.md` section 3).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mars_core::HostName;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::dir::TreeDir;
use crate::error::TreeError;

/// Key of this node.
#[derive(Clone)]
pub struct NodeKey {
    /// Private key, PKCS#8 version 2, DER.
    pub pkcs8: Vec<u8>,
    /// Public key: 64 hex digits, the value of `ips/key-HOST`.
    pub public_hex: String,
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeKey")
            .field("public_hex", &self.public_hex)
            .finish_non_exhaustive()
    }
}

/// Place of the private key of `host`.
pub fn key_path(root: &Path, host: &HostName) -> PathBuf {
    root.join(format!(".key-{host}"))
}

/// Loads the key of `host` from `ROOT/.key-HOST`, or makes one (mode 0600, on stable storage) if there is none.
///
/// # Errors
/// The file cannot be read or written, is readable by others, or does not hold an Ed25519 key. It is never replaced.
pub fn load_or_create(root: &Path, host: &HostName) -> Result<NodeKey, TreeError> {
    let path = key_path(root, host);
    if let Some(key) = load(&path)? {
        return Ok(key);
    }
    let _lock = TreeDir::new(root).lock()?;
    if let Some(key) = load(&path)? {
        return Ok(key);
    }
    let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| {
        let cause = std::io::Error::other("the system gives no random bytes");
        TreeError::io("make a key for", &path, cause)
    })?;
    store(root, &path, made.as_ref())?;
    decode(&path, made.as_ref().to_vec())
}

fn load(path: &Path) -> Result<Option<NodeKey>, TreeError> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(TreeError::io("look at", path, e)),
        Ok(meta) => meta,
    };
    if !meta.is_file() || meta.mode() & 0o077 != 0 {
        return Err(TreeError::Key {
            path: path.into(),
            cause: "it must be a regular file of mode 0600".into(),
        });
    }
    let bytes = fs::read(path).map_err(|e| TreeError::io("read", path, e))?;
    decode(path, bytes).map(Some)
}

fn decode(path: &Path, pkcs8: Vec<u8>) -> Result<NodeKey, TreeError> {
    let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|e| TreeError::Key {
        path: path.into(),
        cause: e.to_string(),
    })?;
    Ok(NodeKey {
        public_hex: hex::encode(pair.public_key().as_ref()),
        pkcs8,
    })
}

fn store(root: &Path, path: &Path, bytes: &[u8]) -> Result<(), TreeError> {
    let temp = root.join(format!(".tmp-key.{}", std::process::id()));
    drop(fs::remove_file(&temp));
    let written = (|| {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        fs::File::open(root)?.sync_all()
    })();
    written.map_err(|e| {
        drop(fs::remove_file(&temp));
        TreeError::io("write", path, e)
    })
}
