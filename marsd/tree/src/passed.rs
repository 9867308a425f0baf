//! The mark that pass-through leaves: what the log holds is older than the disk.
//!
//! Writes that went straight to the disk are in no log. If the process (or the node) dies before marsd has taken note
//! of the position, the records before it would be applied again, over newer data. Therefore the position is stored
//! durably before the first such write, in the hidden file `.passed` beside the logs, and [`load_passed`] is asked
//! whenever a log is opened or replayed. The file is made, with its block, when logging begins: a full file system is a main
//! reason for pass-through.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mars_core::LogName;
use mars_core::position::ValueError;

use crate::error::TreeError;

const SIZE: usize = 256;

fn mark_path(dir: &Path) -> PathBuf {
    dir.join(".passed")
}

fn open_mark(dir: &Path) -> Result<File, TreeError> {
    let path = mark_path(dir);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| TreeError::io("open", &path, e))
}

/// Makes sure that [`store_passed`] needs no space.
pub fn prepare_passed(dir: &Path) -> Result<(), TreeError> {
    let path = mark_path(dir);
    let failed = |e| TreeError::io("prepare", &path, e);
    let file = open_mark(dir)?;
    if file.metadata().map_err(failed)?.len() < SIZE as u64 {
        file.write_all_at(&[b' '; SIZE], 0).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// Stores that everything in `log` before byte `end`, and everything in older logs, is on the disk.
pub fn store_passed(dir: &Path, log: &LogName, end: u64) -> Result<(), TreeError> {
    let path = mark_path(dir);
    let text = format!("{log},{end},");
    let file = open_mark(dir)?;
    file.write_all_at(format!("{text:<SIZE$}").as_bytes(), 0)
        .and_then(|()| file.sync_all())
        .map_err(|e| TreeError::io("store", &path, e))
}

/// The mark, if it concerns `log`: it names this log or a newer one. Nothing before it may be applied any more, and
/// writes behind it are in no log.
pub fn load_passed(dir: &Path, log: &LogName) -> Result<Option<(LogName, u64)>, TreeError> {
    let path = mark_path(dir);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(TreeError::io("read", &path, e)),
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    let mark = parse_mark(&text).ok_or_else(|| TreeError::Value {
        path,
        cause: ValueError::new(
            text.trim(),
            "log-NNNNNNNNN-HOST,POS, (remove the file if the disk is not newer than the log)",
        ),
    })?;
    Ok(Some(mark).filter(|(marked, _)| marked.seq >= log.seq))
}

fn parse_mark(text: &str) -> Option<(LogName, u64)> {
    let (log, rest) = text.split_once(',')?;
    let (end, _) = rest.split_once(',')?;
    Some((LogName::parse(log).ok()?, end.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use mars_core::HostName;

    use super::*;

    #[test]
    fn a_mark_concerns_its_log_and_older_ones() {
        let dir = tempfile::tempdir().unwrap();
        let log = |seq| LogName::new(seq, &HostName::new("a").unwrap());
        let load = |seq| load_passed(dir.path(), &log(seq)).unwrap();
        assert_eq!(load(1), None);
        prepare_passed(dir.path()).unwrap();
        assert_eq!(load(1), None);
        store_passed(dir.path(), &log(10), 123_456).unwrap();
        store_passed(dir.path(), &log(10), 77).unwrap();
        let mark = Some((log(10), 77));
        assert_eq!(
            [load(9), load(10), load(11)],
            [mark.clone(), mark.clone(), None]
        );
        prepare_passed(dir.path()).unwrap();
        assert_eq!(load(10), mark);
        std::fs::write(dir.path().join(".passed"), "rubbish").unwrap();
        assert!(load_passed(dir.path(), &log(1)).is_err());
    }
}
