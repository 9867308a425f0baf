//! The syncing side of sync: makes the local disk equal to a peer's, transferring only blocks that differ.
//!
//! Three loops share the work: one reads the own disk and asks, one receives answers, one writes and flushes.
//! Answers come in the order of the questions, so what is written is always a contiguous prefix; it is reported as
//! synced only after it was flushed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mars_core::ReplayPos;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::disk::{Disk, DiskError};
use super::extents::coalesce;
use super::frame::{Frame, FrameError, FrameReader, KIND_REFUSED, write_frame};
use super::sync_proto::{
    Diff, KIND_ALIVE, KIND_BEGIN, KIND_DIFF, KIND_DONE, KIND_END, KIND_WINDOW, WINDOW, Window,
    format_request, parse_diff,
};
use super::sync_ranges::{self, KIND_NO_RANGES, KIND_RANGES};
use super::{Cancel, as_u64};

/// Answers that wait for being written.
const TO_WRITE_MAX: usize = 4;
/// The disk is flushed after so many bytes or so much time.
const FLUSH_BYTES: u64 = 64 * 1024 * 1024;
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Never shown, because the error of the writer comes first.
const WRITER_FAILED: &str = "the local disk failed";

/// What to sync.
#[derive(Debug, Clone)]
pub struct SyncJob {
    /// Our data disk; opened exclusively.
    pub disk_path: PathBuf,
    /// Size of the resource in bytes.
    pub size_bytes: u64,
    /// Bytes at the beginning that are synced already.
    pub start: u64,
    /// The peer, for messages.
    pub peer: String,
    /// Sync only the ranges that the source tells, and everything from this byte on; `None`: everything.
    pub ranges_to: Option<u64>,
    /// Windows of 1 MiB that are asked for and not yet answered, at least 1.
    pub ahead: usize,
    /// A source that is silent for so long is given up; it shows that it lives every 5 s.
    pub silence: Duration,
    /// Stops the sync.
    pub cancel: Cancel,
}

/// State of a sync while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncProgress {
    /// Length of the prefix that is equal to the source and flushed, in bytes: the value of `syncstatus`.
    pub synced: u64,
    /// Blocks that were equal already.
    pub ok_blocks: u64,
    /// Blocks that were transferred.
    pub bad_blocks: u64,
    /// Bytes of answers received.
    pub bytes_received: u64,
}

/// How a sync ended without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncEnd {
    /// Length of the prefix that is synced and flushed, in bytes.
    pub synced: u64,
    /// When the logs have been replayed up to here the disk is consistent. `None`: the sync was cancelled.
    pub consistent_from: Option<ReplayPos>,
}

/// Why a sync failed. What was reported as synced stays so.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Our disk.
    #[error("sync from {peer}: {cause}")]
    Disk {
        /// The peer.
        peer: String,
        /// Why.
        #[source]
        cause: DiskError,
    },
    /// The peer refused or gave up.
    #[error("{peer} does not serve the sync of {}: {why}", disk.display())]
    Refused {
        /// The local disk.
        disk: PathBuf,
        /// The peer.
        peer: String,
        /// Its words.
        why: String,
    },
    /// The peer sent something that makes no sense.
    #[error("protocol error of {peer} in the sync of {}: {what}", disk.display())]
    Protocol {
        /// The local disk.
        disk: PathBuf,
        /// The peer.
        peer: String,
        /// What it sent.
        what: String,
    },
    /// The source cannot tell which ranges are to be synced.
    #[error("{peer} cannot tell what was written past the logs: {why}")]
    NoRanges {
        /// The peer.
        peer: String,
        /// Its words.
        why: String,
    },
    /// The connection failed.
    #[error("sync of {} from {peer}: {cause}", disk.display())]
    Stream {
        /// The local disk.
        disk: PathBuf,
        /// The peer.
        peer: String,
        /// Why.
        cause: FrameError,
    },
}

