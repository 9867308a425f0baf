//! One pass of a comparison: asks the peer about windows, lets the logs explain differences, repairs the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mars_core::ReplayPos;
use mars_core::verify::BLOCK_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::disk::Disk;
use super::extents::{Write, coalesce};
use super::frame::{Frame, FrameReader, KIND_REFUSED, write_frame};
use super::sync_proto::{
    KIND_ALIVE, KIND_BEGIN, KIND_DIFF, KIND_DONE, KIND_END, KIND_WINDOW, WINDOW, Window,
    format_request, parse_diff,
};
use super::touched::{Blocks, LogPart, for_each_record, take_touched};
use super::verify::{Found, Grant, Todo, VerifyError, VerifyHost, VerifyJob};

/// Windows that are asked for and not yet answered.
const ASKED_MAX: usize = 8;

/// When a pass ends although more is to be compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Time for comparing.
    pub(super) time: Duration,
    /// Differing blocks.
    pub(super) blocks: usize,
}

/// Compares the next part of the disk. When it returns, nothing of it uses the disk any more.
pub(super) async fn pass<H: VerifyHost>(
    host: &mut H,
    job: &VerifyJob,
    todo: &Todo,
    limits: Limits,
    progress: &watch::Sender<u64>,
) -> Result<Found, VerifyError> {
    let (open, mut closed) = mpsc::channel::<()>(1);
    let result = tokio::select! {
        biased;
        () = job.cancel.cancelled() => Err(VerifyError::Stopped),
        result = held_pass(host, job, todo, limits, progress, open) => result,
    };
    // A file operation may go on although nobody waits for it; replay may want the disk next.
    let _: Option<()> = closed.recv().await;
    result
}

/// The open disk; the channel closes right after the disk is closed.
struct Held {
    disk: Disk,
    _open: mpsc::Sender<()>,
}

async fn held_pass<H: VerifyHost>(
    host: &mut H,
    job: &VerifyJob,
    todo: &Todo,
    limits: Limits,
    progress: &watch::Sender<u64>,
    open: mpsc::Sender<()>,
) -> Result<Found, VerifyError> {
    let Grant {
        stream,
        peer,
        both_have,
    } = host.hold().await?;
    let (path, size) = (job.disk_path.clone(), job.size_bytes);
    let opened = on_disk(move || {
        let disk = Disk::open_exclusive(&path, size)?;
        Ok(Held { disk, _open: open })
    });
    let disk = Arc::new(opened.await?);
    let session = Session {
        job,
        todo,
        limits,
        progress,
        peer: &peer,
        full: AtomicBool::new(false),
    };
    let compared = session.run(stream, &disk).await?;
    let logs = host.logs(&both_have, &compared.end).await?;
    let (mut differing, mut hot) = (compared.differing, Vec::new());
    let (real, hot) = on_disk(move || {
        explain(&logs, &mut differing, &mut hot)?;
        Ok((differing, hot))
    })
    .await?;
    let mut found = Found {
        windows: compared.windows,
        real: real.keys().copied().collect(),
        repaired: job.repair,
        hot,
        end: Some(compared.end),
    };
    found.real.sort_unstable();
    if job.repair && !real.is_empty() {
        on_disk(move || repair(&disk.disk, &real)).await?;
    }
    Ok(found)
}

/// Runs what may block, without being able to take it back.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VerifyError> + Send + 'static,
) -> Result<T, VerifyError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(VerifyError::Logs(format!("operation aborted: {e}"))))
}

/// Moves the blocks that a log record touches from `differing` to `hot`.
fn explain(
    logs: &[LogPart],
    differing: &mut Blocks,
    hot: &mut Vec<u64>,
) -> Result<(), VerifyError> {
    for part in logs {
        let scanned = for_each_record(part, |pos, len| {
            take_touched(differing, pos, len, |block, _| hot.push(block));
        });
        let failed = |e| VerifyError::Logs(format!("cannot read {}: {e}", part.path.display()));
        scanned.map_err(failed)?;
    }
    hot.sort_unstable();
    Ok(())
}

fn repair(disk: &Disk, blocks: &Blocks) -> Result<(), VerifyError> {
    let mut source = Vec::new();
    let mut writes = Vec::new();
    for (block, data) in blocks {
        let (pos, at, len) = (block * BLOCK_BYTES, source.len(), data.len());
        writes.push(Write { pos, at, len });
        source.extend_from_slice(data);
    }
    disk.write(&coalesce(&writes, WINDOW), &source)?;
    Ok(disk.flush()?)
}

