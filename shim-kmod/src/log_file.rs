// SPDX-License-Identifier: GPL-2.0

//! Files that marsd hands in: the log (append, zeros ahead, flush, trim) and the mark of pass-through.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;

/// As `FMODE_READ`.
pub(crate) const FMODE_READ: u32 = 1;
/// As `FMODE_WRITE`.
pub(crate) const FMODE_WRITE: u32 = 2;

/// A reference to an open file.
///
/// # Invariants
///
/// Points to an open file on which we hold a reference.
pub(crate) struct FileRef(*mut bindings::file);

// SAFETY: Open files are used from any thread.
unsafe impl Send for FileRef {}
// SAFETY: As above.
unsafe impl Sync for FileRef {}

impl FileRef {
    /// The file behind a descriptor of the caller.
    pub(crate) fn get(fd: i32) -> Result<Self> {
        let fd = u32::try_from(fd).map_err(|_| EBADF)?;
        // SAFETY: Any number may be asked for.
        let file = unsafe { bindings::fget(fd) };
        if file.is_null() {
            return Err(EBADF);
        }
        // INVARIANT: `fget` took a reference.
        Ok(Self(file))
    }

    /// Whether it was opened with all of these `FMODE_` bits.
    pub(crate) fn has_mode(&self, bits: u32) -> bool {
        // SAFETY: The file is open by the type's invariant.
        unsafe { (*self.0).f_mode & bits == bits }
    }

    /// Mode of the inode, and its device number if it is a device.
    pub(crate) fn inode_kind(&self) -> (u16, u32) {
        // SAFETY: The file is open by the type's invariant, so it has an inode; both fields never change.
        unsafe { ((*(*self.0).f_inode).i_mode, (*(*self.0).f_inode).i_rdev) }
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        // SAFETY: The file is open by the type's invariant; the length is read at once on 64 bits.
        let len = unsafe { core::ptr::addr_of!((*(*self.0).f_inode).i_size).read_volatile() };
        u64::try_from(len).unwrap_or(0)
    }

    /// Whether it is a regular file, open for reading and writing, in a mode that appends where it is told.
    pub(crate) fn check_log(&self) -> Result {
        // SAFETY: The file is open by the type's invariant.
        let flags = unsafe { (*self.0).f_flags };
        let (mode, _) = self.inode_kind();
        if u32::from(mode) & bindings::S_IFMT != bindings::S_IFREG
            || flags & (bindings::O_APPEND | bindings::O_DIRECT) != 0
        {
            return Err(EINVAL);
        }
        if !self.has_mode(FMODE_READ | FMODE_WRITE) {
            return Err(EBADF);
        }
        Ok(())
    }

    /// Writes `pieces`, `len` bytes in all, at byte `at`.
    fn write(&self, pieces: &[bindings::kvec], len: usize, at: u64) -> Result {
        let mut iter = bindings::iov_iter::default();
        let mut pos = i64::try_from(at).map_err(|_| EFBIG)?;
        // SAFETY: The pieces outlive `iter`; their owners keep the memory behind them until we return.
        unsafe {
            bindings::iov_iter_kvec(
                &mut iter,
                bindings::ITER_SOURCE,
                pieces.as_ptr(),
                pieces.len() as _,
                len,
            );
        }
        let mut left = len as isize;
        while left > 0 {
            // SAFETY: The file is open by the type's invariant, `iter` was initialised above.
            let written = unsafe { bindings::vfs_iter_write(self.0, &mut iter, &mut pos, 0) };
            if written <= 0 {
                return Err(match written {
                    0 => ENOSPC,
                    e => Error::from_errno(e as i32),
                });
            }
            left -= written;
        }
        Ok(())
    }

    /// Returns when its data is on stable storage.
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: The file is open by the type's invariant.
        to_result(unsafe { bindings::vfs_fsync_range(self.0, 0, i64::MAX, 1) })
    }
}

impl Drop for FileRef {
    fn drop(&mut self) {
        // SAFETY: We hold a reference by the type's invariant.
        unsafe { bindings::fput(self.0) }
    }
}

/// An active log. Only the logger writes to it; others may flush it.
pub(crate) struct LogFile {
    file: FileRef,
    /// Up to here the file is written, with records or zeros.
    ahead: AtomicU64,
}

impl LogFile {
    /// A log of `len` bytes.
    pub(crate) fn new(file: FileRef, len: u64) -> Self {
        Self {
            file,
            ahead: AtomicU64::new(len),
        }
    }

    /// Writes whole records behind the last one, at byte `at`.
    pub(crate) fn append(&self, pieces: &[bindings::kvec], len: usize, at: u64) -> Result {
        // Also if it fails in the middle: what is there then must be trimmed.
        self.ahead.fetch_max(at + len as u64, Ordering::Relaxed);
        self.file.write(pieces, len, at)
    }

    /// Writes zeros behind what is written.
    pub(crate) fn extend(&self, pieces: &[bindings::kvec], len: usize) -> Result {
        let at = self.ahead();
        // Written or not, the file may be longer now.
        self.ahead.store(at + len as u64, Ordering::Relaxed);
        self.file.write(pieces, len, at)
    }

    /// Length of the file as far as we made it.
    pub(crate) fn ahead(&self) -> u64 {
        self.ahead.load(Ordering::Relaxed)
    }

    pub(crate) fn flush(&self) -> Result {
        self.file.flush()
    }

    /// Cuts it to `len` bytes, if it is longer.
    pub(crate) fn trim(&self, len: u64) -> Result {
        if self.ahead() == len {
            return Ok(());
        }
        let to = i64::try_from(len).map_err(|_| EFBIG)?;
        // SAFETY: The file is open, so its path is valid.
        let result = unsafe { bindings::vfs_truncate(&(*self.file.0).f_path, to) };
        to_result(result as i32)?;
        self.ahead.store(len, Ordering::Relaxed);
        Ok(())
    }
}

/// The file that says which logs are older than the disk.
pub(crate) struct MarkFile(FileRef);

/// Bytes of a mark.
const MARK_LEN: usize = 256;

impl MarkFile {
    pub(crate) fn get(fd: i32) -> Result<Self> {
        let file = FileRef::get(fd)?;
        let (mode, _) = file.inode_kind();
        if u32::from(mode) & bindings::S_IFMT != bindings::S_IFREG || file.len() < MARK_LEN as u64 {
            return Err(EINVAL);
        }
        if !file.has_mode(FMODE_WRITE) {
            return Err(EBADF);
        }
        Ok(Self(file))
    }

    /// Stores that everything in log `name` before byte `end` is on the disk.
    pub(crate) fn store(&self, name: &str, end: u64) -> Result {
        let mut bytes = [b' '; MARK_LEN];
        let mut text = Cursor {
            bytes: &mut bytes,
            len: 0,
        };
        core::fmt::Write::write_fmt(&mut text, format_args!("{name},{end},"))?;
        let piece = bindings::kvec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: MARK_LEN,
        };
        self.0.write(&[piece], MARK_LEN, 0)?;
        self.0.flush()
    }
}

struct Cursor<'a> {
    bytes: &'a mut [u8; MARK_LEN],
    len: usize,
}

impl core::fmt::Write for Cursor<'_> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let to = self
            .bytes
            .get_mut(self.len..self.len + s.len())
            .ok_or(core::fmt::Error)?;
        to.copy_from_slice(s.as_bytes());
        self.len += s.len();
        Ok(())
    }
}
