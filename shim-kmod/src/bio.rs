// SPDX-License-Identifier: GPL-2.0

//! Requests: a bio of the application on its way through the module, lists of them, and the pools they come from.

use core::ptr::{null_mut, NonNull};

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;

use crate::resource::Resource;

/// Allocate without starting I/O: the I/O could be ours.
///
/// As `GFP_NOIO`: direct and background reclaim, neither I/O nor file systems.
pub(crate) const GFP_NOIO: bindings::gfp_t =
    (1 << bindings::___GFP_DIRECT_RECLAIM_BIT) | (1 << bindings::___GFP_KSWAPD_RECLAIM_BIT);

/// Operation of a bio, without its flags.
const OP_MASK: u32 = (1 << bindings::REQ_OP_BITS) - 1;
const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;
const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;

extern "C" {
    fn mars_bio_copy(
        bio: *mut bindings::bio,
        at: *mut bindings::bvec_iter,
        memory: *mut u8,
        len: u32,
        into_bio: bool,
    );
}

/// A bio that the module has to end.
///
/// # Invariants
///
/// Points to a bio that was submitted to one of our devices and has not been ended; nobody else ends it.
#[derive(Clone, Copy)]
pub(crate) struct Bio(pub(crate) *mut bindings::bio);

impl Bio {
    /// Its operation, one of `req_op`.
    pub(crate) fn op(self) -> u32 {
        // SAFETY: The bio is valid by the type's invariant.
        unsafe { (*self.0).bi_opf & OP_MASK }
    }

    /// Whether it is answered only when it, and all before it, is on stable storage.
    pub(crate) fn needs_flush(self) -> bool {
        // SAFETY: The bio is valid by the type's invariant.
        unsafe { (*self.0).bi_opf & (PREFLUSH | FUA) != 0 }
    }

    /// What is left of it: place on the device, length, position in its pages.
    pub(crate) fn iter(self) -> bindings::bvec_iter {
        // SAFETY: The bio is valid by the type's invariant.
        unsafe { (*self.0).bi_iter }
    }

    /// Length in bytes of what is left.
    pub(crate) fn len(self) -> u64 {
        u64::from(self.iter().bi_size)
    }

    /// Byte offset on the device of what is left.
    pub(crate) fn pos(self) -> u64 {
        self.iter().bi_sector << bindings::SECTOR_SHIFT
    }

    /// The device it was submitted to.
    pub(crate) fn device(self) -> *mut bindings::block_device {
        // SAFETY: The bio is valid by the type's invariant.
        unsafe { (*self.0).bi_bdev }
    }

    /// Ends it.
    pub(crate) fn end(self, result: Result) {
        let errno = result.map_or_else(|e| e.to_errno(), |()| 0);
        // SAFETY: The bio is valid and ours to end, by the type's invariant. `errno_to_blk_status` takes any number.
        unsafe {
            (*self.0).bi_status = bindings::errno_to_blk_status(errno);
            bindings::bio_endio(self.0);
        }
    }

    /// Copies `len` bytes from position `at` of its pages to `to`, and advances `at`.
    ///
    /// # Safety
    ///
    /// `at` was got from [`Self::iter`] and has at least `len` bytes left; `to` is valid for writes of `len` bytes.
    pub(crate) unsafe fn copy_out(self, at: &mut bindings::bvec_iter, to: *mut u8, len: u32) {
        // SAFETY: The bio is valid and has data by the caller's contract.
        unsafe { mars_bio_copy(self.0, at, to, len, false) }
    }

    /// Copies `len` bytes from `from` to the beginning of what is left, and advances it.
    ///
    /// # Safety
    ///
    /// At least `len` bytes are left; `from` is valid for reads of `len` bytes.
    pub(crate) unsafe fn copy_in(self, from: *mut u8, len: u32) {
        // SAFETY: The bio is valid and has data by the caller's contract.
        unsafe { mars_bio_copy(self.0, &mut (*self.0).bi_iter, from, len, true) }
    }
}

/// One request of the application.
pub(crate) struct Request {
    next: *mut Request,
    /// The bio to be ended.
    pub(crate) bio: Bio,
    /// The resource, which outlives all its requests.
    pub(crate) resource: *const Resource,
    /// When it came, for the statistics of the block layer.
    pub(crate) start: kernel::ffi::c_ulong,
    /// Length of the bio when it came.
    pub(crate) sectors: u32,
    /// Stream position from which on it may be answered.
    pub(crate) end: u64,
}

/// An owned request.
///
/// # Invariants
///
/// Points to an initialised request from the pool of its resource that is in no list.
pub(crate) struct Owned(NonNull<Request>);

impl Owned {
    /// Takes over what [`Self::into_raw`] gave away.
    ///
    /// # Safety
    ///
    /// `raw` came from [`Self::into_raw`], and nobody else uses it.
    pub(crate) unsafe fn from_raw(raw: *mut Request) -> Self {
        // SAFETY: Not null by the caller's contract.
        Self(unsafe { NonNull::new_unchecked(raw) })
    }

    /// Gives it away as pointer.
    pub(crate) fn into_raw(self) -> *mut Request {
        self.0.as_ptr()
    }
}

impl core::ops::Deref for Owned {
    type Target = Request;
    fn deref(&self) -> &Request {
        // SAFETY: Valid by the type's invariant.
        unsafe { self.0.as_ref() }
    }
}

