// SPDX-License-Identifier: GPL-2.0

//! Where requests of the application come in, in its own thread: reads are answered here or sent to the disk, writes
//! are handed to the logger or, in pass-through, sent to the disk.

use core::sync::atomic::Ordering;

use kernel::bindings;
use kernel::prelude::*;

use crate::bio::{Bio, Owned, Request, GFP_NOIO};
use crate::device::resource_of;
use crate::map::Source;
use crate::resource::{now, Mode, Resource};

/// # Safety
///
/// Called by the block layer with a bio for a disk of ours.
#[no_mangle]
unsafe extern "C" fn mars_submit_bio(bio: *mut bindings::bio) {
    // SAFETY: The bio is valid by the contract of this function, and its disk exists until the bio is ended.
    let resource = unsafe { resource_of((*(*bio).bi_bdev).bd_disk) };
    // INVARIANT: Submitted to our device just now.
    let bio = Bio(bio);
    match bio.op() {
        bindings::req_op_REQ_OP_READ => resource.read(bio),
        bindings::req_op_REQ_OP_WRITE | bindings::req_op_REQ_OP_FLUSH => resource.write(bio),
        // Not offered by the limits of the device.
        _ => bio.end(Err(Error::from_errno(-(bindings::EOPNOTSUPP as i32)))),
    }
}

impl Resource {
    fn read(&self, bio: Bio) {
        self.requests.reads.fetch_add(1, Ordering::Relaxed);
        loop {
            if self.failed.load(Ordering::Acquire) {
                return bio.end(Err(EIO));
            }
            let len = bio.len();
            if len == 0 {
                return bio.end(Ok(()));
            }
            if self.dirty.load(Ordering::Acquire) == 0 {
                return self.send(self.request(bio));
            }
            let map = self.map.lock();
            let (source, run) = map.map.first_run(bio.pos(), len);
            match source {
                Source::Memory { slot, at } => {
                    // SAFETY: The run is not longer than what is left; it lies in one slot, which is used, so it has a
                    // page and keeps it while the map is locked.
                    unsafe { bio.copy_in(self.slots.at(slot, at), run as u32) };
                }
                Source::Disk => {
                    drop(map);
                    if run == len {
                        return self.send(self.request(bio));
                    }
                    return self.send_first(bio, run);
                }
            }
        }
    }

    /// Sends the first `len` bytes of a read to the disk; the rest comes in again.
    fn send_first(&self, bio: Bio, len: u64) {
        let sectors = (len >> bindings::SECTOR_SHIFT) as i32;
        // SAFETY: Fewer sectors than the bio has, and at least one.
        let first =
            unsafe { bindings::bio_split(bio.0, sectors, GFP_NOIO, self.pools.splits.as_ptr()) };
        if kernel::error::from_err_ptr(first).map_or(true, |p| p.is_null()) {
            return bio.end(Err(EIO));
        }
        // SAFETY: Both are valid; `bio` is ended after `first` and itself.
        unsafe { bindings::bio_chain(first, bio.0) };
        // INVARIANT: A bio of its own, which ends into `bio`.
        self.send(self.request(Bio(first)));
        // SAFETY: What is left of the bio is a valid bio for our device.
        unsafe { bindings::submit_bio_noacct(bio.0) };
    }

    fn write(&self, bio: Bio) {
        let counter = if bio.len() > 0 {
            &self.requests.writes
        } else {
            &self.requests.flushes
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut request = self.request(bio);
        let mut state = self.state.lock();
        match state.mode {
            // What was answered before is in the log: the logger need not be asked.
            Mode::Logging if bio.len() == 0 && !state.broken => {
                let logged = state.stream.logged;
                if state.stream.durable >= logged {
                    drop(state);
                    return self.finish(request, Ok(()));
                }
                request.end = logged;
                state.flushes.push_back(request);
                drop(state);
                self.syncer.notify_one();
            }
            Mode::PassThrough if state.queue.is_empty() => {
                self.disk_writes.fetch_add(1, Ordering::AcqRel);
                drop(state);
                self.send_write(request);
            }
            Mode::Logging | Mode::Draining(_) | Mode::Resuming | Mode::PassThrough => {
                state.queue.push_back(request);
                drop(state);
                self.logger.notify_one();
            }
            Mode::Attached | Mode::Failed | Mode::Stopped => {
                drop(state);
                self.finish(request, Err(EIO));
            }
        }
    }

    fn request(&self, bio: Bio) -> Owned {
        let request = Request::new(bio, self, account_start(bio));
        self.pools.requests.get(request)
    }

    /// Sends a read to the disk.
    fn send(&self, request: Owned) {
        self.disk_reads.fetch_add(1, Ordering::AcqRel);
        self.send_clone(request);
    }

    /// Sends a write or a flush to the disk; it is counted in `disk_writes` already.
    pub(crate) fn send_write(&self, request: Owned) {
        self.send_clone(request);
    }

    fn send_clone(&self, request: Owned) {
        // SAFETY: The bio is valid; with direct reclaim allowed a clone is always got.
        let clone = unsafe {
            bindings::bio_alloc_clone(
                self.disk.bdev(),
                request.bio.0,
                GFP_NOIO,
                self.pools.clones.as_ptr(),
            )
        };
        // SAFETY: The clone is ours until it is submitted.
        unsafe {
            (*clone).bi_private = request.into_raw().cast();
            (*clone).bi_end_io = Some(disk_answered);
            bindings::submit_bio_noacct(clone);
        }
    }
}

/// The disk has answered.
///
/// # Safety
///
/// `clone` was sent by [`Resource::send_clone`]. Any context.
unsafe extern "C" fn disk_answered(clone: *mut bindings::bio) {
    // SAFETY: The clone is valid until it is put; its private data is the request, given away when it was sent.
    let (request, status) = unsafe {
        let request = Owned::from_raw((*clone).bi_private.cast());
        let status = (*clone).bi_status;
        bindings::bio_put(clone);
        (request, status)
    };
    // SAFETY: The resource outlives its requests.
    let resource = unsafe { &*request.resource };
    let bio = request.bio;
    let counter = if bio.op() == bindings::req_op_REQ_OP_READ {
        &resource.disk_reads
    } else {
        &resource.disk_writes
    };
    account_end(&request);
    resource.pools.requests.put(request);
    // SAFETY: The bio is ours to end. A chained one may carry an error already.
    unsafe {
        if status != 0 {
            (*bio.0).bi_status = status;
        }
        bindings::bio_endio(bio.0);
    }
    // The last touch of the resource.
    counter.fetch_sub(1, Ordering::Release);
}

/// Counts a request that comes in, for the statistics of the block layer.
fn account_start(bio: Bio) -> kernel::ffi::c_ulong {
    if bio.len() == 0 {
        return 0;
    }
    // SAFETY: The device exists while a bio for it is under way.
    unsafe { bindings::bdev_start_io_acct(bio.device(), bio.op(), now()) }
}

/// Counts a request that is about to be answered.
pub(crate) fn account_end(request: &Request) {
    if request.sectors == 0 {
        return;
    }
    let bio = request.bio;
    // SAFETY: As in `account_start`.
    unsafe {
        bindings::bdev_end_io_acct(bio.device(), bio.op(), request.sectors, request.start);
    }
}