/// Syncs until everything is equal, the job is cancelled or something fails; `progress` follows it.
pub async fn sync<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    job: SyncJob,
    progress: &watch::Sender<SyncProgress>,
) -> Result<SyncEnd, SyncError> {
    let synced = job.start.min(job.size_bytes);
    progress.send_modify(|p| {
        *p = SyncProgress {
            synced,
            ..SyncProgress::default()
        }
    });
    let job = Arc::new(job);
    let (path, size) = (job.disk_path.clone(), job.size_bytes);
    let opened = tokio::task::spawn_blocking(move || Disk::open_exclusive(&path, size));
    let opened = opened.await.map_err(|e| job.aborted(&e))?;
    let (open, mut closed) = mpsc::channel(1);
    let disk = Arc::new(Held {
        disk: opened.map_err(|e| job.disk(e))?,
        _open: open,
    });
    let (input, output) = tokio::io::split(stream);
    let (asked, answers) = mpsc::channel(job.ahead.max(1));
    let (to_write, queue) = mpsc::channel(TO_WRITE_MAX);
    let writer = Writer {
        job: &job,
        disk: &disk,
        progress,
        written: synced,
        synced,
        flushed_at: Instant::now(),
    };
    let (mut input, mut output) = (FrameReader::new(input), output);
    let both = async {
        let size = job.size_bytes.to_le_bytes();
        // A failed stream shows when the first answer is awaited: there may be a reason in it.
        let _ = write_frame(&mut output, KIND_BEGIN, &[&size]).await;
        let windows = windows(&mut input, &job).await?;
        let asker = ask(output, Arc::clone(&job), Arc::clone(&disk), windows, asked);
        let receiver = receive(input, &job, progress, answers, to_write);
        tokio::try_join!(asker, receiver)
    };
    let transfer = async {
        tokio::select! {
            biased;
            () = job.cancel.cancelled() => Ok(None),
            both = both => both.map(|((), end)| Some(end)),
        }
    };
    // However the transfer ends, the writer finishes what has come, and no write is left behind.
    let (transferred, written) = tokio::join!(transfer, writer.run(queue));
    drop(disk);
    // A read may still hold the exclusive claim of the disk for a moment; replay may want it next.
    let _: Option<()> = closed.recv().await;
    let synced = written?;
    let consistent_from = transferred?;
    Ok(SyncEnd {
        synced,
        consistent_from,
    })
}

/// The open disk; the channel closes right after the disk is closed.
struct Held {
    disk: Disk,
    _open: mpsc::Sender<()>,
}

impl SyncJob {
    fn disk(&self, cause: DiskError) -> SyncError {
        let peer = self.peer.clone();
        SyncError::Disk { peer, cause }
    }

    fn aborted(&self, cause: &tokio::task::JoinError) -> SyncError {
        self.disk(DiskError {
            op: "work on",
            path: self.disk_path.clone(),
            cause: std::io::Error::other(format!("operation aborted: {cause}")),
        })
    }

    fn protocol(&self, what: String) -> SyncError {
        let (disk, peer) = (self.disk_path.clone(), self.peer.clone());
        SyncError::Protocol { disk, peer, what }
    }

    fn stream(&self, cause: FrameError) -> SyncError {
        let (disk, peer) = (self.disk_path.clone(), self.peer.clone());
        SyncError::Stream { disk, peer, cause }
    }

    fn refused(&self, why: String) -> SyncError {
        let (disk, peer) = (self.disk_path.clone(), self.peer.clone());
        SyncError::Refused { disk, peer, why }
    }
}

/// The windows to be asked for, in ascending order.
type Windows = Box<dyn Iterator<Item = Window> + Send>;

/// Tells the windows to be asked for.
async fn windows<S: AsyncRead + AsyncWrite + Unpin + Send>(
    input: &mut FrameReader<ReadHalf<S>>,
    job: &SyncJob,
) -> Result<Windows, SyncError> {
    let size = job.size_bytes;
    let start = job.start.min(size);
    let Some(tail) = job.ranges_to else {
        let first = start - start % as_u64(WINDOW);
        let end = if start < size { size } else { first };
        let all = (first..end).step_by(WINDOW);
        return Ok(Box::new(all.filter_map(move |pos| Window::at(pos, size))));
    };
    let mut ranges = Vec::new();
    loop {
        let next = input.next_within(job.silence).await;
        let frame = next.map_err(|e| job.stream(e))?;
        match frame.kind {
            KIND_RANGES => {
                let more = sync_ranges::parse(&frame.payload, size, &mut ranges);
                if !more.map_err(|what| job.protocol(what))? {
                    let windows = sync_ranges::windows(&ranges, tail, start, size);
                    return Ok(Box::new(windows.into_iter()));
                }
            }
            KIND_NO_RANGES => {
                let (peer, why) = (job.peer.clone(), frame.text());
                return Err(SyncError::NoRanges { peer, why });
            }
            KIND_ALIVE => {}
            KIND_REFUSED => return Err(job.refused(frame.text())),
            other => return Err(job.protocol(format!("frame of kind {other} instead of ranges"))),
        }
    }
}

/// Asks window after window. A failed stream is not reported here: the receiver may still find a reason in it.
async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut output: WriteHalf<S>,
    job: Arc<SyncJob>,
    disk: Arc<Held>,
    windows: Windows,
    asked: mpsc::Sender<Window>,
) -> Result<(), SyncError> {
    for window in windows {
        let source = Arc::clone(&disk);
        let reading = tokio::task::spawn_blocking(move || {
            let data = source.disk.read(window.pos, window.len)?;
            Ok(format_request(window, &data))
        });
        let request = reading.await.map_err(|e| job.aborted(&e))?;
        let request = request.map_err(|e| job.disk(e))?;
        if asked.send(window).await.is_err() {
            return Ok(());
        }
        if write_frame(&mut output, KIND_WINDOW, &[&request])
            .await
            .is_err()
        {
            return Ok(());
        }
    }
    // A failed stream shows at the receiver, who still waits for the end.
    let _ = write_frame(&mut output, KIND_DONE, &[]).await;
    Ok(())
}

