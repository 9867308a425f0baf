// SPDX-License-Identifier: GPL-2.0

//! Kernel threads of a resource.

use kernel::ffi::{c_int, c_void};

use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::{bindings, c_str};

use crate::resource::Resource;

struct Start {
    resource: Arc<Resource>,
    body: fn(&Resource),
}

/// A running thread; it must be told to end (`State::exit`) before this is dropped.
///
/// # Invariants
///
/// `0` is a kernel thread on which we hold a reference.
pub(crate) struct Thread(*mut bindings::task_struct);

// SAFETY: A thread may be stopped by any thread.
unsafe impl Send for Thread {}

impl Thread {
    /// Runs `body` in a thread called `name`.
    pub(crate) fn spawn(
        name: &'static CStr,
        resource: Arc<Resource>,
        body: fn(&Resource),
    ) -> Result<Self> {
        let start = KBox::new(Start { resource, body }, GFP_KERNEL)?;
        let start = KBox::into_raw(start);
        // SAFETY: The format takes one string, which is static; -1 is no preferred node.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(main),
                start.cast(),
                -1,
                c_str!("%s").as_char_ptr(),
                name.as_char_ptr(),
            )
        });
        match task {
            Ok(task) => {
                // SAFETY: `task` was created just now and does not run yet, so it exists.
                unsafe {
                    bindings::get_task_struct(task);
                    bindings::wake_up_process(task);
                }
                Ok(Self(task))
            }
            Err(e) => {
                // SAFETY: No thread was made, so it is still ours.
                drop(unsafe { KBox::from_raw(start) });
                Err(e)
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: We hold a reference on the thread by the type's invariant, also if it has ended already.
        unsafe {
            bindings::kthread_stop(self.0);
            bindings::put_task_struct(self.0);
        }
    }
}

/// # Safety
///
/// `data` is a [`Start`] that is given away to this thread.
unsafe extern "C" fn main(data: *mut c_void) -> c_int {
    // SAFETY: By the contract of this function.
    let start = unsafe { KBox::from_raw(data.cast::<Start>()) };
    // SAFETY: A thread may change its own flags. It must not wait for I/O to get memory (that I/O could be ours), and
    // must only be throttled for what it dirties itself (what others dirty may be waiting for us).
    unsafe {
        (*bindings::get_current()).flags |=
            bindings::PF_MEMALLOC_NOIO | bindings::PF_LOCAL_THROTTLE;
    }
    (start.body)(&start.resource);
    0
}
