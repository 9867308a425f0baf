// SPDX-License-Identifier: GPL-2.0

//! The thread that writes dirty pages to the disk, in rounds: freeze the oldest, wait until their records are durable,
//! write them in disk order, flush the disk, forget them. One round at a time, so no two writes of one block are ever
//! in flight.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, AtomicU8, Ordering};
use kernel::ffi::c_ulong;

use kernel::prelude::*;
use kernel::time::msecs_to_jiffies;
use kernel::{bindings, c_str};

use crate::abi::operation;
use crate::bio::GFP_NOIO;
use crate::device::LockKey;
use crate::logger::DIRTY_URGENT;
use crate::pages::{runs_of, PAGE};
use crate::resource::{now, Mode, Resource, SLOTS_RESERVED};

/// A round begins when something has been dirty for this long, in milliseconds, or when it is urgent.
const AGE_MS: u32 = 150;
/// Memory that was not needed for this long is given back, in milliseconds.
const IDLE_MS: u32 = 5000;
/// Pages of one bio.
const BIO_PAGES: u32 = 64;
/// Bios in flight.
const GROUP: u32 = 32;

static DONE_KEY: LockKey = LockKey::new();

extern "C" {
    fn mars_bio_add(bio: *mut bindings::bio, memory: *mut u8, len: u32) -> bool;
}

/// Writes that are waited for together.
struct Group {
    /// Writes in flight, and one more while there may come others.
    left: AtomicU32,
    /// First error, as block status.
    status: AtomicU8,
    done: bindings::completion,
}

/// Body of the thread.
pub(crate) fn run(resource: &Resource) {
    while wait_for_round(resource) {
        let Some(newest) = freeze(resource) else {
            continue;
        };
        if !wait_for_log(resource, newest) {
            continue;
        }
        let written = write_frozen(resource).and_then(|bytes| {
            let flushed = resource.disk.flush();
            flushed
                .map(|()| bytes)
                .map_err(|e| (operation::DISK_FLUSH, e, 0))
        });
        match written {
            Ok(bytes) => thaw(resource, bytes),
            Err((what, e, at)) => resource.disk_failed(what, e, at),
        }
    }
}

/// Returns when a round is due; false at the end.
fn wait_for_round(resource: &Resource) -> bool {
    let mut since: Option<c_ulong> = None;
    let mut state = resource.state.lock();
    loop {
        if state.exit {
            return false;
        }
        let dirty = resource.dirty.load(Ordering::Acquire);
        if dirty == 0 || state.mode == Mode::Failed {
            since = None;
            let idle = msecs_to_jiffies(IDLE_MS);
            let before = now();
            state.writeback_idle = true;
            let _ = resource
                .writeback
                .wait_interruptible_timeout(&mut state, idle);
            state.writeback_idle = false;
            if now().wrapping_sub(before) >= idle {
                drop(state);
                resource.unstock(SLOTS_RESERVED);
                state = resource.state.lock();
            }
            continue;
        }
        let half = resource.slot_bytes() / 2;
        let urgent = state.starved
            || matches!(state.mode, Mode::Draining(_))
            || dirty >= DIRTY_URGENT.min(half);
        let age = now().wrapping_sub(*since.get_or_insert(now()));
        let left = msecs_to_jiffies(AGE_MS).saturating_sub(age);
        if urgent || left == 0 {
            state.starved = false;
            return true;
        }
        let _ = resource
            .writeback
            .wait_interruptible_timeout(&mut state, left);
    }
}

fn freeze(resource: &Resource) -> Option<u64> {
    resource.map.lock().map.freeze()
}

/// Returns when the log is durable up to `newest`, or broken; false if the round cannot go on.
fn wait_for_log(resource: &Resource, newest: u64) -> bool {
    let mut state = resource.state.lock();
    state.sync_to = state.sync_to.max(newest);
    resource.syncer.notify_one();
    loop {
        if state.exit || state.mode == Mode::Failed {
            return false;
        }
        if state.broken || state.stream.durable >= newest {
            return true;
        }
        // The logger may write what the syncer waits for: look again now and then.
        let _ = resource
            .writeback
            .wait_interruptible_timeout(&mut state, msecs_to_jiffies(20));
        resource.syncer.notify_one();
    }
}

type Failed = (u32, Error, u64);

