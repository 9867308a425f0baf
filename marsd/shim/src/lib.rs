//! The user-space shim of MARS: serves `/dev/mars/R`, appends every write to the transaction log, and writes back
//! to the disk afterwards (`symlink-spec.md` sections 5 and 9).
//!
//! A FUSE file system of one file with a loop device on top makes the block device ([`fuse_mount`], [`loop_device`]).
//! One thread owns the data path ([`engine`]); the control side ([`server`], [`service`]) carries out what marsd asks
//! for. What is decided without I/O stands in [`map`], [`stage`], [`stream`] and [`fuse_proto`].

pub mod disk;
pub mod engine;
pub mod error;
pub mod fuse_mount;
pub mod fuse_proto;
pub mod log_file;
pub mod loop_device;
pub mod map;
pub mod memory;
pub mod process;
pub mod requests;
pub mod server;
pub mod service;
pub mod stage;
pub mod stage_area;
pub mod stream;
pub mod users;
