//! The serving side of sync: compares its disk with the digests of the target and sends the blocks that differ.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mars_core::ReplayPos;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use super::disk::{Disk, DiskError};
use super::fetch_serve::{ServeEnd, ServeError};
use super::frame::{FrameError, FrameReader, KIND_REFUSED, get_u64, refuse, write_frame};
use super::rate::RateLimits;
use super::sync_proto::{
    KIND_ALIVE, KIND_BEGIN, KIND_DIFF, KIND_DONE, KIND_END, KIND_WINDOW, format_diff, parse_request,
};
use super::sync_ranges::{self, Ranges};
use super::{Cancel, as_u64};

/// Windows that are read and compared at the same time.
const AHEAD: usize = 4;
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// What is served.
#[derive(Debug, Clone)]
pub struct SyncSource {
    /// Our data disk; opened shared, because the shim holds it.
    pub disk_path: PathBuf,
    /// Size of the resource in bytes.
    pub size: u64,
    /// What only is to be synced, or why that cannot be told; `None`: everything.
    pub ranges: Option<Result<Ranges, String>>,
    /// Limits of what is read of the disk.
    pub io: RateLimits,
    /// Stops serving.
    pub cancel: Cancel,
}

/// Serves one sync until the target has everything or goes away.
///
/// `position` is asked once, after the last block was read, and must name a position E of the log behind every
/// record whose data the disk may already hold. On a primary that is the end of what is logged: write-back
/// writes only what stands in the log, so every block read here was logged at or before E. On a
/// secondary it is the end of what its replay may have begun to apply. A target that replays from its own start
/// position to E overwrites every block that was copied too early or too late.
pub async fn serve_sync<S, F, Fut>(
    stream: S,
    source: SyncSource,
    position: F,
) -> Result<ServeEnd, ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<ReplayPos, String>> + Send,
{
    let cancel = source.cancel.clone();
    tokio::select! {
        biased;
        () = cancel.cancelled() => Ok(ServeEnd::Cancelled),
        result = serve(stream, source, position) => result,
    }
}

async fn serve<S, F, Fut>(
    stream: S,
    source: SyncSource,
    position: F,
) -> Result<ServeEnd, ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<ReplayPos, String>> + Send,
{
    let (input, output) = tokio::io::split(stream);
    let path = source.disk_path.clone();
    let (work, queue) = mpsc::channel(AHEAD);
    let ranges = source.ranges.clone();
    let reader = Reader {
        input: FrameReader::new(input),
        source,
        work,
    };
    let mut writer = Writer { output, ranges };
    let (result, ()) = tokio::join!(writer.run(queue, position), reader.run());
    let why = match &result {
        Err(Failed::Refused(why)) | Err(Failed::Protocol(why)) => why.clone(),
        Err(Failed::Disk(e)) => e.to_string(),
        _ => return finish(path, result),
    };
    // The target may be gone already; our own error is the one that counts.
    let _ = refuse(&mut writer.output, &why).await;
    finish(path, result)
}

fn finish(path: PathBuf, result: Result<(), Failed>) -> Result<ServeEnd, ServeError> {
    match result {
        Ok(()) => Ok(ServeEnd::Complete),
        Err(Failed::Stream(cause)) if cause.is_gone() => Ok(ServeEnd::PeerGone),
        Err(Failed::Stream(cause)) => Err(ServeError::Stream { path, cause }),
        Err(Failed::Refused(why)) => Err(ServeError::Refused { path, why }),
        Err(Failed::Peer(why)) => Err(ServeError::Peer { path, why }),
        Err(Failed::Protocol(what)) => Err(ServeError::Protocol { path, what }),
        Err(Failed::Disk(e)) => Err(ServeError::Refused {
            path,
            why: e.to_string(),
        }),
    }
}

enum Failed {
    Stream(FrameError),
    Refused(String),
    Peer(String),
    Protocol(String),
    Disk(DiskError),
}

impl From<FrameError> for Failed {
    fn from(e: FrameError) -> Self {
        Self::Stream(e)
    }
}

/// What the writer does next, in the order of the requests.
enum Work {
    Diff(JoinHandle<Result<Result<Vec<u8>, DiskError>, JoinError>>),
    Done,
    Failed(Failed),
}

