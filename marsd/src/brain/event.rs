//! Everything that can happen to the brain.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use mars_core::control::{Refusal, Resume, ShimStatus};
use mars_core::log_format::LogTime;
use mars_core::plan::LogOffer;
use mars_core::tree::Problem;
use mars_core::verify::VerifyOutcome;
use mars_core::{HostName, LogName, ReplayPos, ResourceName, Tree};
use mars_tree::control_socket::ControlSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::net::{Announce, PeerConn};
use crate::work::{LogPart, Traffic};

/// Why a fetch ended before its log was complete.
#[derive(Debug)]
pub struct FetchFailed {
    /// In words.
    pub why: String,
    /// The peer does not give the log, or no more of it.
    pub is_refused: bool,
}

/// One event; the brain changes its state in `apply` and plans afterwards.
#[derive(Debug)]
pub enum Event {
    /// These paths (relative to the root of the tree) changed.
    Changed(Vec<String>),
    /// Changes were missed: read the whole tree.
    Lost,
    /// Time passed.
    Tick,
    /// End the daemon; at once, if it comes again.
    Stop,
    /// A peer mirrors the tree since that time; and whether it has ended.
    Mirroring(HostName, Instant, bool),
    /// A connection to a peer stands.
    PeerUp(HostName, PeerConn),
    /// It broke, or could not be made: why.
    PeerDown(HostName, String),
    /// A peer told which logs of a resource it has.
    Offers(HostName, ResourceName, Vec<LogOffer>),
    /// Further ones.
    MoreOffers(HostName, ResourceName, Vec<LogOffer>),
    /// A part of a peer's tree was mirrored.
    Staged(HostName, Tree, Vec<Problem>),
    /// A peer wants to be told of changes.
    Subscribe(HostName, mpsc::Sender<Announce>),
    /// A source of a sync needs the position from which what it has read is consistent.
    EndPosition(ResourceName, oneshot::Sender<Result<ReplayPos, String>>),
    /// A logfile here is damaged from this byte on, as a peer has noticed: what is wrong there.
    Spoilt(ResourceName, LogName, u64, String),
    /// Something of a shim; the number tells which of its successive connections speaks.
    Shim(ResourceName, u64, ShimEvent),
    /// Something of a worker; the number tells which run of it speaks.
    Work(ResourceName, u64, WorkEvent),
}

/// What comes from a shim.
#[derive(Debug)]
pub enum ShimEvent {
    /// It is connected and serves (or can serve) requests.
    Up(Arc<ControlSocket>, ShimStatus),
    /// Its state changed.
    Status(ShimStatus),
    /// Answer to a request.
    Reply(u64, Result<ShimStatus, Refusal>),
    /// Its device, to be kept for a successor.
    Hold(Resume, OwnedFd),
    /// It could not be started: why.
    Failed(String),
    /// Its connection ended.
    Gone,
}

/// What a comparison needs; who asked may be gone when the answer comes.
#[derive(Debug)]
pub enum VerifyAsk {
    /// The disk without replay, and the peer.
    Hold(oneshot::Sender<VerifyGrant>),
    /// The logs behind the first position, as soon as they are here up to the second.
    Logs(
        ReplayPos,
        ReplayPos,
        oneshot::Sender<Result<Vec<LogPart>, String>>,
    ),
    /// Replay may go on; answered when it has got to the position.
    Release(Option<ReplayPos>, oneshot::Sender<()>),
}

/// Leave to compare the disk.
#[derive(Debug)]
pub struct VerifyGrant {
    /// The peer.
    pub conn: PeerConn,
    /// Limits of the stream.
    pub traffic: Traffic,
    /// Both disks hold everything up to here.
    pub both_have: ReplayPos,
}

/// What comes from a worker.
#[derive(Debug)]
pub enum WorkEvent {
    /// The disk is written and flushed up to here.
    Applied {
        /// Byte in the log.
        pos: u64,
        /// Write time of the newest record.
        time: LogTime,
        /// Bytes of log since the last report.
        bytes: u64,
    },
    /// The replay ended at this byte; `end` if nothing valid follows, `error` if it had to stop.
    ReplayEnded {
        /// Byte in the log up to which the disk is good.
        pos: u64,
        /// Whether `pos` is the end of the valid records.
        at_end: bool,
        /// Why it stopped, if that is for the admin.
        error: Option<String>,
        /// The reason is that the log cannot be read on.
        damaged: bool,
    },
    /// A log grew.
    Fetched {
        /// The log.
        log: LogName,
        /// Its size in bytes.
        size: u64,
        /// End of its last whole record, on stable storage.
        valid: u64,
    },
    /// The peer has sent what is no record: its copy is damaged.
    BadSource {
        /// Byte in the log.
        pos: u64,
        /// What is wrong there.
        cause: String,
    },
    /// The fetch ended; without an error the log is complete.
    FetchEnded(LogName, Option<FetchFailed>),
    /// The sync got on.
    Synced {
        /// Contiguous bytes.
        synced: u64,
        /// Equal 4 KiB blocks.
        ok: u64,
        /// Different 4 KiB blocks.
        bad: u64,
        /// Bytes received.
        received: u64,
    },
    /// The sync ended: the position from which it is consistent, or why it stopped.
    SyncEnded(Result<ReplayPos, String>),
    /// The source cannot tell what was written in a gap: why.
    NoRanges(String),
    /// A comparison needs something.
    VerifyAsks(VerifyAsk),
    /// A comparison has got so far, in bytes.
    Verified(u64),
    /// The comparison ended.
    VerifyEnded(Result<VerifyOutcome, String>),
}
