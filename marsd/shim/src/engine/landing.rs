//! Large writes land where they stay: the kernel copies their payload straight into the slots of the map.
//!
//! What comes next is not known before it is read, so this is a bet that a large write follows a large write. When it
//! is lost the bytes are put together in the request buffer, and nothing else notices.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::write::PendingWrite;
use super::{Engine, Mode};
use crate::fuse_proto::{MAX_IO, Operation, WRITE_HEADER, parse_request};
use crate::map::{PAGE, Slot};

/// From this many bytes on a write is large.
pub(super) const LANDING_MIN: u32 = 64 * 1024;
/// Slots that the largest write needs.
const SLOTS: usize = MAX_IO / 4096;

impl Engine {
    /// Whether the next request is read into slots.
    pub(super) fn landing_wanted(&self) -> bool {
        self.large_writes && matches!(self.mode, Mode::Logging) && self.map.free_slots() > SLOTS
    }

    /// Reads a request: its first [`WRITE_HEADER`] bytes into the request buffer, the rest into the next slots.
    pub(super) fn read_landing(&mut self) -> nix::Result<usize> {
        let Some(fuse) = &self.fuse else {
            return Err(Errno::EAGAIN);
        };
        let mut parts = vec![libc::iovec {
            iov_base: self.request.at(0).cast(),
            iov_len: WRITE_HEADER,
        }];
        for slot in self.map.next_slots(SLOTS) {
            let at = self.slots.at(slot as usize * 4096).cast();
            match parts.last_mut() {
                Some(last) if last.iov_base.wrapping_byte_add(last.iov_len) == at => {
                    last.iov_len += 4096;
                }
                _ => parts.push(libc::iovec {
                    iov_base: at,
                    iov_len: 4096,
                }),
            }
        }
        let count = i32::try_from(parts.len()).unwrap_or(0);
        let fd = fuse.fd.as_fd().as_raw_fd();
        // SAFETY: every part is memory of ours that nothing else uses: the request buffer has no request waiting in
        // it, and the slots are free.
        let got = unsafe { libc::readv(fd, parts.as_ptr(), count) };
        Errno::result(got).map(|len| usize::try_from(len).unwrap_or(0))
    }

    /// Whether the request of `len` bytes that was read is a write of whole pages, which can stay in the slots.
    pub(super) fn lands_whole(&self, len: usize) -> bool {
        // Only the first bytes are those of the request; the others are not looked at.
        let Some((offset, size)) = write_of(self.request.bytes(0, len)) else {
            return false;
        };
        let inside = offset
            .checked_add(size as u64)
            .is_some_and(|end| end <= self.size_bytes);
        inside && size > 0 && offset % PAGE == 0 && size % 4096 == 0
    }

    /// Puts a request of `len` bytes that was read into slots together in the request buffer.
    pub(super) fn collect(&mut self, len: usize) {
        let slots: Vec<Slot> = self.map.next_slots(SLOTS).collect();
        self.copy_pages(&slots, WRITE_HEADER, len.saturating_sub(WRITE_HEADER));
    }

    /// Puts a landed write, of which nothing is staged, together in the request buffer: it goes another way now.
    pub(super) fn unland(&mut self, write: &mut PendingWrite) {
        let Some(slots) = write.landed.take() else {
            return;
        };
        let all: Vec<Slot> = slots.iter().copied().collect();
        self.copy_pages(&all, WRITE_HEADER, write.len as usize);
        self.map.give_back(slots);
    }

    fn copy_pages(&mut self, slots: &[Slot], mut at: usize, mut left: usize) {
        for slot in slots {
            let piece = left.min(4096);
            let from = self.slots.bytes(*slot as usize * 4096, piece);
            self.request.bytes_mut(at, piece).copy_from_slice(from);
            at += piece;
            left -= piece;
        }
    }
}

/// Offset and length of the write, if the request is one.
fn write_of(request: &[u8]) -> Option<(u64, usize)> {
    let payload = request.len().checked_sub(WRITE_HEADER)?;
    match parse_request(request)?.operation {
        Operation::Write { offset, len: size } if size as usize == payload => {
            Some((offset, size as usize))
        }
        _ => None,
    }
}
