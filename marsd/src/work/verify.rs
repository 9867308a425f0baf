//! Compares the local disk with that of a peer while both are in use: passes over the disk, and what is left to do.
//!
//! A pass holds the disk (no replay runs), compares a part of it, lets the logs explain what they can, and gives the
//! disk back. Blocks that differed and were being written are looked at again when replay has gone on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mars_core::ReplayPos;
use mars_core::verify::{BLOCK_BYTES, ByteRange, VerifyOutcome};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::disk::DiskError;
use super::frame::FrameError;
use super::sync_proto::{WINDOW, Window};
use super::touched::LogPart;
use super::verify_pass::{Limits, pass};
use super::{Cancel, as_u64};

/// A pass takes not much longer than this, because replay waits for it.
const PASS_TIME: Duration = Duration::from_secs(20);
/// Data of the peer that is kept for repair in one pass, in blocks.
const REPAIR_BLOCKS: usize = 16 * 1024;
/// Numbers of differing blocks that are kept in one pass.
const CHECK_BLOCKS: usize = 256 * 1024;
/// How often a block is looked at that is being written, before it is left unchecked.
const TRIES: u8 = 5;
/// How many passes in a row may fail because of the connection.
const FAILURES: u32 = 5;
/// Ranges that are kept for the answer.
const RANGES: usize = 1000;

/// What to compare.
#[derive(Debug, Clone)]
pub struct VerifyJob {
    /// Our data disk; opened exclusively during a pass.
    pub disk_path: PathBuf,
    /// Size of the resource in bytes.
    pub size_bytes: u64,
    /// Whether differences are overwritten with the data of the peer.
    pub repair: bool,
    /// A source that is silent for so long is given up.
    pub silence: Duration,
    /// Stops it.
    pub cancel: Cancel,
}

/// The disk, to be compared.
#[derive(Debug)]
pub struct Grant<S> {
    /// A stream of sync to the peer.
    pub stream: S,
    /// The peer, for messages.
    pub peer: String,
    /// W: both disks hold everything up to here.
    pub both_have: ReplayPos,
}

/// What a comparison needs from its surroundings. Dropping one of the futures gives up what was asked for.
pub trait VerifyHost: Send {
    /// The stream to the peer.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Stops replay, then opens a stream to the peer.
    fn hold(&mut self) -> impl Future<Output = Result<Grant<Self::Stream>, VerifyError>> + Send;

    /// The logs that hold all records behind `from`, as soon as they are here up to `to`.
    fn logs(
        &mut self,
        from: &ReplayPos,
        to: &ReplayPos,
    ) -> impl Future<Output = Result<Vec<LogPart>, VerifyError>> + Send;

    /// Gives the disk back, and lets replay go on to `to` if it gets there soon.
    fn release(&mut self, to: Option<ReplayPos>) -> impl Future<Output = ()> + Send;
}

/// Why a comparison failed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Our disk.
    #[error("verify: {0}")]
    Disk(#[from] DiskError),
    /// The connection, or the peer at the moment: worth another try.
    #[error("verify with {peer}: {why}")]
    Peer {
        /// The peer.
        peer: String,
        /// What happened.
        why: String,
    },
    /// The logs do not tell which differences are real.
    #[error("verify: {0}")]
    Logs(String),
    /// It was stopped.
    #[error("stopped")]
    Stopped,
}

impl VerifyError {
    pub(super) fn stream(peer: &str, cause: &FrameError) -> Self {
        let (peer, why) = (peer.to_owned(), cause.to_string());
        Self::Peer { peer, why }
    }
}

