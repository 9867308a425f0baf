//! The serving side of fetch: sends a logfile as far as it is durable, and follows it while it grows.
//!
//! Frames: data ([`KIND_DATA`]: position, bytes), end ([`KIND_END`]: length of the complete log), heartbeat
//! ([`KIND_ALIVE`]) and refusal; the client sends nothing but a refusal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::board::LogState;
use super::disk::{AlignedBuf, Disk};
use super::frame::{FrameError, FrameReader, KIND_REFUSED, refuse, write_frame};
use super::rate::RateLimits;
use super::{as_len, as_u64, blocking};

/// Eight bytes position, then log bytes.
pub const KIND_DATA: u8 = 1;
/// Eight bytes: length of the complete log, all of which was sent.
pub const KIND_END: u8 = 2;
/// Nothing new.
pub const KIND_ALIVE: u8 = 3;
/// Log bytes in one frame.
pub const DATA_MAX: usize = 256 * 1024;
/// Less than this waits a little for more: each frame costs both nodes the same, however small it is ...
const GATHER_BELOW: u64 = 64 * 1024;
/// ... until so long after the last one.
const GATHER: Duration = Duration::from_millis(10);
/// An idle server shows that it lives this often.
pub const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// How serving a log or a disk came to its normal end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServeEnd {
    /// The log is complete and all of it was sent.
    Complete,
    /// The client closed the connection.
    PeerGone,
    /// Cancelled on this side.
    Cancelled,
}

/// Why serving a log failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Our own file cannot be read; the client was told.
    #[error("cannot read {} at byte {pos}: {cause}", path.display())]
    File {
        /// The logfile or disk.
        path: PathBuf,
        /// Where.
        pos: u64,
        /// Why.
        cause: io::Error,
    },
    /// The request cannot be served; the client was told.
    #[error("refused to serve {}: {why}", path.display())]
    Refused {
        /// The logfile or disk.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The client gave a reason for stopping.
    #[error("the peer stopped reading {}: {why}", path.display())]
    Peer {
        /// The logfile or disk.
        path: PathBuf,
        /// Its words.
        why: String,
    },
    /// The client sent something that does not belong here.
    #[error("protocol error of the peer while serving {}: {what}", path.display())]
    Protocol {
        /// The logfile or disk.
        path: PathBuf,
        /// What it sent.
        what: String,
    },
    /// The connection failed.
    #[error("serving {}: {cause}", path.display())]
    Stream {
        /// The logfile or disk.
        path: PathBuf,
        /// Why.
        cause: FrameError,
    },
}

/// Sends the log at `path` from byte `from` on, never beyond what `state` calls durable and no faster than `io` allows
/// to read it, until it is complete.
pub async fn serve_fetch<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    path: &Path,
    from: u64,
    state: watch::Receiver<LogState>,
    io: RateLimits,
) -> Result<ServeEnd, ServeError> {
    serve_with(stream, path, from, state, io, ALIVE_EVERY).await
}

pub(crate) async fn serve_with<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    path: &Path,
    from: u64,
    state: watch::Receiver<LogState>,
    io: RateLimits,
    alive_every: Duration,
) -> Result<ServeEnd, ServeError> {
    let (input, output) = tokio::io::split(stream);
    let mut server = Server {
        path: path.to_path_buf(),
        input: FrameReader::new(input),
        output,
        state,
        io,
        at: from,
        sent_at: None,
        buffer: AlignedBuf::default(),
        alive_every,
    };
    let result = server.run().await;
    let why = match &result {
        Err(ServeError::Refused { why, .. }) => why.clone(),
        Err(e @ ServeError::File { .. }) => e.to_string(),
        _ => return result,
    };
    // The client may be gone already; our own error is the one that counts.
    let _ = refuse(&mut server.output, &why).await;
    result
}

