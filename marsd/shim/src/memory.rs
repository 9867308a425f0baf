//! Page-aligned anonymous memory for direct I/O, kept in RAM where the limits permit.

use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// From `linux/mman.h`.
const MADV_DONTNEED_LOCKED: libc::c_int = 24;

/// A mapping of zeroed memory; the kernel reads and writes it by address while I/O is in flight.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Memory {}

impl Memory {
    /// Maps `len` bytes, and locks pages into RAM as they are first used (without success where the limit on locked
    /// memory is too low, which is no error).
    pub fn new(len: usize) -> Result<Self, Errno> {
        let length = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap_anonymous(None, length, prot, flags) }?;
        Ok(Self::settle(base, len))
    }

    /// Maps `len` bytes of a file from `offset` on, which has them all, for this process and every other that maps it.
    pub fn of_file(fd: RawFd, offset: usize, len: usize) -> Result<Self, Errno> {
        let length = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the descriptor is the caller's and open during this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap(None, length, prot, MapFlags::MAP_SHARED, fd, offset) }?;
        Ok(Self::settle(base, len))
    }

    fn settle(base: NonNull<libc::c_void>, len: usize) -> Self {
        // SAFETY: the range was just mapped. Large pages are a wish: they make pinning for I/O cheap.
        unsafe { libc::madvise(base.as_ptr(), len, libc::MADV_HUGEPAGE) };
        // SAFETY: the range was just mapped. Failure is tolerated.
        unsafe { libc::mlock2(base.as_ptr(), len, libc::MLOCK_ONFAULT) };
        Self {
            base: base.cast(),
            len,
        }
    }

    /// Address of byte `offset`, which must be inside.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.len, "offset inside the mapping");
        // SAFETY: checked to be inside the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Bytes `offset..offset+len`; the caller has no read from a device into them in flight.
    pub fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset <= self.len && len <= self.len - offset, "inside");
        // SAFETY: inside the mapping, initialised (zero-filled by the kernel); writers need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) }
    }

    /// Bytes `offset..offset+len` to be changed; the caller has no I/O on them in flight.
    pub fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset <= self.len && len <= self.len - offset, "inside");
        // SAFETY: as above, and `&mut self` excludes other references.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }

    /// The 8 bytes at `offset`, a multiple of 8, as a number that another process may read at any time; nobody makes a
    /// plain reference to them.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(8) && self.len >= 8 && offset <= self.len - 8,
            "inside"
        );
        // SAFETY: inside the mapping, which begins at a page, hence 8-aligned; plain references are excluded above.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// Gives the pages from byte `offset` on back to the system; they read as zeroes then.
    pub fn release(&mut self, offset: usize) {
        if offset >= self.len {
            return;
        }
        let at = self.at(offset);
        // SAFETY: the range is inside the mapping, and `&mut self` excludes references into it. A kernel that does not
        // know how to give locked pages back refuses, and they stay.
        unsafe { libc::madvise(at.cast(), self.len - offset, MADV_DONTNEED_LOCKED) };
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a mapping has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; no reference outlives `self`. The engine waits for its I/O first.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

/// Bytes of a line of the cache.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Copies `from` to `to`, which have the same length, without bringing `to` into the processor's cache. Before another
/// process or a device is told of the copy, [`copies_done`] is to be called, once for many copies: it waits for memory.
pub fn copy_past_cache(from: &[u8], to: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
        if from.len() == to.len() {
            // Whole lines of the cache; what is left at both ends goes the usual way.
            let head = to.as_ptr().align_offset(LINE).min(to.len());
            let (from_head, from) = from.split_at(head);
            let (to_head, to) = to.split_at_mut(head);
            to_head.copy_from_slice(from_head);
            let (source, target) = (from.chunks_exact(LINE), to.chunks_exact_mut(LINE));
            let rest = source.remainder();
            let end = from.len() - rest.len();
            for (source, target) in source.zip(target) {
                for at in (0..LINE).step_by(16) {
                    // SAFETY: 16 bytes inside of both; every x86_64 has these instructions, and the target is aligned.
                    unsafe {
                        let part = _mm_loadu_si128(source.as_ptr().add(at).cast());
                        _mm_stream_si128(target.as_mut_ptr().add(at).cast::<__m128i>(), part);
                    }
                }
            }
            to[end..].copy_from_slice(rest);
            return;
        }
    }
    to.copy_from_slice(from);
}

/// Lets the bytes of every [`copy_past_cache`] before be in memory before whatever is stored after.
pub fn copies_done() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: orders stores; touches nothing.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Buffers for reads and pass-through writes: many small ones and some large ones in one mapping.
#[derive(Debug)]
pub struct BufferPool {
    memory: Memory,
    small: Vec<usize>,
    large: Vec<usize>,
}

/// Size of a small buffer in bytes.
const SMALL: usize = 64 * 1024;
const SMALL_COUNT: usize = 64;
/// Size of a large buffer in bytes.
const LARGE: usize = 1 << 20;
const LARGE_COUNT: usize = 8;

/// A buffer taken from a [`BufferPool`]; to be given back with [`BufferPool::put`].
#[derive(Debug)]
pub struct Buffer {
    /// Byte offset in the mapping of the pool.
    pub offset: usize,
    large: bool,
}

impl BufferPool {
    /// Maps the pool (12 MiB).
    pub fn new() -> Result<Self, Errno> {
        let memory = Memory::new(SMALL * SMALL_COUNT + LARGE * LARGE_COUNT)?;
        let small = (0..SMALL_COUNT).map(|n| n * SMALL).collect();
        let large = (0..LARGE_COUNT)
            .map(|n| SMALL * SMALL_COUNT + n * LARGE)
            .collect();
        Ok(Self {
            memory,
            small,
            large,
        })
    }

    /// A buffer for `len` bytes (at most 1 MiB), if one is free.
    pub fn take(&mut self, len: usize) -> Option<Buffer> {
        if len <= SMALL
            && let Some(offset) = self.small.pop()
        {
            return Some(Buffer {
                offset,
                large: false,
            });
        }
        if len > LARGE {
            return None;
        }
        let offset = self.large.pop()?;
        Some(Buffer {
            offset,
            large: true,
        })
    }

    /// Takes a buffer back.
    pub fn put(&mut self, buffer: Buffer) {
        if buffer.large {
            self.large.push(buffer.offset);
        } else {
            self.small.push(buffer.offset);
        }
    }

    /// Bytes of a buffer that has no I/O in flight.
    pub fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        self.memory.bytes(offset, len)
    }

    /// The memory of all buffers.
    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::copy_past_cache;

    #[test]
    fn a_copy_is_equal_wherever_it_begins() {
        let from: Vec<u8> = (0..=255).cycle().take(4096 + 7).collect();
        let mut to = vec![0u64; 1024];
        // SAFETY: plain bytes of a larger allocation.
        let to = unsafe { std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u8>(), 8192) };
        for (begin, len) in [
            (0, 4096),
            (16, 512),
            (7, 4096),
            (32, 4103),
            (61, 2),
            (61, 5),
            (0, 0),
        ] {
            to.fill(0xaa);
            copy_past_cache(&from[..len], &mut to[begin..begin + len]);
            assert_eq!(to[begin..begin + len], from[..len]);
            assert!(
                to[..begin]
                    .iter()
                    .chain(&to[begin + len..])
                    .all(|b| *b == 0xaa)
            );
        }
    }
}
