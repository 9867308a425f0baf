//! The buffers of the log writes, in memory that outlives this process, so that a write may be acknowledged when its
//! record stands there.
//!
//! The area is a file on a tmpfs, `RUN_DIR/stage-RESOURCE` (`symlink-spec.md` section 9). It holds the name of the
//! log, and for each buffer the byte offset in the log of its first byte and the number of valid bytes, which are
//! exactly the bytes of the log there. The successor of a killed shim continues the log with them. A power loss takes
//! them away, as it takes what is in the volatile cache of a disk: only a flush makes writes durable.
//!
//! # Invariants
//! A buffer's count covers only complete records. A buffer is reused only when its bytes are in the log.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use mars_core::LogName;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use crate::error::ShimError;
use crate::memory::Memory;
use crate::requests::{self, KeptWrite, Requests};
use crate::stage::Stage;

/// Bytes of one buffer, the largest write to the log.
pub const BUFFER: usize = 4 << 20;
/// Two in use; two that keep what a predecessor left until it is staged again.
const BUFFERS: usize = 4;
const HEADER: usize = 4096;
const SIZE: usize = HEADER + BUFFERS * BUFFER;
const MAGIC: u64 = u64::from_le_bytes(*b"MARSTAG2");
const NAME_AT: usize = 16;
const NAME_MAX: usize = 200;
const IDENTITY_AT: usize = 248;
const MARKS_AT: usize = 256;

/// The area; see the module.
#[derive(Debug)]
pub struct StageArea {
    memory: Memory,
    /// Where requests are read to.
    pub requests: Requests,
    shared: bool,
    /// First of the two buffers in use.
    first: usize,
}

impl StageArea {
    /// Opens or makes the area at `path`. Where that is impossible (no tmpfs, no room) the memory is private, and
    /// writes are acknowledged only when they are in the log.
    pub fn open(path: &Path) -> Result<Self, ShimError> {
        let (memory, requests, shared) = match map(path) {
            Ok((memory, requests)) => (memory, requests, true),
            Err(e) => {
                tracing::info!(
                    "{}: {}; writes are acknowledged when they are in the log",
                    path.display(),
                    e.desc()
                );
                let failed = |e: Errno| ShimError::io("allocate buffers for", path, e.into());
                let memory = Memory::new(SIZE).map_err(failed)?;
                (memory, Requests::private().map_err(failed)?, false)
            }
        };
        let mut area = Self {
            memory,
            requests,
            shared,
            first: 0,
        };
        if area.word(0).load(Ordering::Acquire) != MAGIC {
            area.clear();
            area.word(0).store(MAGIC, Ordering::Release);
        }
        Ok(area)
    }

    /// Whether its content outlives this process.
    pub fn shared(&self) -> bool {
        self.shared
    }

    /// Goes on in the other two buffers for `log`. What a predecessor left of the same log stays until
    /// [`StageArea::forget_leftover`]. `identity` tells files of one name apart, see [`identity`].
    pub fn begin(&mut self, log: &LogName, identity: u64) {
        if !self.belongs_to(log, identity) {
            self.clear();
            self.word(IDENTITY_AT).store(identity, Ordering::Release);
            let name = log.to_string();
            let len = name.len().min(NAME_MAX);
            self.memory
                .bytes_mut(NAME_AT, len)
                .copy_from_slice(&name.as_bytes()[..len]);
            self.word(8).store(len as u64, Ordering::Release);
        }
        self.first = if self.filled(0) | self.filled(1) == 0 {
            0
        } else {
            2
        };
        self.set(self.first, 0, 0);
        self.set(self.first + 1, 0, 0);
    }

    /// Nothing of it is needed any more.
    pub fn clear(&mut self) {
        self.word(8).store(0, Ordering::Release);
        for buffer in 0..BUFFERS {
            self.set(buffer, 0, 0);
        }
        self.requests.clear();
    }

    /// The log of the records and writes that stand here, if there are any.
    pub fn log(&self) -> Option<LogName> {
        let filled = self.requests.keeps() || (0..BUFFERS).any(|buffer| self.filled(buffer) > 0);
        self.name().filter(|_| filled)
    }

    /// The bytes of `log` from byte `end` on that stand here, as far as they are without a hole.
    pub fn leftover(&self, log: &LogName, identity: u64, end: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.belongs_to(log, identity) {
            return bytes;
        }
        let mut at = end;
        while let Some(more) = (0..BUFFERS).find_map(|buffer| self.bytes_from(buffer, at)) {
            bytes.extend_from_slice(more);
            at += more.len() as u64;
        }
        bytes
    }

    /// The acknowledged write that a predecessor had not staged in `log`.
    pub fn kept_write(&self, log: &LogName, identity: u64) -> Option<KeptWrite> {
        let leftover = self
            .belongs_to(log, identity)
            .then(|| self.requests.leftover());
        leftover.flatten()
    }

