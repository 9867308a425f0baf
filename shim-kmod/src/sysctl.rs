// SPDX-License-Identifier: GPL-2.0

//! `/proc/sys/mars`: a table of texts that marsd reads and fills; the module only keeps them.

use kernel::ffi::{c_int, c_void};

use kernel::error::from_result;
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};
use kernel::{bindings, c_str, new_mutex};

use crate::changes::Changes;

/// Most bytes of a number, or of a word in its place.
const NUMBER_MAX: c_int = 64;
/// Most bytes of messages.
const MESSAGES_MAX: c_int = 16384;

/// Names, and how long the text may be.
const TEXTS: [(&CStr, c_int); 13] = [
    (c_str!("percent_mem_limit_kb"), NUMBER_MAX),
    (c_str!("mem_used_kb"), NUMBER_MAX),
    (c_str!("logrot_auto_gb"), NUMBER_MAX),
    (c_str!("logdel_auto_gb"), NUMBER_MAX),
    (c_str!("free_space_mb"), NUMBER_MAX),
    (c_str!("loadavg_limit"), NUMBER_MAX),
    (c_str!("network_io_timeout"), NUMBER_MAX),
    (c_str!("network_traffic_limit_kb"), NUMBER_MAX),
    (c_str!("network_traffic_rate_kb"), NUMBER_MAX),
    (c_str!("server_io_limit_mb"), NUMBER_MAX),
    (c_str!("server_io_rate_mb"), NUMBER_MAX),
    (c_str!("warnings"), MESSAGES_MAX),
    (c_str!("errors"), MESSAGES_MAX),
];

type Text = Mutex<KVec<u8>>;

/// The registered table.
///
/// # Invariants
///
/// The entries point into `texts` and `changes`, which stay where they are until the table is gone.
pub(crate) struct Table {
    header: *mut bindings::ctl_table_header,
    _entries: KVec<bindings::ctl_table>,
    _texts: KVec<Pin<KBox<Text>>>,
    _changes: Arc<Changes>,
}

// SAFETY: The header is only used to take the table down.
unsafe impl Send for Table {}
// SAFETY: As above.
unsafe impl Sync for Table {}

impl Table {
    pub(crate) fn register(changes: Arc<Changes>) -> Result<Self> {
        let mut entries = KVec::with_capacity(TEXTS.len() + 1, GFP_KERNEL)?;
        let mut texts = KVec::with_capacity(TEXTS.len(), GFP_KERNEL)?;
        for (name, max) in &TEXTS {
            let text = KBox::pin_init(new_mutex!(KVec::new(), "mars::text"), GFP_KERNEL)?;
            let at: *const Text = &*text;
            let mut entry = entry(name, 0o600, at.cast_mut().cast(), Some(handle_text));
            entry.maxlen = *max;
            entries.push(entry, GFP_KERNEL)?;
            texts.push(text, GFP_KERNEL)?;
        }
        let at: *const Changes = &*changes;
        let name = c_str!("trigger");
        let trigger = entry(name, 0o200, at.cast_mut().cast(), Some(handle_trigger));
        entries.push(trigger, GFP_KERNEL)?;
        // SAFETY: The entries stay where they are while the table is registered, and so does what they point to.
        let header = unsafe {
            bindings::register_sysctl_sz(
                c_str!("mars").as_char_ptr(),
                entries.as_mut_ptr(),
                entries.len(),
            )
        };
        if header.is_null() {
            return Err(ENOMEM);
        }
        Ok(Self {
            header,
            _entries: entries,
            _texts: texts,
            _changes: changes,
        })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: Registered by the type's invariant. Returns when nobody is in a handler any more.
        unsafe { bindings::unregister_sysctl_table(self.header) }
    }
}

type Handler = unsafe extern "C" fn(
    *const bindings::ctl_table,
    c_int,
    *mut c_void,
    *mut usize,
    *mut bindings::loff_t,
) -> c_int;

fn entry(
    name: &'static CStr,
    mode: u16,
    data: *mut c_void,
    handler: Option<Handler>,
) -> bindings::ctl_table {
    bindings::ctl_table {
        procname: name.as_char_ptr(),
        data,
        mode,
        proc_handler: handler,
        ..Default::default()
    }
}

/// # Safety
///
/// Called by the kernel with an entry of a text, a kernel buffer of `*len` bytes, and a position.
unsafe extern "C" fn handle_text(
    table: *const bindings::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut bindings::loff_t,
) -> c_int {
    // SAFETY: By the contract of this function; the text lives as long as the table.
    let (text, max, buffer, len, pos) = unsafe {
        let text = &*(*table).data.cast::<Text>();
        let max = (*table).maxlen as usize;
        let buffer = core::slice::from_raw_parts_mut(buffer.cast::<u8>(), *len);
        (text, max, buffer, &mut *len, &mut *pos)
    };
    from_result(|| {
        let at = usize::try_from(*pos).map_err(|_| EINVAL)?;
        let mut text = text.lock();
        if write != 0 {
            let begin = if at == 0 { 0 } else { text.len() };
            if at != begin || at + buffer.len() > max {
                return Err(EFBIG);
            }
            if at == 0 {
                *text = KVec::new();
            }
            text.extend_from_slice(buffer, GFP_KERNEL)?;
        } else {
            let rest = text.get(at..).unwrap_or(&[]);
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            *len = count;
        }
        *pos += *len as bindings::loff_t;
        Ok(0)
    })
}

/// # Safety
///
/// Called by the kernel with the entry of the trigger, a kernel buffer of `*len` bytes, and a position.
unsafe extern "C" fn handle_trigger(
    table: *const bindings::ctl_table,
    write: c_int,
    _buffer: *mut c_void,
    len: *mut usize,
    pos: *mut bindings::loff_t,
) -> c_int {
    // SAFETY: By the contract of this function; the changes live as long as the table.
    let (changes, len, pos) = unsafe {
        let changes = &*(*table).data.cast::<Changes>();
        (changes, &mut *len, &mut *pos)
    };
    if write != 0 {
        changes.count(None);
        *pos += *len as bindings::loff_t;
    } else {
        *len = 0;
    }
    0
}
