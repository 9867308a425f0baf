//! The parts of the kernel module that need no kernel: the same source files are compiled into `mars.ko`.
//!
//! Core only, no allocation: memory is given by the caller. Only `client`, the other side of the interface, is for
//! user space alone.
#![no_std]
#![deny(unsafe_code)]
#![allow(clippy::cast_possible_truncation)] // shared with the kernel: casts are commented where they are

#[path = "../../abi.rs"]
pub mod abi;
#[cfg(test)]
mod abi_tests;
pub mod batch;
#[cfg(feature = "client")]
#[allow(unsafe_code)]
pub mod client;
#[allow(clippy::cast_possible_wrap)]
#[path = "../../log_format.rs"]
pub mod log_format;
pub mod map;
pub mod pages;
pub mod stream;