/// One answer, to be written.
struct Answer {
    window: Window,
    diff: Diff,
    payload: Bytes,
}

/// Receives all answers, then the position from which the copy is consistent.
async fn receive<S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut input: FrameReader<ReadHalf<S>>,
    job: &SyncJob,
    progress: &watch::Sender<SyncProgress>,
    mut asked: mpsc::Receiver<Window>,
    to_write: mpsc::Sender<Answer>,
) -> Result<ReplayPos, SyncError> {
    while let Some(window) = asked.recv().await {
        let answer = tokio::select! {
            answer = expect(&mut input, job, KIND_DIFF) => answer?,
            () = to_write.closed() => return Err(job.refused(WRITER_FAILED.into())),
        };
        let payload = answer.payload;
        let diff = parse_diff(&payload, window).map_err(|what| job.protocol(what))?;
        let received = as_u64(payload.len());
        progress.send_modify(|p| {
            p.ok_blocks = p.ok_blocks.saturating_add(diff.ok_blocks);
            p.bad_blocks = p.bad_blocks.saturating_add(diff.bad_blocks);
            p.bytes_received = p.bytes_received.saturating_add(received);
        });
        let answer = Answer {
            window,
            diff,
            payload,
        };
        if to_write.send(answer).await.is_err() {
            return Err(job.refused(WRITER_FAILED.into()));
        }
    }
    let end = expect(&mut input, job, KIND_END).await?;
    let text = end.text();
    let parsed = ReplayPos::parse(&text);
    parsed.map_err(|e| job.protocol(format!("end position: {e}")))
}

async fn expect<S: AsyncRead + AsyncWrite + Unpin + Send>(
    input: &mut FrameReader<ReadHalf<S>>,
    job: &SyncJob,
    kind: u8,
) -> Result<Frame, SyncError> {
    loop {
        let next = input.next_within(job.silence).await;
        let frame = next.map_err(|e| job.stream(e))?;
        match frame.kind {
            k if k == kind => return Ok(frame),
            KIND_ALIVE => {}
            KIND_REFUSED => return Err(job.refused(frame.text())),
            other => {
                let what = format!("frame of kind {other} instead of {kind}");
                return Err(job.protocol(what));
            }
        }
    }
}

/// Writes answers in order, flushes, and only then reports.
struct Writer<'a> {
    job: &'a SyncJob,
    disk: &'a Arc<Held>,
    progress: &'a watch::Sender<SyncProgress>,
    /// Everything before is written.
    written: u64,
    /// Everything before is flushed.
    synced: u64,
    flushed_at: Instant,
}

impl Writer<'_> {
    /// Until no more answers come. After an error nothing more is flushed: the kernel reports a lost write once only.
    async fn run(mut self, mut queue: mpsc::Receiver<Answer>) -> Result<u64, SyncError> {
        loop {
            let due = self.flushed_at + FLUSH_EVERY;
            let dirty = self.written > self.synced;
            let next = tokio::select! {
                next = queue.recv() => next,
                () = tokio::time::sleep_until(due), if dirty => {
                    self.flush().await?;
                    continue;
                }
            };
            let Some(answer) = next else { break };
            self.write(answer).await?;
            let full = self.written.saturating_sub(self.synced) >= FLUSH_BYTES;
            if full || self.flushed_at.elapsed() >= FLUSH_EVERY {
                self.flush().await?;
            }
        }
        self.flush().await?;
        Ok(self.synced)
    }

    async fn write(&mut self, answer: Answer) -> Result<(), SyncError> {
        let end = answer.window.end();
        self.on_disk(move |disk| {
            disk.write(&coalesce(&answer.diff.writes, WINDOW), &answer.payload)
        })
        .await?;
        self.written = self.written.max(end);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SyncError> {
        if self.written > self.synced {
            self.on_disk(|disk| disk.flush()).await?;
            self.synced = self.written;
            let synced = self.synced;
            self.progress.send_modify(|p| p.synced = synced);
        }
        self.flushed_at = Instant::now();
        Ok(())
    }

    async fn on_disk(
        &self,
        work: impl FnOnce(&Disk) -> Result<(), DiskError> + Send + 'static,
    ) -> Result<(), SyncError> {
        let disk = Arc::clone(self.disk);
        let done = tokio::task::spawn_blocking(move || work(&disk.disk)).await;
        let done = done.map_err(|e| self.job.aborted(&e))?;
        done.map_err(|e| self.job.disk(e))
    }
}
