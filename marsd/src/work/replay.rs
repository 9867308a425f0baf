//! Replay: applies the records of a log to the disk, in batches that leave only each last writer's data.
//!
//! A position is reported only by [`Applied`], which exists only after the disk was flushed behind all writes up to
//! it. Replay stops at the first invalid record and never skips one. Runs on a thread of its own.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use mars_core::LogName;
use mars_core::log_format::{CODE_NEW_DATA, HEADER_LEN, Invalid, LogTime, RECORD_MAX, Record};
use tokio::sync::watch;

use super::check::{Stop, Walk, is_zero, walk};
use super::disk::{Disk, DiskError};
use super::extents::{Write, coalesce};
use super::fetch::FetchProgress;
use super::{Cancel, as_len, as_u64};

/// Log bytes applied between two flushes of the disk, where nothing else is said.
pub const BATCH: usize = 16 * 1024 * 1024;
/// The memory of a batch is kept for so long when nothing more comes.
const MEMORY_KEPT: Duration = Duration::from_secs(1);
/// Longest single write to the disk in bytes.
const EXTENT_MAX: usize = 1024 * 1024;

/// How far to replay.
#[derive(Debug, Clone)]
pub enum ReplayUntil {
    /// To this byte of the log; a torn record or zeros before it count as the end.
    Fixed(u64),
    /// To `valid` of a running fetch, and on while it moves; ends when the log is complete or the sender is gone.
    Follow(watch::Receiver<FetchProgress>),
}

/// What to replay.
#[derive(Debug, Clone)]
pub struct ReplayJob {
    /// The logfile.
    pub log_path: PathBuf,
    /// Its name, for messages.
    pub log: LogName,
    /// The data disk.
    pub disk_path: PathBuf,
    /// Size of the resource in bytes; nothing is written behind it.
    pub disk_size: u64,
    /// Record boundary to begin at: what was last reported.
    pub from: u64,
    /// Where to end.
    pub until: ReplayUntil,
    /// Log bytes held in memory and applied between two flushes of the disk, at most; [`BATCH`] is usual.
    pub batch: usize,
}

/// Stops a replay from outside; clones act on the same one.
#[derive(Debug, Clone, Default)]
pub struct ReplayControl {
    stop: Cancel,
}

impl ReplayControl {
    /// Replay under the given token.
    pub fn new(stop: Cancel) -> Self {
        Self { stop }
    }

    /// Asks replay to stop after the batch that it is writing.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// Everything before `pos` is on the disk and flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayReport {
    /// Byte position in the log, a record boundary: the value for the replay link.
    pub pos: u64,
    /// When the last applied record entered the primary.
    pub stamp: Option<LogTime>,
    /// Log bytes applied since the last report.
    pub bytes: u64,
    /// Bytes written to the disk for them.
    pub disk_bytes: u64,
}

/// Why replay ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayReason {
    /// All that there is was applied.
    CaughtUp,
    /// [`ReplayControl::stop`].
    Stopped,
}

/// How replay ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayEnd {
    /// Last reported position, or the start.
    pub pos: u64,
    /// Why it ended.
    pub reason: ReplayReason,
}

/// Why replay failed. What was reported before stays true.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log holds something that is no record.
    #[error("{}: invalid record at byte {pos}: {cause}; replay stops there", path.display())]
    Invalid {
        /// The logfile.
        path: PathBuf,
        /// Position in bytes.
        pos: u64,
        /// What is wrong.
        cause: Invalid,
    },
    /// The log ends before the position up to which it is said to be valid.
    #[error("{}: no whole record at byte {pos}, although {announced} bytes are said to be valid", path.display())]
    Short {
        /// The logfile.
        path: PathBuf,
        /// Position in bytes.
        pos: u64,
        /// How far it should go.
        announced: u64,
    },
    /// The starting position lies behind the end of the log.
    #[error("{}: replay position {from} lies behind the end of the log at {end}; the log or the replay link was damaged", path.display())]
    BehindEnd {
        /// The logfile.
        path: PathBuf,
        /// Where to start.
        from: u64,
        /// Where the log ends.
        end: u64,
    },
    /// A record does not fit the disk.
    #[error("{}: the record at byte {pos} writes {len} bytes at {disk_pos}, behind the end of the resource at {disk_size}", path.display())]
    BeyondDisk {
        /// The logfile.
        path: PathBuf,
        /// Position of the record in bytes.
        pos: u64,
        /// Where it wants to write.
        disk_pos: u64,
        /// How much.
        len: usize,
        /// Size of the resource in bytes.
        disk_size: u64,
    },
    /// The log cannot be read.
    #[error("cannot read {} at byte {pos}: {cause}", path.display())]
    Log {
        /// The logfile.
        path: PathBuf,
        /// Position in bytes.
        pos: u64,
        /// Why.
        cause: io::Error,
    },
    /// The disk cannot be opened, written or flushed.
    #[error("replay of {log}: {cause}")]
    Disk {
        /// The log that was replayed.
        log: LogName,
        /// Why.
        #[source]
        cause: DiskError,
    },
}