struct Reader<S> {
    input: FrameReader<ReadHalf<S>>,
    source: SyncSource,
    work: mpsc::Sender<Work>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Reader<S> {
    async fn run(mut self) {
        let end = match self.requests().await {
            Ok(()) => Work::Done,
            Err(failed) => Work::Failed(failed),
        };
        // A writer that has ended needs nothing more.
        let _ = self.work.send(end).await;
    }

    /// Until the target says that it is done.
    async fn requests(&mut self) -> Result<(), Failed> {
        let disk = self.begin().await?;
        loop {
            let next = tokio::select! {
                frame = self.input.next() => frame?,
                () = self.work.closed() => return Ok(()),
            };
            match next.kind {
                KIND_WINDOW => {
                    let (window, _) =
                        parse_request(&next.payload, self.source.size).map_err(Failed::Protocol)?;
                    let (disk, size) = (Arc::clone(&disk), self.source.size);
                    let turn = self.source.io.book_turn(as_u64(window.len));
                    let diff = tokio::spawn(async move {
                        tokio::time::sleep(turn).await;
                        let read = move || compare(&disk, size, &next.payload);
                        tokio::task::spawn_blocking(read).await
                    });
                    if self.work.send(Work::Diff(diff)).await.is_err() {
                        return Ok(());
                    }
                }
                KIND_DONE => return Ok(()),
                KIND_REFUSED => return Err(Failed::Peer(next.text())),
                kind => return Err(Failed::Protocol(format!("frame of kind {kind}"))),
            }
        }
    }

    async fn begin(&mut self) -> Result<Arc<Disk>, Failed> {
        let frame = self.input.next().await?;
        let size = match (frame.kind, get_u64(&frame.payload, 0)) {
            (KIND_BEGIN, Some(size)) if frame.payload.len() == 8 => size,
            (kind, _) => {
                let what = format!("sync begins with a frame of kind {kind}");
                return Err(Failed::Protocol(what));
            }
        };
        let mine = self.source.size;
        if size != mine {
            return Err(Failed::Refused(format!(
                "the resource has {mine} bytes here, but {size} bytes are asked for"
            )));
        }
        let path = self.source.disk_path.clone();
        let opened = tokio::task::spawn_blocking(move || Disk::open_shared(&path, mine));
        joined(opened).await?.map(Arc::new).map_err(Failed::Disk)
    }
}

/// The answer to a request that was checked before.
fn compare(disk: &Disk, size: u64, request: &[u8]) -> Result<Vec<u8>, DiskError> {
    let Ok((window, theirs)) = parse_request(request, size) else {
        return Ok(Vec::new());
    };
    let data = disk.read(window.pos, window.len)?;
    Ok(format_diff(window, &data, theirs))
}

async fn joined<T>(task: JoinHandle<T>) -> Result<T, Failed> {
    task.await.map_err(aborted)
}

fn aborted(cause: JoinError) -> Failed {
    Failed::Refused(format!("internal error: disk task failed: {cause}"))
}

struct Writer<S> {
    output: WriteHalf<S>,
    ranges: Option<Result<Ranges, String>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Writer<S> {
    async fn run<F, Fut>(
        &mut self,
        mut queue: mpsc::Receiver<Work>,
        position: F,
    ) -> Result<(), Failed>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<ReplayPos, String>> + Send,
    {
        if let Some(ranges) = &self.ranges {
            sync_ranges::send(&mut self.output, ranges).await?;
            if ranges.is_err() {
                self.output.shutdown().await.map_err(FrameError::Io)?;
                return Ok(());
            }
        }
        loop {
            match queue.recv().await {
                Some(Work::Diff(task)) => {
                    let diff = self.meanwhile(joined(task)).await??;
                    let diff = diff.map_err(aborted)?.map_err(Failed::Disk)?;
                    write_frame(&mut self.output, KIND_DIFF, &[&diff]).await?;
                }
                Some(Work::Failed(failed)) => return Err(failed),
                // Requests are answered in order: all reads of the disk have ended.
                Some(Work::Done) => break,
                None => return Err(Failed::Stream(FrameError::Closed)),
            }
        }
        let end = self.meanwhile(position()).await?.map_err(Failed::Refused)?;
        write_frame(&mut self.output, KIND_END, &[end.to_string().as_bytes()]).await?;
        self.output.shutdown().await.map_err(FrameError::Io)?;
        Ok(())
    }

    /// Shows that we live while something takes long.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failed> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(ALIVE_EVERY) => {
                    write_frame(&mut self.output, KIND_ALIVE, &[]).await?;
                }
            }
        }
    }
}