struct Server<S> {
    path: PathBuf,
    input: FrameReader<ReadHalf<S>>,
    output: WriteHalf<S>,
    state: watch::Receiver<LogState>,
    io: RateLimits,
    /// Next byte to send.
    at: u64,
    sent_at: Option<Instant>,
    buffer: AlignedBuf,
    alive_every: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Server<S> {
    async fn run(&mut self) -> Result<ServeEnd, ServeError> {
        let path = self.path.clone();
        // Past the page cache, if its writer goes past it too: nobody reads it again, but perhaps another secondary.
        let open = move || Disk::open_shared(&path, 0).map_err(|e| e.cause);
        let opened = blocking(open).await.map_err(|e| self.file_error(e))?;
        let log = Arc::new(opened.without_readahead());
        loop {
            let now = *self.state.borrow_and_update();
            if let Some(due) = self.gathering(now) {
                tokio::time::sleep_until(due).await;
                continue;
            }
            let sent = if self.at < now.durable {
                self.send_data(&log, now.durable).await?
            } else if now.complete && self.at > now.durable {
                return Err(self.too_long(now.durable));
            } else if now.complete {
                return self.send_end().await;
            } else {
                None
            };
            let gone = match sent {
                Some(result) => self.stream_result(result)?,
                None => self.wait().await?,
            };
            if let Some(end) = gone {
                return Ok(end);
            }
        }
    }

    /// Until when more is waited for.
    fn gathering(&self, now: LogState) -> Option<Instant> {
        let is_little = self.at < now.durable && now.durable - self.at < GATHER_BELOW;
        let due = self.sent_at? + GATHER;
        (is_little && !now.complete && Instant::now() < due).then_some(due)
    }

    async fn send_data(
        &mut self,
        log: &Arc<Disk>,
        durable: u64,
    ) -> Result<Option<Result<(), FrameError>>, ServeError> {
        let (log, at) = (Arc::clone(log), self.at);
        let mut buffer = std::mem::take(&mut self.buffer);
        let len = as_len(durable - at, DATA_MAX);
        let read = move || {
            let place = log.read_into(at, len, &mut buffer).map_err(|e| e.cause)?;
            Ok((buffer, place))
        };
        let (buffer, place) = blocking(read).await.map_err(|e| self.file_error(e))?;
        let parts = [&at.to_le_bytes(), &buffer[place]];
        let sent = write_frame(&mut self.output, KIND_DATA, &parts).await;
        let len = as_u64(len);
        self.at += len;
        self.sent_at = Some(Instant::now());
        self.buffer = buffer;
        match sent {
            Ok(()) => Ok(Some(self.pause(len).await)),
            failed => Ok(Some(failed)),
        }
    }

    /// Waits as long as the limit of reading wants, and shows that we live.
    async fn pause(&mut self, read: u64) -> Result<(), FrameError> {
        let due = Instant::now() + self.io.book(read);
        loop {
            let next = due.min(Instant::now() + self.alive_every);
            tokio::time::sleep_until(next).await;
            if next >= due {
                return Ok(());
            }
            write_frame(&mut self.output, KIND_ALIVE, &[]).await?;
        }
    }

    async fn send_end(&mut self) -> Result<ServeEnd, ServeError> {
        let sent = write_frame(&mut self.output, KIND_END, &[&self.at.to_le_bytes()]).await;
        if let Some(gone) = self.stream_result(sent)? {
            return Ok(gone);
        }
        let closed = self.output.shutdown().await;
        let closed = closed.map_err(FrameError::Io);
        Ok(self.stream_result(closed)?.unwrap_or(ServeEnd::Complete))
    }

    /// Waits for news of the log, shows that we live, and notices that the client has gone.
    async fn wait(&mut self) -> Result<Option<ServeEnd>, ServeError> {
        tokio::select! {
            changed = self.state.changed() => match changed {
                Ok(()) => Ok(None),
                Err(_) => Err(ServeError::Refused {
                    path: self.path.clone(),
                    why: "the logfile is not offered any more (deleted or detached)".into(),
                }),
            },
            frame = self.input.next() => self.client_said(frame),
            () = tokio::time::sleep(self.alive_every) => {
                let sent = write_frame(&mut self.output, KIND_ALIVE, &[]).await;
                self.stream_result(sent)
            }
        }
    }

    fn client_said(
        &self,
        frame: Result<super::frame::Frame, FrameError>,
    ) -> Result<Option<ServeEnd>, ServeError> {
        let path = self.path.clone();
        match frame {
            Ok(f) if f.kind == KIND_REFUSED => Err(ServeError::Peer {
                path,
                why: f.text(),
            }),
            Ok(f) => Err(ServeError::Protocol {
                path,
                what: format!("frame of kind {} from a client that only reads", f.kind),
            }),
            Err(e) => self.stream_result(Err(e)),
        }
    }

    /// A connection that the client closed or reset is a normal end.
    fn stream_result(
        &self,
        result: Result<(), FrameError>,
    ) -> Result<Option<ServeEnd>, ServeError> {
        match result {
            Ok(()) => Ok(None),
            Err(e) if e.is_gone() => Ok(Some(ServeEnd::PeerGone)),
            Err(cause) => Err(ServeError::Stream {
                path: self.path.clone(),
                cause,
            }),
        }
    }

    fn too_long(&self, mine: u64) -> ServeError {
        ServeError::Refused {
            path: self.path.clone(),
            why: format!("your copy is longer than mine: {} > {mine} bytes", self.at),
        }
    }

    fn file_error(&self, cause: io::Error) -> ServeError {
        ServeError::File {
            path: self.path.clone(),
            pos: self.at,
            cause,
        }
    }
}