/// Writes the pages of the round; returns their bytes.
fn write_frozen(resource: &Resource) -> Result<u64, Failed> {
    let mut group = Group {
        left: AtomicU32::new(1),
        status: AtomicU8::new(0),
        done: bindings::completion::default(),
    };
    // From here on only by this pointer: the ends of the writes use it too.
    let group: *mut Group = &mut group;
    // SAFETY: The queue stays where it is until this function ends; name and key are static.
    unsafe {
        let name = c_str!("mars::written").as_char_ptr();
        bindings::__init_swait_queue_head(&mut (*group).done.wait, name, DONE_KEY.as_ptr());
    }
    let mut bytes = 0;
    let mut open: *mut bindings::bio = null_mut();
    // Where the open bio ends on the disk, and how many pages and bios there are.
    let (mut end, mut pages, mut bios) = (0, 0, 0);
    let mut plug = bindings::blk_plug::default();
    // SAFETY: The plug lives until it is finished below, in this function.
    unsafe { bindings::blk_start_plug(&mut plug) };
    let mut index = 0;
    let mut result = Ok(());
    while let Some(frozen) = next_frozen(resource, index) {
        index += 1;
        for (at, len) in runs_of(frozen.mask) {
            let pos = frozen.page * PAGE + u64::from(at);
            if open.is_null() || pos != end || pages == BIO_PAGES {
                // SAFETY: `open` is null or was made by `new_bio` for this group.
                unsafe { submit(open, group) };
                if bios == GROUP {
                    // SAFETY: The group lives in this function.
                    result = unsafe { wait(group) };
                    bios = 0;
                }
                open = new_bio(resource, pos, group);
                (pages, bios) = (0, bios + 1);
            }
            // SAFETY: The bio has room for its pages; the part lies in the page of a frozen slot, which stays as it is
            // until it is thawed.
            unsafe { mars_bio_add(open, resource.slots.at(frozen.slot, at), len) };
            pages += 1;
            end = pos + u64::from(len);
            bytes += u64::from(len);
        }
        if result.is_err() {
            break;
        }
    }
    // SAFETY: As above.
    unsafe {
        submit(open, group);
        bindings::blk_finish_plug(&mut plug);
        let last = wait(group);
        result = result.and(last);
    }
    result
        .map(|()| bytes)
        .map_err(|e| (operation::DISK_WRITE, e, end))
}

fn next_frozen(resource: &Resource, index: usize) -> Option<crate::map::Frozen> {
    resource.map.lock().map.frozen().get(index).copied()
}

fn new_bio(resource: &Resource, pos: u64, group: *mut Group) -> *mut bindings::bio {
    // SAFETY: The disk is open; with direct reclaim allowed a bio is always got. It is ours until it is submitted.
    unsafe {
        let bio = bindings::bio_alloc_bioset(
            resource.disk.bdev(),
            BIO_PAGES as _,
            bindings::req_op_REQ_OP_WRITE,
            GFP_NOIO,
            resource.pools.writes.as_ptr(),
        );
        (*bio).bi_iter.bi_sector = pos >> bindings::SECTOR_SHIFT;
        (*bio).bi_private = group.cast();
        (*bio).bi_end_io = Some(written);
        bio
    }
}

/// # Safety
///
/// `bio` is null, or from [`new_bio`] with this group, which lives until it was waited for.
unsafe fn submit(bio: *mut bindings::bio, group: *mut Group) {
    if bio.is_null() {
        return;
    }
    // SAFETY: By the contract of this function.
    unsafe {
        (*group).left.fetch_add(1, Ordering::AcqRel);
        bindings::submit_bio(bio);
    }
}

/// Waits for all writes of the group; it can be used again then.
///
/// # Safety
///
/// `group` is valid.
unsafe fn wait(group: *mut Group) -> Result {
    // SAFETY: By the contract of this function. Shared references only to the atomic fields: the completion is changed
    // by C code.
    unsafe {
        if (*group).left.fetch_sub(1, Ordering::AcqRel) != 1 {
            bindings::wait_for_completion(core::ptr::addr_of_mut!((*group).done));
        }
        (*group).left.store(1, Ordering::Release);
        match (*group).status.load(Ordering::Acquire) {
            0 => Ok(()),
            status => Err(Error::from_errno(bindings::blk_status_to_errno(status))),
        }
    }
}

/// # Safety
///
/// `bio` is one of a group that is being waited for. Any context.
unsafe extern "C" fn written(bio: *mut bindings::bio) {
    // SAFETY: The bio is valid until it is put; its group lives until all its bios were counted off.
    unsafe {
        let group: *mut Group = (*bio).bi_private.cast();
        let status = (*bio).bi_status;
        bindings::bio_put(bio);
        if status != 0 {
            (*group).status.store(status, Ordering::Release);
        }
        if (*group).left.fetch_sub(1, Ordering::AcqRel) == 1 {
            bindings::complete(core::ptr::addr_of_mut!((*group).done));
        }
    }
}

/// Ends the round: its pages are on stable storage.
fn thaw(resource: &Resource, bytes: u64) {
    {
        let mut map = resource.map.lock();
        map.map.thaw();
        resource.count_slots(&map);
        let (at, stamp) = map.map.oldest().unwrap_or((map.staged, map.stamp));
        let mut state = resource.state.lock();
        state.stream.set_written_back(at, stamp);
        state.written_back_bytes += bytes;
        resource.touch(&mut state);
    }
    resource.logger.notify_all();
}