/// Replays on the calling thread until the end, the stop or an error; `report` hears of each flushed batch.
pub fn replay(
    job: ReplayJob,
    control: ReplayControl,
    mut report: impl FnMut(ReplayReport),
) -> Result<ReplayEnd, ReplayError> {
    let opened = Disk::open_exclusive(&job.disk_path, job.disk_size);
    let disk = opened.map_err(|cause| disk_error(&job, cause))?;
    let log = File::open(&job.log_path).map_err(|e| log_error(&job, job.from, e))?;
    let mut run = Run {
        at: job.from,
        batch: job.batch.max(RECORD_MAX),
        job,
        log,
        disk,
        control,
        memory: Vec::new(),
    };
    let reason = run.run(&mut report)?;
    let pos = run.at;
    Ok(ReplayEnd { pos, reason })
}

/// A batch that is on the disk and flushed: made only by [`Run::apply`].
struct Applied {
    report: ReplayReport,
    stop: Stop,
    /// Something behind it was not looked at yet.
    more: bool,
}

/// What is to be written for a part of the log.
struct Batch {
    writes: Vec<Write>,
    walk: Walk,
    /// Ends before a record that does not fit the disk.
    cut: bool,
}

struct Run {
    job: ReplayJob,
    log: File,
    disk: Disk,
    batch: usize,
    control: ReplayControl,
    /// Memory of the last batch, for the next one.
    memory: Vec<u8>,
    /// Flushed up to here.
    at: u64,
}

impl Run {
    fn run(&mut self, report: &mut impl FnMut(ReplayReport)) -> Result<ReplayReason, ReplayError> {
        loop {
            if self.control.stop.is_cancelled() {
                return Ok(ReplayReason::Stopped);
            }
            let (end, is_last) = self.goal();
            if self.at < end {
                let applied = self.apply(end)?;
                if applied.report.bytes > 0 {
                    self.at = applied.report.pos;
                    report(applied.report);
                }
                if self.ends_here(&applied, end)? {
                    return Ok(ReplayReason::CaughtUp);
                }
            } else if self.at > end && is_last {
                return Err(self.behind_end(end));
            } else if is_last {
                return Ok(ReplayReason::CaughtUp);
            } else {
                self.wait();
            }
        }
    }

    /// How far the log may be replayed now, and whether that is its end.
    fn goal(&mut self) -> (u64, bool) {
        match &mut self.job.until {
            ReplayUntil::Fixed(end) => (*end, true),
            ReplayUntil::Follow(progress) => {
                // Asked first: a sender that goes away afterwards has left its last value.
                let gone = progress.has_changed().is_err();
                let now = *progress.borrow_and_update();
                (now.valid, gone || now.complete)
            }
        }
    }

    /// Writes the next batch and flushes the disk.
    fn apply(&mut self, end: u64) -> Result<Applied, ReplayError> {
        let mut memory = std::mem::take(&mut self.memory);
        let source = self.read(end, &mut memory)?;
        let parsed = self.parse(source)?;
        let (walk, extents) = (parsed.walk, coalesce(&parsed.writes, EXTENT_MAX));
        if !extents.is_empty() {
            let fail = |cause| disk_error(&self.job, cause);
            self.disk.write(&extents, source).map_err(fail)?;
            self.disk.flush().map_err(fail)?;
        }
        let bytes = as_u64(walk.len);
        let report = ReplayReport {
            pos: self.at + bytes,
            stamp: walk.last,
            bytes,
            disk_bytes: extents.iter().map(|e| as_u64(e.len)).sum(),
        };
        let more = parsed.cut || self.at + as_u64(source.len()) < end;
        self.memory = memory;
        Ok(Applied {
            report,
            stop: walk.stop,
            more,
        })
    }

