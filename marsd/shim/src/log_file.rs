//! Opens a logfile, finds its end, and cuts off what is no valid record (`symlink-spec.md` section 5).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mars_core::log_format::{CODE_NEW_DATA, HEADER_LEN, Parsed, RECORD_MAX, Record, parse};
use mars_core::{LogName, Stamp};

use crate::error::ShimError;
use crate::map::SECTOR;
use crate::memory::Memory;
use crate::stage::LOG_ALIGN;

const WINDOW: usize = 1 << 20;

/// An open logfile that ends at a record boundary.
#[derive(Debug)]
pub struct OpenedLog {
    /// The file, opened for direct I/O and locked against other writers.
    pub file: Arc<File>,
    /// Its path.
    pub path: PathBuf,
    /// Where it ends, a byte offset.
    pub end: u64,
    /// Stamp of the record that ends at the position asked for.
    pub stamp: Stamp,
}

/// Opens `path` (creates it if `pos` is 0), looks for the end of the valid records from `pos` on, cuts the file there
/// and flushes it. A record that does not fit a device of `size_bytes` is an error.
pub fn open_log(path: &Path, pos: u64, size_bytes: u64) -> Result<OpenedLog, ShimError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(pos == 0)
        .mode(0o600)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .map_err(|e| ShimError::io("open the log for direct I/O", path, e))?;
    let file = Arc::new(file);
    crate::disk::lock_file(&file, path)?;
    let len = file
        .metadata()
        .map_err(|e| ShimError::io("read the size of", path, e))?
        .len();
    if len < pos {
        return Err(ShimError::Invalid(format!(
            "{} has {len} bytes, logging cannot go on at {pos}",
            path.display()
        )));
    }
    let stamp = stamp_before(&file, path, pos)?;
    let mut reader = LogReader::new(&file, path, pos, len)?;
    loop {
        let at = reader.position();
        match reader.next_record()? {
            Some((record, _)) => check_record(path, at, &record, size_bytes)?,
            None => break,
        }
    }
    let end = reader.position();
    if let Some(why) = reader.trouble() {
        tracing::warn!(
            "{} at byte {end}: {why}; the log is cut there, {} bytes are dropped",
            path.display(),
            len - end
        );
    }
    if len != end {
        file.set_len(end)
            .map_err(|e| ShimError::io("cut", path, e))?;
    }
    file.sync_all()
        .map_err(|e| ShimError::io("flush", path, e))?;
    if let Some(dir) = path.parent() {
        File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(|e| ShimError::io("flush the directory", dir, e))?;
    }
    Ok(OpenedLog {
        file,
        path: path.into(),
        end,
        stamp,
    })
}

/// Opens a log that must not have records yet.
pub fn open_new(path: &Path, size_bytes: u64) -> Result<OpenedLog, ShimError> {
    let log = open_log(path, 0, size_bytes)?;
    if log.end != 0 {
        return Err(ShimError::Invalid(format!(
            "{} has {} bytes of records, the next log must be new",
            path.display(),
            log.end
        )));
    }
    Ok(log)
}

/// Opens `name`, and the next ones that have records, in the file or (`staged`) in the stage of the predecessor: after
/// a death around a switch two logs hold what the disk does not have.
pub fn open_chain(
    dir: &Path,
    name: &LogName,
    pos: u64,
    staged: Option<&LogName>,
    size_bytes: u64,
) -> Result<Vec<(LogName, OpenedLog)>, ShimError> {
    let log = open_log(&dir.join(name.to_string()), pos, size_bytes)?;
    let mut logs = vec![(name.clone(), log)];
    let mut next = LogName::new(name.seq + 1, &name.host);
    loop {
        let path = dir.join(next.to_string());
        let in_stage = staged == Some(&next);
        if std::fs::metadata(&path).map_or(0, |m| m.len()) == 0 && !in_stage {
            return Ok(logs);
        }
        let log = open_log(&path, 0, size_bytes)?;
        if log.end == 0 && !in_stage {
            return Ok(logs);
        }
        logs.push((next.clone(), log));
        next.seq += 1;
    }
}

/// Checks that a record fits the device.
fn check_record(path: &Path, at: u64, record: &Record, size_bytes: u64) -> Result<(), ShimError> {
    let len = u64::from(record.len);
    let end = record.pos.checked_add(len);
    let inside = end.is_some_and(|end| end <= size_bytes);
    if record.code != CODE_NEW_DATA
        || inside && record.pos.is_multiple_of(SECTOR) && len % SECTOR == 0
    {
        return Ok(());
    }
    Err(ShimError::Invalid(format!(
        "{} at byte {at}: a record of {len} bytes for device offset {} does not fit a device of {size_bytes} bytes; \
         check the size of the resource",
        path.display(),
        record.pos
    )))
}

