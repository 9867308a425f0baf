// SPDX-License-Identifier: GPL-2.0

//! The memory behind the slots of the dirty map: one page each, allocated when it is needed.

use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::bindings;
use kernel::prelude::*;

use crate::bio::GFP_NOIO;
use crate::map::Slot;

/// Bytes of a slot.
pub(crate) const SLOT_SIZE: usize = 4096;

/// The pages.
///
/// # Invariants
///
/// An element is null or a page of the page allocator that belongs to its slot alone.
pub(crate) struct SlotMemory(KVVec<AtomicPtr<u8>>);

impl SlotMemory {
    /// `count` slots without memory.
    pub(crate) fn new(count: usize) -> Result<Self> {
        let mut pages = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            pages.push(AtomicPtr::new(core::ptr::null_mut()), GFP_KERNEL)?;
        }
        Ok(Self(pages))
    }

    /// Number of slots.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Gives a page to a slot that has none; false if there is no memory now.
    pub(crate) fn fill(&self, slot: Slot) -> bool {
        let gentle = (1 << bindings::___GFP_NOWARN_BIT) | (1 << bindings::___GFP_NORETRY_BIT);
        // SAFETY: Any flags and order 0 are allowed.
        let page = unsafe { bindings::get_free_pages_noprof(GFP_NOIO | gentle, 0) } as *mut u8;
        if page.is_null() {
            return false;
        }
        self.0[slot as usize].store(page, Ordering::Release);
        true
    }

    /// Takes the page of an unused slot away.
    pub(crate) fn empty(&self, slot: Slot) {
        let page = self.0[slot as usize].swap(core::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: A page of ours by the type's invariant, or 0, which is ignored; nobody uses an unused slot.
        unsafe { bindings::free_pages(page as _, 0) };
    }

    /// Byte `at` of a slot that has a page.
    pub(crate) fn at(&self, slot: Slot, at: u32) -> *mut u8 {
        self.0[slot as usize]
            .load(Ordering::Acquire)
            .wrapping_add(at as usize)
    }
}

impl Drop for SlotMemory {
    fn drop(&mut self) {
        for slot in 0..self.0.len() {
            self.empty(slot as Slot);
        }
    }
}
