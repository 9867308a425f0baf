//! The fetching side of fetch: appends whole valid records to the local copy of a log, and nothing else ever.
//!
//! What is reported as valid was flushed to stable storage before, so neither replay nor a peer that fetches from
//! here relies on bytes that a power loss takes away.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use mars_core::log_format::{Invalid, LogTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::check::RecordCheck;
use super::fetch_serve::{KIND_ALIVE, KIND_DATA, KIND_END};
use super::frame::{Frame, FrameError, FrameReader, KIND_REFUSED, get_u64, refuse};
use super::{Cancel, as_u64, blocking};

/// While data keeps coming the log is flushed at least this often.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
/// When nothing more has arrived it is flushed at once, unless it was so recently: a flush holds up the whole disk.
const FLUSH_PAUSE: Duration = Duration::from_millis(20);

/// What to fetch.
#[derive(Debug, Clone)]
pub struct FetchJob {
    /// The local logfile; created with mode 0600 if it is missing.
    pub path: PathBuf,
    /// Its size, a record boundary: what [`super::prepare_fetch`] returned, and what the peer was asked for.
    pub from: u64,
    /// The peer, for messages.
    pub peer: String,
    /// A server that is silent for so long is given up; it shows that it lives every 5 s.
    pub silence: Duration,
    /// Stops the fetch.
    pub cancel: Cancel,
}

/// State of a fetch while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FetchProgress {
    /// Bytes in the local file, possibly not yet flushed.
    pub size: u64,
    /// End of the last whole valid record on stable storage: replay may go so far.
    pub valid: u64,
    /// The peer says that the log ends at `valid`.
    pub complete: bool,
    /// Bytes received by this fetch.
    pub received: u64,
    /// When the last record before `valid` entered the primary; `None` before the first one of this fetch.
    pub last: Option<LogTime>,
}

/// How a fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchEnd {
    /// The log is complete; otherwise the fetch was cancelled.
    pub complete: bool,
    /// Size of the local file, all of it valid and on stable storage.
    pub size: u64,
}

/// Why a fetch failed. The valid prefix stays in any case.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A local file operation failed.
    #[error("cannot {op} {}: {cause}", path.display())]
    File {
        /// What was tried.
        op: &'static str,
        /// The local logfile.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// The local file is not what the job says.
    #[error("{} has {size} bytes, but fetching was to begin at byte {from}", path.display())]
    Size {
        /// The local logfile.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// Where the job wanted to begin.
        from: u64,
    },
    /// The peer sent something that is no record; it was not appended.
    #[error("{} from {peer}: invalid record at byte {pos}: {cause}; the copy ends there", path.display())]
    Invalid {
        /// The local logfile.
        path: PathBuf,
        /// Where it came from.
        peer: String,
        /// Position in the log in bytes.
        pos: u64,
        /// What is wrong.
        cause: Invalid,
    },
    /// The peer refused or gave up.
    #[error("{peer} does not send {}: {why}", path.display())]
    Refused {
        /// The local logfile.
        path: PathBuf,
        /// The peer.
        peer: String,
        /// Its words.
        why: String,
    },
    /// The peer sent frames that make no sense.
    #[error("protocol error of {peer} while fetching {}: {what}", path.display())]
    Protocol {
        /// The local logfile.
        path: PathBuf,
        /// The peer.
        peer: String,
        /// What it sent.
        what: String,
    },
    /// The connection failed.
    #[error("fetching {} from {peer}: {cause}", path.display())]
    Stream {
        /// The local logfile.
        path: PathBuf,
        /// The peer.
        peer: String,
        /// Why.
        cause: FrameError,
    },
}

/// Fetches until the log is complete, the job is cancelled or something fails; `progress` follows it.
pub async fn fetch<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    job: FetchJob,
    progress: &watch::Sender<FetchProgress>,
) -> Result<FetchEnd, FetchError> {
    let (input, output) = tokio::io::split(stream);
    let opened = open_copy(&job).await?;
    let mut fetcher = Fetcher {
        input: FrameReader::new(input),
        output,
        file: Arc::new(opened),
        check: RecordCheck::new(job.from),
        flushed: job.from,
        flushed_at: Instant::now(),
        job,
        progress,
    };
    let result = fetcher.run().await;
    // Whatever happened: what came so far is valid and shall count.
    let flushed = fetcher.flush().await;
    if let Err(e @ (FetchError::Invalid { .. } | FetchError::Protocol { .. })) = &result {
        let _ = refuse(&mut fetcher.output, &e.to_string()).await;
    }
    let complete = result?;
    flushed?;
    let size = fetcher.flushed;
    if complete {
        progress.send_modify(|p| p.complete = true);
    }
    Ok(FetchEnd { complete, size })
}

struct Fetcher<'a, S> {
    job: FetchJob,
    input: FrameReader<ReadHalf<S>>,
    output: WriteHalf<S>,
    file: Arc<File>,
    check: RecordCheck,
    flushed: u64,
    flushed_at: Instant,
    progress: &'a watch::Sender<FetchProgress>,
}

enum Event {
    Frame(Frame),
    Idle,
    Cancelled,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Fetcher<'_, S> {
    /// Returns whether the log is complete; `false`: cancelled.
    async fn run(&mut self) -> Result<bool, FetchError> {
        let from = self.job.from;
        self.progress.send_modify(|p| {
            *p = FetchProgress {
                size: from,
                valid: from,
                ..FetchProgress::default()
            }
        });
        loop {
            match self.next_event().await? {
                Event::Cancelled => return Ok(false),
                Event::Idle => self.flush().await?,
                Event::Frame(frame) => match frame.kind {
                    KIND_DATA => self.data(frame.payload).await?,
                    KIND_END => return self.end(&frame.payload),
                    KIND_ALIVE => {}
                    KIND_REFUSED => return Err(self.refused(frame.text())),
                    kind => return Err(self.protocol(format!("frame of kind {kind}"))),
                },
            }
        }
    }