/// What was compared before the logs were looked at.
struct Compared {
    windows: Vec<Window>,
    differing: Blocks,
    end: ReplayPos,
}

/// The conversation with the peer.
struct Session<'a> {
    job: &'a VerifyJob,
    todo: &'a Todo,
    limits: Limits,
    progress: &'a watch::Sender<u64>,
    peer: &'a str,
    /// So many blocks differ that nothing more is asked.
    full: AtomicBool,
}

impl Session<'_> {
    async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        stream: S,
        disk: &Arc<Held>,
    ) -> Result<Compared, VerifyError> {
        let (input, output) = tokio::io::split(stream);
        let (asked, answers) = mpsc::channel(ASKED_MAX);
        let ask = self.ask(output, disk, asked);
        let receive = self.receive(FrameReader::new(input), answers);
        let ((), compared) = tokio::try_join!(ask, receive)?;
        Ok(compared)
    }

    /// Asks window after window. A failed stream shows at the receiver, who still waits for an answer.
    async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        mut output: WriteHalf<S>,
        disk: &Arc<Held>,
        asked: mpsc::Sender<Window>,
    ) -> Result<(), VerifyError> {
        let size = self.job.size_bytes.to_le_bytes();
        let begun = Instant::now();
        let mut sent = write_frame(&mut output, KIND_BEGIN, &[&size]).await;
        let mut last = None;
        while let Some(window) = self.todo.window(last) {
            let over = begun.elapsed() >= self.limits.time || self.full.load(Ordering::Relaxed);
            if sent.is_err() || (over && last.is_some()) {
                break;
            }
            let source = Arc::clone(disk);
            let request = on_disk(move || {
                let data = source.disk.read(window.pos, window.len)?;
                Ok(format_request(window, &data))
            });
            let request = request.await?;
            if asked.send(window).await.is_err() {
                return Ok(());
            }
            sent = write_frame(&mut output, KIND_WINDOW, &[&request]).await;
            last = Some(window);
        }
        let _ = write_frame(&mut output, KIND_DONE, &[]).await;
        Ok(())
    }

    async fn receive<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        mut input: FrameReader<ReadHalf<S>>,
        mut asked: mpsc::Receiver<Window>,
    ) -> Result<Compared, VerifyError> {
        let mut differing = Blocks::new();
        let mut windows = Vec::new();
        while let Some(window) = asked.recv().await {
            let answer = self.expect(&mut input, KIND_DIFF).await?;
            let diff = parse_diff(&answer.payload, window).map_err(|what| self.protocol(what))?;
            for write in diff.writes {
                let block = write.pos / BLOCK_BYTES;
                if self.todo.wants(block) {
                    let data = answer.payload.get(write.at..write.at + write.len);
                    let data = data.filter(|_| self.job.repair).unwrap_or_default();
                    differing.insert(block, data.to_vec());
                }
            }
            windows.push(window);
            self.progress.send_replace(self.todo.done(window));
            if differing.len() >= self.limits.blocks {
                self.full.store(true, Ordering::Relaxed);
            }
        }
        let end = self.expect(&mut input, KIND_END).await?;
        let end = ReplayPos::parse(&end.text());
        let end = end.map_err(|e| self.protocol(format!("end position: {e}")))?;
        Ok(Compared {
            windows,
            differing,
            end,
        })
    }

    async fn expect<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        input: &mut FrameReader<ReadHalf<S>>,
        kind: u8,
    ) -> Result<Frame, VerifyError> {
        loop {
            let next = input.next_within(self.job.silence).await;
            let frame = next.map_err(|e| VerifyError::stream(self.peer, &e))?;
            match frame.kind {
                k if k == kind => return Ok(frame),
                KIND_ALIVE => {}
                KIND_REFUSED => return Err(self.peer(frame.text())),
                other => {
                    return Err(self.protocol(format!("frame of kind {other} instead of {kind}")));
                }
            }
        }
    }

    fn peer(&self, why: String) -> VerifyError {
        let peer = self.peer.to_owned();
        VerifyError::Peer { peer, why }
    }

    fn protocol(&self, what: String) -> VerifyError {
        self.peer(format!("protocol error: {what}"))
    }
}