    /// The next part of the log, in `memory`.
    fn read<'a>(&self, end: u64, memory: &'a mut Vec<u8>) -> Result<&'a [u8], ReplayError> {
        let len = as_len(end - self.at, self.batch);
        if memory.len() < len {
            memory.resize(len, 0);
        }
        let (source, _) = memory.split_at_mut(len);
        let read = self.log.read_exact_at(source, self.at);
        read.map_err(|e| log_error(&self.job, self.at, e))?;
        Ok(source)
    }

    /// The writes of all records before the first that is invalid or does not fit the disk; an error if the latter
    /// is the very first.
    fn parse(&self, source: &[u8]) -> Result<Batch, ReplayError> {
        let mut writes = Vec::new();
        let mut beyond = None;
        let walked = walk(source, |record, payload| {
            if record.code == CODE_NEW_DATA && beyond.is_none() {
                match self.check_place(record, &payload) {
                    Ok(write) => writes.push(write),
                    Err(e) => beyond = Some((payload.start.saturating_sub(HEADER_LEN), e)),
                }
            }
        });
        let (walk, cut) = match beyond {
            None => (walked, false),
            Some((0, e)) => return Err(e),
            Some((at, _)) => (walk(source.get(..at).unwrap_or_default(), |_, _| ()), true),
        };
        Ok(Batch { writes, walk, cut })
    }

    fn check_place(&self, record: &Record, payload: &Range<usize>) -> Result<Write, ReplayError> {
        let len = payload.len();
        let end = record.pos.checked_add(as_u64(len));
        if end.is_some_and(|end| end <= self.job.disk_size) {
            return Ok(Write {
                pos: record.pos,
                at: payload.start,
                len,
            });
        }
        Err(ReplayError::BeyondDisk {
            path: self.job.log_path.clone(),
            pos: self.at + as_u64(payload.start.saturating_sub(HEADER_LEN)),
            disk_pos: record.pos,
            len,
            disk_size: self.job.disk_size,
        })
    }

    /// Whether the log ends behind what was just applied; an error if it ought not to.
    fn ends_here(&self, applied: &Applied, end: u64) -> Result<bool, ReplayError> {
        let fixed = matches!(self.job.until, ReplayUntil::Fixed(_));
        let path = || self.job.log_path.clone();
        let invalid = |cause| {
            Err(ReplayError::Invalid {
                path: path(),
                pos: self.at,
                cause,
            })
        };
        match applied.stop {
            Stop::Invalid(cause) => invalid(cause),
            Stop::NeedMore if applied.more || self.at == end => Ok(false),
            Stop::NeedMore | Stop::Zeros if !fixed => Err(ReplayError::Short {
                path: path(),
                pos: self.at,
                announced: end,
            }),
            Stop::NeedMore => Ok(true),
            Stop::Zeros => {
                let zero = is_zero(&self.log, self.at, end);
                match zero.map_err(|e| log_error(&self.job, self.at, e))? {
                    true => Ok(true),
                    // Fewer zeros than a header at the end of a batch say nothing yet.
                    false if applied.report.bytes > 0 => Ok(false),
                    false => invalid(Invalid::StartMagic),
                }
            }
        }
    }

    /// Waits for more; when that takes long, without the memory of the last batch.
    fn wait(&mut self) {
        let ReplayUntil::Follow(progress) = &mut self.job.until else {
            return;
        };
        let mut news = pin!(async {
            tokio::select! {
                () = self.control.stop.cancelled() => {}
                // A sender that is gone is noticed by the caller.
                _ = progress.changed() => {}
            }
        });
        if block_on(news.as_mut(), Some(MEMORY_KEPT)).is_none() {
            self.memory = Vec::new();
            block_on(news, None);
        }
    }

    fn behind_end(&self, end: u64) -> ReplayError {
        ReplayError::BehindEnd {
            path: self.job.log_path.clone(),
            from: self.at,
            end,
        }
    }
}

fn disk_error(job: &ReplayJob, cause: DiskError) -> ReplayError {
    let log = job.log.clone();
    ReplayError::Disk { log, cause }
}

fn log_error(job: &ReplayJob, pos: u64, cause: io::Error) -> ReplayError {
    let path = job.log_path.clone();
    ReplayError::Log { path, pos, cause }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on a thread without a runtime, at most `patience`; enough for channels and tokens, not for timers or streams.
fn block_on<T>(
    mut work: Pin<&mut impl Future<Output = T>>,
    patience: Option<Duration>,
) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let until = patience.map(|patience| Instant::now() + patience);
    loop {
        if let Poll::Ready(value) = work.as_mut().poll(&mut context) {
            return Some(value);
        }
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => std::thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => std::thread::park_timeout(left),
        }
    }
}