/// Compares the whole disk; `progress` follows with the number of bytes compared.
///
/// # Errors
/// The local disk failed, the peer stayed away, the logs are missing or damaged, or the job was cancelled. What was
/// repaired until then stays so.
pub async fn verify(
    host: &mut impl VerifyHost,
    job: &VerifyJob,
    progress: &watch::Sender<u64>,
) -> Result<VerifyOutcome, VerifyError> {
    let mut todo = Todo::new(job.size_bytes);
    let mut failures = 0;
    let limits = Limits {
        time: PASS_TIME,
        blocks: if job.repair {
            REPAIR_BLOCKS
        } else {
            CHECK_BLOCKS
        },
    };
    while !todo.is_done() {
        if job.cancel.is_cancelled() {
            return Err(VerifyError::Stopped);
        }
        let done = pass(host, job, &todo, limits, progress).await;
        let end = done.as_ref().ok().and_then(|found| found.end.clone());
        tokio::select! {
            () = host.release(end) => {}
            () = job.cancel.cancelled() => return Err(VerifyError::Stopped),
        }
        match done {
            Ok(found) => {
                failures = 0;
                todo.note(&found);
            }
            Err(error @ VerifyError::Peer { .. }) if failures < FAILURES => {
                tracing::warn!("{error}; this part is compared again");
                failures += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(todo.outcome)
}

/// What a pass has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The windows that were compared.
    pub(super) windows: Vec<Window>,
    /// Blocks that really differ.
    pub(super) real: Vec<u64>,
    /// Whether those were overwritten.
    pub(super) repaired: bool,
    /// Blocks that differed and were being written.
    pub(super) hot: Vec<u64>,
    /// End of the logs that explain the differences.
    pub(super) end: Option<ReplayPos>,
}

/// What is still to be compared, and what was found until now.
#[derive(Debug)]
pub(super) struct Todo {
    size: u64,
    /// Windows from here on have not been looked at.
    next: u64,
    /// Blocks to be looked at again, and how often they have been.
    hot: BTreeMap<u64, u8>,
    outcome: VerifyOutcome,
}

impl Todo {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            next: 0,
            hot: BTreeMap::new(),
            outcome: VerifyOutcome::default(),
        }
    }

    fn is_done(&self) -> bool {
        self.next >= self.size && self.hot.is_empty()
    }

    /// The window to be compared next, behind `after` of this pass.
    pub(super) fn window(&self, after: Option<Window>) -> Option<Window> {
        let at = after.map_or(0, |w| w.end());
        if self.next < self.size {
            return Window::at(self.next.max(at), self.size);
        }
        let (block, _) = self.hot.range(at / BLOCK_BYTES..).next()?;
        let pos = block * BLOCK_BYTES;
        Window::at(pos - pos % as_u64(WINDOW), self.size)
    }

    /// How many bytes have been looked at when `window` has been.
    pub(super) fn done(&self, window: Window) -> u64 {
        if self.next < self.size {
            window.end()
        } else {
            self.size
        }
    }

    /// Whether this block is of interest in this pass.
    pub(super) fn wants(&self, block: u64) -> bool {
        self.next < self.size || self.hot.contains_key(&block)
    }

    fn note(&mut self, found: &Found) {
        let mut tried = BTreeMap::new();
        if self.next < self.size {
            self.next = found.windows.last().map_or(self.next, Window::end);
        } else {
            for window in &found.windows {
                let behind = window.end().div_ceil(BLOCK_BYTES);
                let mut rest = self.hot.split_off(&(window.pos / BLOCK_BYTES));
                let mut later = rest.split_off(&behind);
                tried.append(&mut rest);
                self.hot.append(&mut later);
            }
        }
        for block in &found.hot {
            let tries = tried.get(block).copied().unwrap_or(0) + 1;
            if tries < TRIES {
                self.hot.insert(*block, tries);
            } else {
                self.outcome.unchecked += 1;
            }
        }
        for block in &found.real {
            self.add_range(*block);
        }
        let real = as_u64(found.real.len());
        self.outcome.differing += real;
        self.outcome.repaired += if found.repaired { real } else { 0 };
    }

    /// Notes a differing block. Those found in later rounds may lie before others.
    fn add_range(&mut self, block: u64) {
        let start = block * BLOCK_BYTES;
        let len = BLOCK_BYTES.min(self.size.saturating_sub(start));
        let ranges = &mut self.outcome.ranges;
        let at = ranges.partition_point(|r| r.start < start);
        let before = at.checked_sub(1).and_then(|n| ranges.get_mut(n));
        if let Some(before) = before.filter(|r| r.start + r.len == start) {
            before.len += len;
            return;
        }
        ranges.insert(at, ByteRange { start, len });
        if ranges.len() > RANGES {
            ranges.pop();
            self.outcome.more = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(todo: &Todo) -> Vec<Window> {
        std::iter::successors(todo.window(None), |w| todo.window(Some(*w))).collect()
    }

    #[test]
    fn every_window_comes_once_and_then_only_those_with_blocks_being_written() {
        let size = 5 * as_u64(WINDOW) + 512;
        let mut todo = Todo::new(size);
        let all = windows(&todo);
        assert_eq!((all.len(), all[5].len), (6, 512));
        let found = |windows: &[Window], real: &[u64], hot: &[u64]| Found {
            windows: windows.to_vec(),
            real: real.to_vec(),
            hot: hot.to_vec(),
            ..Found::default()
        };
        todo.note(&found(&all[..2], &[3, 4, 9], &[0, 300]));
        assert_eq!(windows(&todo), all[2..]);
        todo.note(&found(&all[2..], &[1280], &[]));
        assert_eq!(windows(&todo), all[..2]);
        assert!(todo.wants(300) && !todo.wants(301) && !todo.is_done());
        // Only the first of them was reached; its block is equal now.
        todo.note(&found(&all[..1], &[], &[]));
        assert_eq!(windows(&todo), all[1..2]);
        for _ in 2..TRIES {
            todo.note(&found(&all[1..2], &[], &[300]));
            assert!(!todo.is_done());
        }
        todo.note(&found(&all[1..2], &[], &[300]));
        assert!(todo.is_done());
        assert_eq!((todo.outcome.differing, todo.outcome.unchecked), (4, 1));
        let ranges: Vec<_> = todo
            .outcome
            .ranges
            .iter()
            .map(|r| (r.start, r.len))
            .collect();
        assert_eq!(ranges, [(12288, 8192), (36864, 4096), (1280 * 4096, 512)]);
    }
}