impl core::ops::DerefMut for Owned {
    fn deref_mut(&mut self) -> &mut Request {
        // SAFETY: Valid and not shared by the type's invariant.
        unsafe { self.0.as_mut() }
    }
}

/// A queue of requests.
///
/// # Invariants
///
/// `head` to `tail` is a chain of requests that the list owns; both are null if it is empty.
pub(crate) struct List {
    head: *mut Request,
    tail: *mut Request,
}

// SAFETY: The list owns its requests, which are not bound to a thread.
unsafe impl Send for List {}

impl List {
    pub(crate) const fn new() -> Self {
        Self {
            head: null_mut(),
            tail: null_mut(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    pub(crate) fn push_back(&mut self, request: Owned) {
        let raw = request.into_raw();
        // SAFETY: `raw` is valid and owned by us; so is `tail` unless it is null.
        unsafe {
            (*raw).next = null_mut();
            if self.tail.is_null() {
                self.head = raw;
            } else {
                (*self.tail).next = raw;
            }
        }
        self.tail = raw;
    }

    pub(crate) fn pop_front(&mut self) -> Option<Owned> {
        if self.head.is_null() {
            return None;
        }
        let raw = self.head;
        // SAFETY: `head` is valid and owned by the list.
        self.head = unsafe { (*raw).next };
        if self.head.is_null() {
            self.tail = null_mut();
        }
        // SAFETY: It has just left the list, which owned it.
        Some(unsafe { Owned::from_raw(raw) })
    }

    /// The first one.
    pub(crate) fn front(&self) -> Option<&Request> {
        // SAFETY: `head` is valid unless it is null, and the list owns it.
        unsafe { self.head.as_ref() }
    }

    /// Puts all of `other` behind what is here.
    pub(crate) fn append(&mut self, other: &mut List) {
        while let Some(request) = other.pop_front() {
            self.push_back(request);
        }
    }

    /// Takes all.
    pub(crate) fn take(&mut self) -> List {
        core::mem::replace(self, List::new())
    }
}

/// Memory for requests that never runs out for good.
pub(crate) struct RequestPool(KBox<bindings::mempool_t>);

impl RequestPool {
    pub(crate) fn new(reserve: i32) -> Result<Self> {
        let mut pool = KBox::new(bindings::mempool_t::default(), GFP_KERNEL)?;
        // SAFETY: `pool` is zeroed memory that does not move, as it is boxed and never taken out; the pool data of
        // `mempool_kmalloc` is the size of an element.
        to_result(unsafe {
            bindings::mempool_init_noprof(
                &mut *pool,
                reserve,
                Some(bindings::mempool_kmalloc),
                Some(bindings::mempool_kfree),
                core::mem::size_of::<Request>() as *mut _,
            )
        })?;
        Ok(Self(pool))
    }

    /// Allocates; waits while there is no memory.
    pub(crate) fn get(&self, request: Request) -> Owned {
        let pool: *const bindings::mempool_t = &*self.0;
        // SAFETY: The pool is initialised, and has locks of its own. With direct reclaim allowed it never gives null.
        let raw = unsafe { bindings::mempool_alloc_noprof(pool.cast_mut(), GFP_NOIO) };
        let raw: *mut Request = raw.cast();
        // SAFETY: `raw` is memory for one request, aligned as kmalloc does.
        unsafe {
            raw.write(request);
            Owned::from_raw(raw)
        }
    }

    /// Frees.
    pub(crate) fn put(&self, request: Owned) {
        let pool: *const bindings::mempool_t = &*self.0;
        // SAFETY: The request came from this pool, as the type says.
        unsafe { bindings::mempool_free(request.into_raw().cast(), pool.cast_mut()) }
    }
}

impl Drop for RequestPool {
    fn drop(&mut self) {
        // SAFETY: Initialised in `new`; all requests are back, as they hold the resource up.
        unsafe { bindings::mempool_exit(&mut *self.0) }
    }
}

impl Request {
    pub(crate) fn new(bio: Bio, resource: *const Resource, start: kernel::ffi::c_ulong) -> Self {
        Self {
            next: null_mut(),
            bio,
            resource,
            start,
            sectors: (bio.len() >> bindings::SECTOR_SHIFT) as u32,
            end: 0,
        }
    }
}

/// Memory for bios that never runs out for good.
pub(crate) struct BioSet(KBox<bindings::bio_set>);

impl BioSet {
    pub(crate) fn new(reserve: u32, flags: u32) -> Result<Self> {
        let mut set = KBox::new(bindings::bio_set::default(), GFP_KERNEL)?;
        // SAFETY: `set` is zeroed memory that does not move, as it is boxed and never taken out.
        to_result(unsafe { bindings::bioset_init(&mut *set, reserve, 0, flags as i32) })?;
        Ok(Self(set))
    }

    /// For the functions of the block layer, which lock by themselves.
    pub(crate) fn as_ptr(&self) -> *mut bindings::bio_set {
        let set: *const bindings::bio_set = &*self.0;
        set.cast_mut()
    }
}

impl Drop for BioSet {
    fn drop(&mut self) {
        // SAFETY: Initialised in `new`; all bios are back, as they are ended before their resource goes.
        unsafe { bindings::bioset_exit(&mut *self.0) }
    }
}
