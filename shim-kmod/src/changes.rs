// SPDX-License-Identifier: GPL-2.0

//! The count of changes over all resources, and who waits for the next one.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::sync::{Arc, CondVar, SpinLock};
use kernel::types::Opaque;
use kernel::{bindings, c_str, new_condvar, new_spinlock};

use crate::device::LockKey;

static POLL_KEY: LockKey = LockKey::new();

/// The count; see the module.
#[pin_data]
pub(crate) struct Changes {
    count: AtomicU64,
    #[pin]
    lock: SpinLock<()>,
    #[pin]
    readers: CondVar,
    #[pin]
    pollers: Opaque<bindings::wait_queue_head>,
}

// SAFETY: The wait queue has a lock of its own.
unsafe impl Send for Changes {}
// SAFETY: As above.
unsafe impl Sync for Changes {}

impl Changes {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                count: AtomicU64::new(0),
                lock <- new_spinlock!((), "mars::changes"),
                readers <- new_condvar!("mars::changes"),
                // SAFETY: The slot is valid while the closure runs; name and key are static.
                pollers <- Opaque::ffi_init(|slot| unsafe {
                    let name = c_str!("mars::pollers").as_char_ptr();
                    bindings::__init_waitqueue_head(slot, name, POLL_KEY.as_ptr());
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Number of the last change.
    pub(crate) fn last(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Counts a change and stores its number in `at` before anybody is woken.
    pub(crate) fn count(&self, at: Option<&AtomicU64>) {
        {
            let _guard = self.lock.lock();
            let number = self.count.load(Ordering::Relaxed) + 1;
            if let Some(at) = at {
                at.store(number, Ordering::Release);
            }
            self.count.store(number, Ordering::Release);
            self.readers.notify_all();
        }
        // SAFETY: The queue is initialised. 3 is TASK_NORMAL, 0 is everybody.
        unsafe {
            bindings::__wake_up(
                self.pollers.get(),
                bindings::TASK_NORMAL,
                0,
                core::ptr::null_mut(),
            );
        }
    }

    /// Waits until the last change is not `seen`, and returns it; EINTR on a signal.
    pub(crate) fn wait(&self, seen: u64) -> Result<u64> {
        let mut guard = self.lock.lock();
        loop {
            let last = self.last();
            if last != seen {
                return Ok(last);
            }
            if self.readers.wait_interruptible(&mut guard) {
                return Err(EINTR);
            }
        }
    }

    /// The queue for `poll_wait`.
    pub(crate) fn pollers(&self) -> *mut bindings::wait_queue_head {
        self.pollers.get()
    }
}
