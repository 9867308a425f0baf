// SPDX-License-Identifier: GPL-2.0

//! The block device of a resource: made, resized, removed, opened, closed.

use core::cell::UnsafeCell;
use kernel::ffi::c_int;

use kernel::bindings;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi;
use crate::resource::Resource;

extern "C" {
    fn mars_alloc_disk(lower: *mut bindings::block_device) -> *mut bindings::gendisk;
}

/// A key for the lock checker, for locks that C code makes for us.
pub(crate) struct LockKey(UnsafeCell<bindings::lock_class_key>);

// SAFETY: Only the lock checker looks into it, under its own lock.
unsafe impl Sync for LockKey {}

impl LockKey {
    pub(crate) const fn new() -> Self {
        // SAFETY: A key begins as zeroes.
        Self(UnsafeCell::new(unsafe { core::mem::zeroed() }))
    }

    pub(crate) fn as_ptr(&'static self) -> *mut bindings::lock_class_key {
        self.0.get()
    }
}

/// The device, as long as it exists.
///
/// # Invariants
///
/// `disk` was added; its private data is a resource that lives longer.
pub(crate) struct Device {
    disk: *mut bindings::gendisk,
}

// SAFETY: Disks are used from any thread.
unsafe impl Send for Device {}

impl Device {
    /// Makes it appear; returns its number too. Sleeps.
    pub(crate) fn add(resource: &Arc<Resource>, size: u64) -> Result<(Self, (u32, u32))> {
        // SAFETY: The lower device is open.
        let disk = from_err_ptr(unsafe { mars_alloc_disk(resource.disk.bdev()) })?;
        let name = abi::text(&resource.device_name).unwrap_or("mars");
        // SAFETY: `disk` is allocated and not added, so that nobody else uses it. Both names have 32 bytes, and the text
        // is shorter than that. The resource outlives the device by the contract of `Resource`.
        let added = unsafe {
            for (to, from) in (*disk).disk_name.iter_mut().zip(name.bytes()) {
                // A slash makes the driver core create a directory.
                *to = if from == b'/' { b'!' } else { from } as _;
            }
            (*disk).private_data = core::ptr::from_ref::<Resource>(resource).cast_mut().cast();
            bindings::set_capacity(disk, size >> bindings::SECTOR_SHIFT);
            to_result(bindings::device_add_disk(
                core::ptr::null_mut(),
                disk,
                core::ptr::null_mut(),
            ))
        };
        if let Err(e) = added {
            // SAFETY: Allocated above and not added.
            unsafe { bindings::put_disk(disk) };
            return Err(e);
        }
        // SAFETY: Added just now; the numbers stay.
        let number = unsafe { ((*disk).major as u32, (*disk).first_minor as u32) };
        Ok((Self { disk }, number))
    }

    /// Sets its size in bytes.
    pub(crate) fn resize(&self, size: u64) {
        // SAFETY: The disk exists by the type's invariant.
        unsafe { bindings::set_capacity_and_notify(self.disk, size >> bindings::SECTOR_SHIFT) };
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: Added, by the type's invariant, and removed only here. Afterwards no request comes in.
        unsafe {
            bindings::del_gendisk(self.disk);
            bindings::put_disk(self.disk);
        }
    }
}

/// The resource of a disk.
///
/// # Safety
///
/// `disk` is one of ours and exists for `'a`.
pub(crate) unsafe fn resource_of<'a>(disk: *mut bindings::gendisk) -> &'a Resource {
    // SAFETY: Set in `add`, and valid while the disk exists.
    unsafe { &*(*disk).private_data.cast::<Resource>() }
}

/// # Safety
///
/// Called by the block layer with a disk of ours.
#[no_mangle]
unsafe extern "C" fn mars_open(disk: *mut bindings::gendisk, _mode: bindings::blk_mode_t) -> c_int {
    // SAFETY: By the contract of this function.
    let resource = unsafe { resource_of(disk) };
    {
        let mut state = resource.state.lock();
        if state.stopping {
            return ENXIO.to_errno();
        }
        state.openers += 1;
    }
    resource.publish();
    0
}

/// # Safety
///
/// Called by the block layer with a disk of ours, once for each successful open.
#[no_mangle]
unsafe extern "C" fn mars_release(disk: *mut bindings::gendisk) {
    // SAFETY: By the contract of this function.
    let resource = unsafe { resource_of(disk) };
    resource.state.lock().openers -= 1;
    resource.publish();
}
