// SPDX-License-Identifier: GPL-2.0

//! Asynchronous replication of block devices: the data path of a primary.
//!
//! A *resource* is a disk that is opened exclusively, a block device on top of it, and a log. A write to the device is
//! copied into memory, appended to the log, acknowledged, and written to the disk later. What marsd may ask for stands
//! in `README.md`; this module carries it out and decides nothing by itself, except what to do when the log or the
//! disk fails.
//!
//! # How to read it
//!
//! * Without the kernel, and tested in user space (`core/`): [`map`] and [`pages`] (which sectors are newer than on the
//!   disk), [`stream`] (positions), [`batch`] (one write to the log), `log_format` (records), [`abi`] (control structures).
//! * [`resource`]: the state of one resource and its locks; start there. Three threads work on it:
//!   [`logger`] (takes writes, appends them to the log, acknowledges), [`syncer`] (flushes the log), [`writeback`]
//!   (writes dirty pages to the disk). [`submit`] is where the block layer comes in, in the thread of the caller.
//! * [`verbs`]: what marsd asks for. [`control`]: the character device. [`sysctl`]: `/proc/sys/mars`.
//! * Wrappers around C: [`bio`], [`disk`], [`log_file`], [`thread`], [`slots`].
//!
//! # Order of a write
//!
//! `submit` puts the bio into the queue of the resource. The logger copies it into slots of the map (from then on
//! reads see it), appends its records to the log file, and ends the bio; FLUSH and FUA wait for the syncer. The
//! write-back freezes the oldest dirty pages, waits until the log is durable up to them, writes them in disk order,
//! flushes the disk, and only then moves the written-back position.

// `pin_init!` of a structure with many fields.
#![recursion_limit = "256"]
// Structures of the kernel that are empty in some configurations: C and Rust agree on them.
#![allow(improper_ctypes)]

use kernel::prelude::*;

// Shared with user space, which uses more of it.
#[allow(dead_code, unreachable_pub)]
#[path = "../abi.rs"]
mod abi;
#[allow(dead_code, unreachable_pub)]
#[path = "../core/src/batch.rs"]
mod batch;
#[allow(dead_code, unreachable_pub)]
#[path = "../log_format.rs"]
mod log_format;
#[allow(dead_code, unreachable_pub)]
#[path = "../core/src/map.rs"]
mod map;
#[allow(dead_code, unreachable_pub)]
#[path = "../core/src/pages.rs"]
mod pages;
#[allow(dead_code, unreachable_pub)]
#[path = "../core/src/stream.rs"]
mod stream;

mod bio;
mod changes;
mod control;
mod device;
mod disk;
mod log_file;
mod logger;
mod resource;
mod slots;
mod submit;
mod syncer;
mod sysctl;
mod thread;
mod verbs;
mod writeback;

module! {
    type: Mars,
    name: "mars",
    author: "The MARS authors",
    description: "MARS: asynchronous replication of block devices",
    license: "GPL v2",
}

/// Everything that exists while the module is loaded; taken down in this order.
struct Mars {
    _control: control::Registration,
    _sysctl: sysctl::Table,
}

impl kernel::Module for Mars {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let changes = changes::Changes::new()?;
        let sysctl = sysctl::Table::register(changes.clone())?;
        let control = control::Registration::new(module, changes)?;
        pr_info!("loaded, interface {}\n", abi::ABI_VERSION);
        Ok(Self {
            _control: control,
            _sysctl: sysctl,
        })
    }
}