    /// What a predecessor left is staged again.
    pub fn forget_leftover(&mut self) {
        self.requests.forget_leftover();
        let other = 2 - self.first;
        self.set(other, 0, 0);
        self.set(other + 1, 0, 0);
    }

    /// All bytes of buffer 0 or 1 of the two in use.
    pub fn buffer_mut(&mut self, index: usize) -> &mut [u8] {
        self.memory.bytes_mut(self.place(index), BUFFER)
    }

    /// The same, and the requests, which are copied there.
    pub fn buffer_and_requests(&mut self, index: usize) -> (&mut [u8], &Requests) {
        let at = self.place(index);
        (self.memory.bytes_mut(at, BUFFER), &self.requests)
    }

    /// The memory of all buffers.
    pub fn buffers(&self) -> &Memory {
        &self.memory
    }

    /// Address of that buffer.
    pub fn address(&self, index: usize) -> *const u8 {
        self.memory.at(self.place(index))
    }

    /// Copies the last `len` bytes before `end` of one buffer in use to the beginning of the other.
    pub fn carry(&mut self, from: usize, end: usize, len: usize) {
        let (source, target) = (self.place(from) + end - len, self.place(1 - from));
        let whole = self.memory.len();
        self.memory
            .bytes_mut(0, whole)
            .copy_within(source..source + len, target);
    }

    /// The bytes of that buffer are no longer needed: it is about to be filled anew.
    pub fn reuse(&mut self, index: usize) {
        self.set(self.first + index, 0, 0);
    }

    /// That buffer now holds what `stage` says.
    pub fn mark(&mut self, index: usize, stage: &Stage) {
        self.set(self.first + index, stage.file_offset, stage.filled as u64);
    }

    fn belongs_to(&self, log: &LogName, identity: u64) -> bool {
        self.name().as_ref() == Some(log) && self.identity() == identity
    }

    fn place(&self, index: usize) -> usize {
        HEADER + (self.first + index) * BUFFER
    }

    fn name(&self) -> Option<LogName> {
        let len = usize::try_from(self.word(8).load(Ordering::Acquire)).ok()?;
        if len == 0 || len > NAME_MAX {
            return None;
        }
        let bytes = self.memory.bytes(NAME_AT, len);
        LogName::parse(std::str::from_utf8(bytes).ok()?).ok()
    }

    fn identity(&self) -> u64 {
        self.word(IDENTITY_AT).load(Ordering::Acquire)
    }

    fn bytes_from(&self, buffer: usize, at: u64) -> Option<&[u8]> {
        let offset = self.word(MARKS_AT + buffer * 16).load(Ordering::Acquire);
        let filled = usize::try_from(self.filled(buffer)).ok()?;
        let skip = usize::try_from(at.checked_sub(offset)?).ok()?;
        (skip < filled && filled <= BUFFER).then(|| {
            self.memory
                .bytes(HEADER + buffer * BUFFER + skip, filled - skip)
        })
    }

    fn filled(&self, buffer: usize) -> u64 {
        self.word(MARKS_AT + buffer * 16 + 8)
            .load(Ordering::Acquire)
    }

    /// The count goes last, and to zero before anything else changes.
    fn set(&mut self, buffer: usize, offset: u64, filled: u64) {
        let at = MARKS_AT + buffer * 16;
        if self.word(at).load(Ordering::Relaxed) != offset {
            self.word(at + 8).store(0, Ordering::SeqCst);
            self.word(at).store(offset, Ordering::SeqCst);
        }
        self.word(at + 8).store(filled, Ordering::SeqCst);
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.memory.word(at)
    }
}

/// A number that a logfile shares with no earlier file of its name: from its inode and the time it was made.
pub fn identity(file: &File) -> u64 {
    let Ok(meta) = file.metadata() else { return 0 };
    let born = meta
        .created()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    (born.as_secs() << 30 ^ u64::from(born.subsec_nanos())).wrapping_add(meta.ino().rotate_left(40))
}

fn map(path: &Path) -> Result<(Memory, Requests), Errno> {
    let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(errno)?;
    if fstatfs(&file)?.filesystem_type() != TMPFS_MAGIC {
        // Best effort: an empty file harms nobody.
        let _ = std::fs::remove_file(path);
        return Err(Errno::EOPNOTSUPP);
    }
    let size = i64::try_from(SIZE + requests::SIZE).map_err(|_| Errno::EFBIG)?;
    // Touching a page that the file system has no room for would be the end of the process.
    fallocate(&file, FallocateFlags::empty(), 0, size)?;
    let memory = Memory::of_file(file.as_raw_fd(), 0, SIZE)?;
    Ok((memory, Requests::of_file(file.as_raw_fd(), SIZE)?))
}

#[cfg(test)]
#[path = "stage_area_tests.rs"]
mod tests;
