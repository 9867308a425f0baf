//! Workers: fetch, replay and sync, one per resource and kind, both sides of each.
//!
//! Workers know neither peers nor the tree: they are given paths, byte positions and a stream to the other side, and
//! report through channels and return values. What is to run is decided by the brain. Every worker takes a
//! [`Cancel`] token: cancel it and wait for the end of the worker, rather than dropping the future, because file
//! operations in progress cannot be taken back.

pub mod board;
pub mod check;
pub mod disk;
mod disk_queue;
pub mod extents;
pub mod fetch;
pub mod fetch_serve;
pub mod frame;
pub mod rate;
pub mod replay;
pub mod sync;
pub mod sync_proto;
pub mod sync_ranges;
pub mod sync_serve;
pub mod throttle;
pub mod touched;
pub mod verify;
mod verify_pass;

#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
mod replay_tests;
#[cfg(test)]
mod sync_tests;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod verify_tests;

pub use board::{LogBoard, LogState, Offer};
pub use check::{ScanEnd, check_record, prepare_fetch, scan_valid_end, truncate_log};
pub use fetch::{FetchEnd, FetchError, FetchJob, FetchProgress, fetch};
pub use fetch_serve::{ServeEnd, ServeError, serve_fetch};
pub use rate::{RateLimit, RateLimits, RateMeter};
pub use replay::{
    BATCH, ReplayControl, ReplayEnd, ReplayError, ReplayJob, ReplayReason, ReplayReport,
    ReplayUntil, replay,
};
pub use sync::{SyncEnd, SyncError, SyncJob, SyncProgress, sync};
pub use sync_serve::{SyncSource, serve_sync};
pub use throttle::{Throttled, Traffic};
pub use tokio_util::sync::CancellationToken as Cancel;
pub use touched::LogPart;
pub use verify::{Grant, VerifyError, VerifyHost, VerifyJob, verify};

use std::io;

/// Runs file operations where blocking is allowed; a panic there becomes an error here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(io::Error::other(format!("file operation aborted: {e}"))),
    }
}

/// A length in memory as a number of bytes in a file.
pub(crate) fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A number of bytes as a length in memory, at most `max`.
pub(crate) fn as_len(bytes: u64, max: usize) -> usize {
    usize::try_from(bytes).unwrap_or(max).min(max)
}
