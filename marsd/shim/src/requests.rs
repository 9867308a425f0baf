//! The buffer that FUSE requests are read into, in memory that outlives this process, so that a large write may be
//! acknowledged when it stands there, before it is copied into the log and the map.
//!
//! It is part of the stage area (`stage_area`). In front of the request a header says what is kept: device offset,
//! length and stamp of an acknowledged write whose records do not all stand in the stage yet.
//!
//! # Invariants
//! At most one of the two buffers keeps a write. A buffer that does is not read into.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use mars_core::Stamp;
use nix::errno::Errno;

use crate::fuse_proto::{MAX_IO, REQUEST_MAX, WRITE_HEADER};
use crate::memory::Memory;

/// Payloads begin at a page.
const PAYLOAD_AT: usize = 4096;
const REQUEST_AT: usize = PAYLOAD_AT - WRITE_HEADER;
const BUFFER: usize = (REQUEST_AT + REQUEST_MAX).next_multiple_of(4096);
/// Bytes of both buffers: one in use, one that keeps what a predecessor left.
pub const SIZE: usize = 2 * BUFFER;

/// An acknowledged write that a predecessor had not staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptWrite {
    /// Byte offset on the device.
    pub offset: u64,
    /// Its stamp.
    pub stamp: Stamp,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The buffers; see the module.
#[derive(Debug)]
pub struct Requests {
    memory: Memory,
    current: usize,
}

impl Requests {
    /// Private memory, which outlives nothing.
    pub fn private() -> Result<Self, Errno> {
        Memory::new(SIZE).map(Self::with)
    }

    /// The bytes of a file from `offset` (a multiple of the page size) on, which has them all.
    pub fn of_file(fd: RawFd, offset: usize) -> Result<Self, Errno> {
        Memory::of_file(fd, offset, SIZE).map(Self::with)
    }

    fn with(memory: Memory) -> Self {
        let mut requests = Self { memory, current: 0 };
        requests.current = usize::from(requests.len_kept(0) != 0);
        requests
    }

    /// Where the next request is read to.
    pub fn target(&mut self) -> &mut [u8] {
        let at = self.current * BUFFER + REQUEST_AT;
        self.memory.bytes_mut(at, REQUEST_MAX)
    }

    /// The first `len` bytes of the request.
    pub fn request(&self, len: usize) -> &[u8] {
        let at = self.current * BUFFER + REQUEST_AT;
        self.memory.bytes(at, len.min(REQUEST_MAX))
    }

    /// Bytes `at..at+len` of the payload of the write that was read.
    pub fn payload(&self, at: usize, len: usize) -> &[u8] {
        let from = self.current * BUFFER + PAYLOAD_AT;
        self.memory.bytes(from + at, len)
    }

    /// From now on a successor finds the write that was read, of `len` bytes for device offset `offset`.
    pub fn keep(&mut self, offset: u64, len: u32, stamp: Stamp) {
        self.set(8, offset);
        self.set(16, u64::from_ne_bytes(stamp.secs.to_ne_bytes()));
        self.set(24, u64::from(stamp.nanos));
        self.set(0, u64::from(len));
    }

    /// The write that was read is staged.
    pub fn release(&mut self) {
        self.set(0, 0);
    }

    /// Nothing is kept any more, of a predecessor neither.
    pub fn clear(&mut self) {
        for buffer in 0..2 {
            self.word(buffer, 0).store(0, Ordering::SeqCst);
        }
    }

    /// Whether something is kept.
    pub fn keeps(&self) -> bool {
        (0..2).any(|buffer| self.len_kept(buffer) != 0)
    }

    /// What a predecessor left.
    pub fn leftover(&self) -> Option<KeptWrite> {
        let buffer = 1 - self.current;
        let len = usize::try_from(self.len_kept(buffer)).ok()?;
        if len == 0 || len > MAX_IO {
            return None;
        }
        let word = |at| self.word(buffer, at).load(Ordering::SeqCst);
        Some(KeptWrite {
            offset: word(8),
            stamp: Stamp::new(
                i64::from_ne_bytes(word(16).to_ne_bytes()),
                u32::try_from(word(24)).ok()?,
            ),
            bytes: self.memory.bytes(buffer * BUFFER + PAYLOAD_AT, len).into(),
        })
    }

    /// What a predecessor left is staged.
    pub fn forget_leftover(&mut self) {
        self.word(1 - self.current, 0).store(0, Ordering::SeqCst);
    }

    fn len_kept(&self, buffer: usize) -> u64 {
        self.word(buffer, 0).load(Ordering::SeqCst)
    }

    fn set(&mut self, at: usize, value: u64) {
        self.word(self.current, at).store(value, Ordering::SeqCst);
    }

    fn word(&self, buffer: usize, at: usize) -> &std::sync::atomic::AtomicU64 {
        self.memory.word(buffer * BUFFER + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_write_outlives_its_process_and_is_not_read_over() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(u64::try_from(4096 + SIZE).unwrap()).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let open = || Requests::of_file(fd, 4096).unwrap();
        for round in 0..3u8 {
            let mut first = open();
            assert!(!first.keeps());
            first.target()[WRITE_HEADER..WRITE_HEADER + 8192].fill(round);
            let stamp = Stamp::new(-5, 999_999_999);
            first.keep(4096, 8192, stamp);
            drop(first);
            let mut second = open();
            second.target().fill(0xee);
            let kept = second.leftover().unwrap();
            assert_eq!((kept.offset, kept.stamp), (4096, stamp));
            assert_eq!(kept.bytes, [round; 8192]);
            assert!(second.keeps());
            second.forget_leftover();
            assert!(!second.keeps() && second.leftover().is_none());
        }
    }

    #[test]
    fn what_is_staged_or_damaged_is_no_leftover() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(u64::try_from(SIZE).unwrap()).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let open = || Requests::of_file(fd, 0).unwrap();
        let mut requests = open();
        requests.keep(0, 4096, Stamp::default());
        requests.release();
        assert!(open().leftover().is_none());
        requests.keep(0, u32::MAX, Stamp::default());
        assert!(open().keeps() && open().leftover().is_none());
    }
}
