//! Pure core of MARS: what the tree means and what should be done about it, without I/O and without a clock.
//!
//! Everything here is a function of its arguments: the grammar of links ([`link`]), the tree as a value
//! ([`tree`]), the merge of two trees ([`merge`]), positions in the log ([`position`]), the version chain
//! ([`version`]), the parameters ([`param`]), the control messages of the shims ([`control`]) and the planners ([`plan`]).
//! Section numbers cite `symlink-spec.md`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod control;
pub mod gap;
pub mod limit;
pub mod link;
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // shared with the kernel: casts are commented there
#[path = "../../../shim-kmod/log_format.rs"]
pub mod log_format;
#[cfg(test)]
mod log_tests;
pub mod merge;
pub mod name;
pub mod param;
pub mod plan;
pub mod position;
pub mod resource;
pub mod stamp;
pub mod status;
pub mod tree;
pub mod unlogged;
pub mod verify;
pub mod version;

pub use link::{ActualKey, LinkPath, Switch};
pub use name::{HostName, ResourceName};
pub use param::Param;
pub use position::{LogName, ReplayPos};
pub use resource::ResourceView;
pub use stamp::{Lamport, Stamp};
pub use tree::{Link, Tree};
pub use version::VersionValue;
