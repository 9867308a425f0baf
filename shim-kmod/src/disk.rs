// SPDX-License-Identifier: GPL-2.0

//! The disk below: opened exclusively, flushed, its size.

use kernel::bindings;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;

use crate::log_file::{FileRef, FMODE_READ, FMODE_WRITE};

/// As `BLK_OPEN_READ | BLK_OPEN_WRITE`.
const READ_WRITE: bindings::blk_mode_t = 3;
/// An open block device.
///
/// # Invariants
///
/// `file` is an open file of a block device that we hold exclusively, `bdev` is that device.
pub(crate) struct Disk {
    file: *mut bindings::file,
    bdev: *mut bindings::block_device,
    /// Its address is the holder: one for each opening, so that no disk is opened twice.
    _holder: KBox<u8>,
}

// SAFETY: Block devices are used from any thread.
unsafe impl Send for Disk {}
// SAFETY: As above; nothing in here changes.
unsafe impl Sync for Disk {}

impl Disk {
    /// Opens the block device behind a descriptor of the caller.
    pub(crate) fn open(fd: i32) -> Result<Self> {
        let given = FileRef::get(fd)?;
        let (mode, number) = given.inode_kind();
        if u32::from(mode) & bindings::S_IFMT != bindings::S_IFBLK {
            return Err(ENOTBLK);
        }
        if !given.has_mode(FMODE_READ | FMODE_WRITE) {
            return Err(EBADF);
        }
        let mut holder = KBox::new(0u8, GFP_KERNEL)?;
        let address: *mut u8 = &mut *holder;
        // SAFETY: Any number may be asked for; the holder lives until the file is closed.
        let file = from_err_ptr(unsafe {
            bindings::bdev_file_open_by_dev(number, READ_WRITE, address.cast(), core::ptr::null())
        })?;
        // SAFETY: A block device is open, so it can be asked for.
        let bdev = unsafe { bindings::file_bdev(file) };
        // INVARIANT: Opened just now with a holder.
        Ok(Self {
            file,
            bdev,
            _holder: holder,
        })
    }

    /// For the functions of the block layer.
    pub(crate) fn bdev(&self) -> *mut bindings::block_device {
        self.bdev
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: The device is open by the type's invariant.
        unsafe { (*self.bdev).bd_nr_sectors << bindings::SECTOR_SHIFT }
    }

    /// Smallest unit of I/O in bytes.
    pub(crate) fn block_size(&self) -> u64 {
        // SAFETY: The device is open by the type's invariant, so its queue exists.
        unsafe { u64::from((*(*self.bdev).bd_queue).limits.logical_block_size) }.max(512)
    }

    /// Device number.
    pub(crate) fn number(&self) -> (u32, u32) {
        // SAFETY: The device is open by the type's invariant.
        let number = unsafe { (*self.bdev).bd_dev };
        (
            number >> bindings::MINORBITS,
            number & ((1 << bindings::MINORBITS) - 1),
        )
    }

    /// Returns when all writes that have ended are on stable storage.
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: The device is open by the type's invariant.
        to_result(unsafe { bindings::blkdev_issue_flush(self.bdev) })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: Opened in `open`, closed nowhere else.
        unsafe { bindings::bdev_fput(self.file) }
    }
}
