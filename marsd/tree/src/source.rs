//! From whom a resource is being synced: kept in the hidden file `.sync-source` beside its links, so that a sync that was
//! interrupted is continued from the same node.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mars_core::HostName;

use crate::error::TreeError;

fn place(dir: &Path) -> PathBuf {
    dir.join(".sync-source")
}

/// The node from which the resource with this directory was synced last; `None` if that is not known.
///
/// # Errors
/// The file exists and cannot be read.
pub fn load_sync_source(dir: &Path) -> Result<Option<HostName>, TreeError> {
    let path = place(dir);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(HostName::new(text.trim()).ok()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(TreeError::io("read", &path, e)),
    }
}

/// Stores the node from which a sync begins, durably.
///
/// # Errors
/// The file cannot be written.
pub fn store_sync_source(dir: &Path, host: &HostName) -> Result<(), TreeError> {
    let (path, temp) = (place(dir), dir.join(".tmp-sync-source"));
    let failed = |e| TreeError::io("store", &path, e);
    fs::write(&temp, format!("{host}\n")).map_err(failed)?;
    let synced = fs::File::open(&temp).and_then(|file| file.sync_all());
    synced
        .and_then(|()| fs::rename(&temp, &path))
        .map_err(failed)?;
    fs::File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load_sync_source(dir.path()).unwrap(), None);
        let host = HostName::new("db-1").unwrap();
        store_sync_source(dir.path(), &host).unwrap();
        assert_eq!(load_sync_source(dir.path()).unwrap(), Some(host));
    }
}