    async fn next_event(&mut self) -> Result<Event, FetchError> {
        let dirty = self.check.end() > self.flushed;
        let event = tokio::select! {
            biased;
            () = self.job.cancel.cancelled() => Ok(Event::Cancelled),
            frame = self.input.next_within(self.job.silence) => frame.map(Event::Frame),
            // Nothing more has arrived yet: the time to flush.
            () = tokio::time::sleep_until(self.flushed_at + FLUSH_PAUSE), if dirty => Ok(Event::Idle),
        };
        event.map_err(|cause| self.stream(cause))
    }

    async fn data(&mut self, mut bytes: Bytes) -> Result<(), FetchError> {
        let Ok(pos) = bytes.try_get_u64_le() else {
            return Err(self.protocol("data frame without a position".into()));
        };
        let expected = self.check.received();
        if pos != expected {
            return Err(self.protocol(format!("bytes of position {pos} instead of {expected}")));
        }
        let (end, received) = (self.check.end(), as_u64(bytes.len()));
        let (records, invalid) = self.check.push(bytes);
        if self.check.end() > end {
            let file = Arc::clone(&self.file);
            let others = end + as_u64(records.begun.len());
            let append = move || {
                file.write_all_at(&records.begun, end)?;
                file.write_all_at(&records.others, others)
            };
            if let Err(cause) = blocking(append).await {
                return Err(self.undo("append to", end, cause).await);
            }
        }
        self.progress.send_modify(|p| {
            p.size = self.check.end();
            p.received = p.received.saturating_add(received);
        });
        if let Some(cause) = invalid {
            return Err(self.invalid(cause));
        }
        if self.flushed_at.elapsed() >= FLUSH_EVERY {
            self.flush().await?;
        }
        Ok(())
    }

    fn end(&self, payload: &[u8]) -> Result<bool, FetchError> {
        let (mine, whole) = (self.check.received(), self.check.end());
        match get_u64(payload, 0) {
            Some(total) if total == mine && mine == whole => Ok(true),
            Some(total) if total == mine => Err(self.protocol(format!(
                "the log is called complete with {total} bytes, but its last record begins at {whole} and is torn"
            ))),
            Some(total) => Err(self.protocol(format!(
                "the log is called complete with {total} bytes after {mine} bytes were sent"
            ))),
            None => Err(self.protocol("end frame without a length".into())),
        }
    }

    /// Makes all whole records durable, then reports them.
    async fn flush(&mut self) -> Result<(), FetchError> {
        let end = self.check.end();
        if end > self.flushed {
            let file = Arc::clone(&self.file);
            let synced = blocking(move || file.sync_data()).await;
            if let Err(cause) = synced {
                // The kernel reports a lost write only once, so nothing unflushed may stay to be believed later.
                return Err(self.undo("flush", self.flushed, cause).await);
            }
            self.flushed = end;
        }
        self.flushed_at = Instant::now();
        let last = self.check.last();
        self.progress.send_if_modified(|p| {
            let news = p.valid != end;
            p.valid = end;
            p.last = last.or(p.last);
            news
        });
        Ok(())
    }

    /// After a failed append (no space) or flush: nothing of it may stay behind the last good record.
    async fn undo(&mut self, op: &'static str, end: u64, cause: io::Error) -> FetchError {
        self.check = RecordCheck::new(end);
        let file = Arc::clone(&self.file);
        if let Err(e) = blocking(move || file.set_len(end)).await {
            tracing::warn!(log = %self.job.path.display(), end, "cannot cut off a failed append: {e}");
        }
        self.file_error(op, cause)
    }

    fn file_error(&self, op: &'static str, cause: io::Error) -> FetchError {
        file_error(op, &self.job.path, cause)
    }

    fn invalid(&self, cause: Invalid) -> FetchError {
        let (path, peer) = self.place();
        let pos = self.check.end();
        FetchError::Invalid {
            path,
            peer,
            pos,
            cause,
        }
    }

    fn refused(&self, why: String) -> FetchError {
        let (path, peer) = self.place();
        FetchError::Refused { path, peer, why }
    }

    fn protocol(&self, what: String) -> FetchError {
        let (path, peer) = self.place();
        FetchError::Protocol { path, peer, what }
    }

    fn stream(&self, cause: FrameError) -> FetchError {
        let (path, peer) = self.place();
        FetchError::Stream { path, peer, cause }
    }

    fn place(&self) -> (PathBuf, String) {
        (self.job.path.clone(), self.job.peer.clone())
    }
}

async fn open_copy(job: &FetchJob) -> Result<File, FetchError> {
    let path = job.path.clone();
    let opened = blocking(move || open_durable(&path)).await;
    let (file, size) = opened.map_err(|e| file_error("open", &job.path, e))?;
    if size != job.from {
        return Err(FetchError::Size {
            path: job.path.clone(),
            size,
            from: job.from,
        });
    }
    Ok(file)
}

/// Opens or creates the logfile so that also its name survives a power loss.
fn open_durable(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    let size = file.metadata()?.len();
    if let (0, Some(dir)) = (size, path.parent()) {
        File::open(dir)?.sync_all()?;
    }
    Ok((file, size))
}

fn file_error(op: &'static str, path: &Path, cause: io::Error) -> FetchError {
    FetchError::File {
        op,
        path: path.to_path_buf(),
        cause,
    }
}