/// Stamp of the record that ends at `pos`; the zero stamp at the beginning. An error if no record ends there: what
/// follows would be cut off though it is valid.
fn stamp_before(file: &Arc<File>, path: &Path, pos: u64) -> Result<Stamp, ShimError> {
    if pos == 0 {
        return Ok(Stamp::default());
    }
    let from = pos.saturating_sub(RECORD_MAX as u64);
    let mut reader = LogReader::new(file, path, from, pos)?;
    reader.fill()?;
    let bytes = reader.rest();
    for start in 0..bytes.len() {
        if let Ok(Parsed::Record(record, _)) = parse(&bytes[start..], crc_fast::crc32_iscsi)
            && record.total_len() == bytes.len() - start
        {
            return Ok(stamp_of(&record));
        }
    }
    Err(ShimError::Invalid(format!(
        "{}: no record ends at byte {pos}, logging cannot go on there",
        path.display()
    )))
}

/// Cuts a log at `end`: what stands behind is older than the disk.
pub fn cut_log(path: &Path, end: u64) -> Result<(), ShimError> {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|e| ShimError::io("open", path, e))?;
    let longer = file.metadata().is_ok_and(|m| m.len() > end);
    if longer {
        file.set_len(end)
            .and_then(|()| file.sync_all())
            .map_err(|e| ShimError::io("cut", path, e))?;
    }
    Ok(())
}

/// The time stamp of a record.
pub fn stamp_of(record: &Record) -> Stamp {
    Stamp::new(record.stamp.secs, record.stamp.nanos)
}

/// Reads records one after the other with direct I/O.
#[derive(Debug)]
pub struct LogReader {
    file: Arc<File>,
    path: PathBuf,
    memory: Memory,
    /// Byte offset in the file of the first byte of `memory`.
    base: u64,
    /// Valid bytes in `memory`.
    filled: usize,
    /// Next byte in `memory`.
    at: usize,
    end: u64,
    trouble: Option<String>,
}

impl LogReader {
    /// Reads `pos..end` of `file`.
    pub fn new(file: &Arc<File>, path: &Path, pos: u64, end: u64) -> Result<Self, ShimError> {
        let memory = Memory::new(WINDOW + 2 * 4096 + RECORD_MAX.next_multiple_of(4096))
            .map_err(|e| ShimError::io("allocate memory for", path, e.into()))?;
        let base = pos - pos % LOG_ALIGN;
        let at = usize::try_from(pos - base).unwrap_or(0);
        Ok(Self {
            file: Arc::clone(file),
            path: path.into(),
            memory,
            base,
            filled: 0,
            at,
            end,
            trouble: None,
        })
    }

    /// Byte offset in the log behind the last record.
    pub fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Why reading stopped before the end of the file, unless only zeroes followed.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Bytes behind the position that were read.
    fn rest(&self) -> &[u8] {
        self.memory
            .bytes(self.at, self.filled.saturating_sub(self.at))
    }

    /// A copy of all bytes from the position to the end, which must be within one window.
    pub fn bytes_to_end(&mut self) -> Result<Vec<u8>, ShimError> {
        self.fill()?;
        Ok(self.rest().to_vec())
    }

    /// The next record and its payload; None at the end of the valid records.
    pub fn next_record(&mut self) -> Result<Option<(Record, &[u8])>, ShimError> {
        let left = self.end.saturating_sub(self.position());
        if (self.rest().len() as u64) < left.min(RECORD_MAX as u64) {
            self.fill()?;
        }
        let record = match parse(self.rest(), crc_fast::crc32_iscsi) {
            Ok(Parsed::Record(record, _)) => record,
            Ok(Parsed::End) => return Ok(None),
            Ok(Parsed::Incomplete(_)) => {
                self.trouble = Some("the last record is incomplete".into());
                return Ok(None);
            }
            Err(why) => {
                self.trouble = Some(why.to_string());
                return Ok(None);
            }
        };
        let payload_at = self.at + HEADER_LEN;
        self.at += record.total_len();
        Ok(Some((
            record,
            self.memory.bytes(payload_at, record.len as usize),
        )))
    }

    /// Moves the rest to the beginning of the window and reads more behind it.
    fn fill(&mut self) -> Result<(), ShimError> {
        let skip = self.at - self.at % 4096;
        if skip > 0 && self.filled >= skip {
            let (len, memory) = (self.memory.len(), &mut self.memory);
            memory.bytes_mut(0, len).copy_within(skip..self.filled, 0);
            self.base += skip as u64;
            self.at -= skip;
            self.filled -= skip;
        }
        // The read begins at an aligned byte; a partial block at the end is read again.
        let mut filled = self.filled - self.filled % 4096;
        let capacity = self.memory.len() - self.memory.len() % 4096;
        while filled < capacity && self.base + (filled as u64) < self.end {
            let buffer = self.memory.bytes_mut(filled, capacity - filled);
            let got = match self.file.read_at(buffer, self.base + filled as u64) {
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(ShimError::io("read", &self.path, e)),
            };
            filled += got;
            if got == 0 || !filled.is_multiple_of(4096) {
                break;
            }
        }
        let limit = usize::try_from(self.end - self.base).unwrap_or(usize::MAX);
        self.filled = filled.min(limit);
        Ok(())
    }
}

#[cfg(test)]
#[path = "log_file_tests.rs"]
mod tests;
