//! The control verbs between marsd and a shim, the same for the user-space process and the kernel module
//! (`symlink-spec.md` section 9).
//!
//! The user-space shim is one process per resource. It listens on the `SOCK_SEQPACKET` unix socket
//! `RUN_DIR/shim-RESOURCE.sock`; every packet is one JSON message, with at most one file descriptor beside it
//! (`SCM_RIGHTS`). marsd sends [`Request`]s, the shim answers each with one [`Reply`] of the same `id`, and sends
//! [`Message::Status`] by itself whenever a position or a state has changed (at most every few milliseconds, the
//! last change is always sent).

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::name::ResourceName;
use crate::position::LogName;
use crate::stamp::Stamp;

/// Version of these messages; a shim of another version is refused with both numbers.
pub const PROTOCOL: u32 = 1;

/// Largest control message in bytes.
pub const MESSAGE_MAX: usize = 64 * 1024;

/// A request of marsd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by marsd, repeated in the reply.
    pub id: u64,
    /// What to do.
    pub verb: Verb,
}

/// What marsd can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Verb {
    /// First message of every connection. The shim answers with its status and, if it serves a device, passes its
    /// `/dev/fuse` descriptor beside a [`Message::Hold`].
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
    },
    /// Opens the disk and names the places; no device appears yet.
    Attach(Attach),
    /// Logs to `log` from byte `pos`.
    ///
    /// Without a running log: records between `pos` and the first invalid record are taken into the dirty map (they
    /// are newer than the disk), what follows them is cut off, logging goes on behind them, and the device appears.
    /// With a running log: `log` must be the next number and `pos` 0; new records go there at once, the old
    /// log is complete when all of it is written back. Refused while two logs are open.
    Log {
        /// The logfile, below the log directory; created if missing.
        log: LogName,
        /// Written-back position to start from, a record boundary.
        pos: u64,
    },
    /// Pass-through on: what is logged is written back, then writes go straight to the disk. Off: back to logging
    /// with the next [`Verb::Log`].
    PassThrough {
        /// Wanted state.
        on: bool,
    },
    /// Without a log: the disk holds all of `log` before `pos`, and all older logs; the device appears, and writes go
    /// straight to the disk.
    PassFrom {
        /// The log.
        log: LogName,
        /// Position of the disk in it.
        pos: u64,
    },
    /// Sets the size of the device in bytes; it can only grow.
    Resize {
        /// New size in bytes.
        size_bytes: u64,
    },
    /// Asks for the status.
    Status,
    /// Stops: refused with [`Refusal::Busy`] while the device is open. Otherwise the device disappears, everything
    /// logged is written back and flushed, the log is trimmed, the final status is answered and the shim ends.
    Stop,
}

/// Arguments of [`Verb::Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The resource.
    pub resource: ResourceName,
    /// Full path of the device node to serve, such as `/dev/mars/R`.
    pub device: String,
    /// Path of the disk, a block device or a regular file.
    pub disk: String,
    /// Size of the device in bytes.
    pub size_bytes: u64,
    /// Directory of the logfiles.
    pub log_dir: String,
    /// A killed shim is succeeded: the packet carries its `/dev/fuse` descriptor, and the device still exists.
    pub resume: Option<Resume>,
}

/// What a successor must know of the shim before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Path of the loop device, such as `/dev/loop3`.
    pub loop_device: String,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Id of the request.
    pub id: u64,
    /// Status after the action, or why it was not done.
    pub result: Result<ShimStatus, Refusal>,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "kebab-case")]
pub enum Refusal {
    /// The device is in use.
    #[error("{device} is in use: {by}")]
    Busy {
        /// The device.
        device: String,
        /// Who uses it, as far as it is known ("mounted on /srv", "pid 17 (fio)").
        by: String,
    },
    /// The request does not fit the state or its arguments are wrong.
    #[error("{why}")]
    Invalid {
        /// What is wrong.
        why: String,
    },
    /// An operation of the system failed.
    #[error("{operation} {path}: {cause}")]
    Failed {
        /// What was tried.
        operation: String,
        /// On what.
        path: String,
        /// The error of the system.
        cause: String,
    },
}

/// What a shim sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum Message {
    /// Answer to a request.
    Reply(Reply),
    /// Something changed.
    Status(ShimStatus),
    /// The packet carries the `/dev/fuse` descriptor: keep it open, it saves the device if this process dies.
    Hold(Resume),
}

/// State of a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShimState {
    /// Started, nothing attached.
    Idle,
    /// Disk open, no log, no device.
    Attached,
    /// The device is served and every write is logged.
    Logging,
    /// The device is served, writes go straight to the disk.
    PassThrough,
    /// Stopping.
    Draining,
    /// The disk failed: the device answers errors; `error` says why.
    Failed,
}

/// Positions of one open log, all in bytes and at record boundaries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// The log.
    pub log: LogName,
    /// End of the last record that is in the log.
    pub logged: u64,
    /// All before this is on stable storage: may be sent to peers.
    pub durable: u64,
    /// All before this is on the disk, and the disk was flushed.
    pub written_back: u64,
    /// Time stamp of the record that ends at `written_back`.
    pub written_back_stamp: Stamp,
    /// A newer log is in use, this one is fully written back, flushed, trimmed and closed. A complete log is
    /// reported until the next switch.
    pub complete: bool,
}

/// Status of a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimStatus {
    /// The state.
    pub state: ShimState,
    /// The device node that is served, if any.
    pub device: Option<String>,
    /// Size of the device in bytes, 0 before [`Verb::Attach`].
    #[serde(default)]
    pub size_bytes: u64,
    /// Open logs, oldest first: none, one, or two around a switch.
    pub logs: Vec<LogStatus>,
    /// Why logging or the disk failed, if it did.
    pub error: Option<String>,
    /// Counters since the start of this process.
    pub counters: Counters,
}

/// Counters since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Read requests of the application.
    pub reads: u64,
    /// Write requests of the application.
    pub writes: u64,
    /// Flushes of the application.
    pub flushes: u64,
    /// Payload bytes logged.
    pub logged_bytes: u64,
    /// Bytes written back to the disk.
    pub written_back_bytes: u64,
    /// Dirty bytes that are newer in the log than on the disk.
    pub dirty_bytes: u64,
}
