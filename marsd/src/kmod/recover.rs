//! Makes a disk equal to its logs before the module logs on: what the user-space shim does with its map.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mars_core::log_format::{Parsed, RECORD_MAX, parse};
use mars_core::{LogName, Stamp};
use mars_tree::passed::load_passed;

use super::KmodError;
use crate::work::{
    Cancel, ReplayControl, ReplayJob, ReplayUntil, replay, scan_valid_end, truncate_log,
};

/// Log bytes applied between two flushes of the disk.
const BATCH: usize = 16 << 20;

/// Where logging goes on.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The log.
    pub(super) log: LogName,
    /// Its file, open for the module.
    pub(super) file: File,
    /// Its length in bytes, all of it valid.
    pub(super) end: u64,
    /// A stamp at least as late as that of its last record.
    pub(super) stamp: Stamp,
    /// Writes behind its end are in no log.
    pub(super) passed: bool,
}

/// Applies what `log` holds behind byte `pos`, and all newer logs of this node, to the disk; cuts off what follows
/// the last valid record of each. `alive` is called now and then.
pub(super) fn recover(
    dir: &Path,
    log: &LogName,
    pos: u64,
    (disk, disk_size): (&Path, u64),
    mut alive: impl FnMut(),
) -> Result<Recovered, KmodError> {
    let mark = load_passed(dir, log).map_err(|e| KmodError::Invalid(e.to_string()))?;
    if let Some((marked, end)) = mark {
        let path = dir.join(marked.to_string());
        truncate_log(&path, end).map_err(|e| KmodError::io("cut", &path, e))?;
        return open_end(dir, marked, end, true);
    }
    let (mut log, mut from) = (log.clone(), pos);
    loop {
        let end = apply(dir, &log, from, (disk, disk_size), &mut alive)?;
        let next = LogName::new(log.seq + 1, &log.host);
        let path = dir.join(next.to_string());
        if std::fs::metadata(&path).map_or(0, |m| m.len()) == 0 {
            return open_end(dir, log, end, false);
        }
        (log, from) = (next, 0);
    }
}

fn apply(
    dir: &Path,
    log: &LogName,
    from: u64,
    (disk, disk_size): (&Path, u64),
    alive: &mut impl FnMut(),
) -> Result<u64, KmodError> {
    let path = dir.join(log.to_string());
    open_log(&path, from == 0)?;
    let failed = |operation: &'static str| {
        let path = path.clone();
        move |e| KmodError::io(operation, &path, e)
    };
    let scan = scan_valid_end(&path, from).map_err(failed("look for the end of"))?;
    if let Some((at, why)) = &scan.invalid {
        tracing::warn!(
            "{} at byte {at}: {why}; the log is cut there",
            path.display()
        );
    }
    truncate_log(&path, scan.end).map_err(failed("cut"))?;
    let job = ReplayJob {
        log_path: path.clone(),
        log: log.clone(),
        disk_path: disk.into(),
        disk_size,
        from,
        until: ReplayUntil::Fixed(scan.end),
        batch: BATCH,
    };
    let control = ReplayControl::new(Cancel::new());
    replay(job, control, |_| alive()).map_err(|e| KmodError::Invalid(e.to_string()))?;
    Ok(scan.end)
}

fn open_end(dir: &Path, log: LogName, end: u64, passed: bool) -> Result<Recovered, KmodError> {
    let path = dir.join(log.to_string());
    let file = open_log(&path, false)?;
    let last = last_stamp(&file, end).map_err(|e| KmodError::io("read", &path, e))?;
    Ok(Recovered {
        log,
        file,
        end,
        stamp: last.max(mars_tree::wall_clock()),
        passed,
    })
}

/// Opens a log for the module, or makes it and its name durable.
pub(super) fn open_log(path: &Path, create: bool) -> Result<File, KmodError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| KmodError::io("open the log", path, e))?;
    if create {
        let dir = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        file.sync_all()
            .and_then(|()| File::open(&dir)?.sync_all())
            .map_err(|e| KmodError::io("flush the directory of", path, e))?;
    }
    Ok(file)
}

/// Stamp of the record that ends at `end`; the zero stamp if there is none.
fn last_stamp(file: &File, end: u64) -> io::Result<Stamp> {
    let len = usize::try_from(end).unwrap_or(usize::MAX).min(RECORD_MAX);
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, end - len as u64)?;
    let found = (0..len).find_map(
        |start| match parse(&bytes[start..], crc_fast::crc32_iscsi) {
            Ok(Parsed::Record(record, _)) if record.total_len() == len - start => {
                Some(Stamp::new(record.stamp.secs, record.stamp.nanos))
            }
            _ => None,
        },
    );
    Ok(found.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use mars_core::HostName;
    use mars_tree::passed::{prepare_passed, store_passed};

    use super::*;
    use crate::work::testkit::record_bytes;

    const SIZE: u64 = 1 << 20;

    fn name(seq: u64) -> LogName {
        LogName::new(seq, &HostName::new("a").unwrap())
    }

    /// Two logs that both write block 0, the second with a torn record at its end; and a disk of zeroes.
    fn dir() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let first = [record_bytes(0, &[1; 512]), record_bytes(512, &[2; 512])].concat();
        std::fs::write(dir.path().join(name(1).to_string()), first).unwrap();
        let second = [record_bytes(0, &[3; 512]), vec![9; 100]].concat();
        std::fs::write(dir.path().join(name(2).to_string()), second).unwrap();
        let disk = dir.path().join("disk");
        File::create(&disk).unwrap().set_len(SIZE).unwrap();
        (dir, disk)
    }

    #[test]
    fn all_logs_reach_the_disk_and_the_last_is_cut_behind_its_records() {
        let (dir, disk) = dir();
        let mut alive = 0;
        let begin = recover(dir.path(), &name(1), 0, (&disk, SIZE), || alive += 1).unwrap();
        let end = record_bytes(0, &[3; 512]).len() as u64;
        assert_eq!(
            (&begin.log, begin.end, begin.passed),
            (&name(2), end, false)
        );
        assert_eq!(begin.file.metadata().unwrap().len(), end);
        assert!(begin.stamp > Stamp::default());
        let content = std::fs::read(&disk).unwrap();
        assert_eq!((content[0], content[512], content[1024]), (3, 2, 0));
        assert!(alive > 0);
    }

    #[test]
    fn what_went_past_the_logs_is_not_overwritten() {
        let (dir, disk) = dir();
        prepare_passed(dir.path()).unwrap();
        let end = record_bytes(0, &[3; 512]).len() as u64;
        store_passed(dir.path(), &name(2), end).unwrap();
        let begin = recover(dir.path(), &name(1), 0, (&disk, SIZE), || ()).unwrap();
        assert_eq!((&begin.log, begin.end, begin.passed), (&name(2), end, true));
        assert_eq!(std::fs::read(&disk).unwrap()[0], 0);
    }

    #[test]
    fn a_new_log_is_made_and_a_missing_one_is_an_error() {
        let (dir, disk) = dir();
        let begin = recover(dir.path(), &name(7), 0, (&disk, SIZE), || ()).unwrap();
        assert_eq!((&begin.log, begin.end), (&name(7), 0));
        let missing = recover(dir.path(), &name(9), 10, (&disk, SIZE), || ());
        assert!(missing.unwrap_err().to_string().contains("log-000000009-a"));
    }
}
