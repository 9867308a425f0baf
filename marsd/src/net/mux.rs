//! Many streams on one connection: the task that drives yamux, and [`Stream`], which knows why it ended.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mars_core::HostName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, ConnectionError, Mode};

use super::error::NetError;

/// Streams per connection that the listening side allows; beyond it closes the connection.
const STREAMS_MAX: usize = 512;
/// Streams that the dialling side uses: less, because the other side notices the end of a stream later.
pub(super) const STREAMS_USED: usize = 384;
/// Bytes that a peer can make this node buffer, over all streams of one connection.
const WINDOW_MAX: usize = 256 << 20;
/// Bytes of one stream that are sent in one piece before others have their turn.
const PIECE: usize = 64 << 10;
const GOODBYE: Duration = Duration::from_secs(2);

/// State of a connection that outlives it.
#[derive(Debug)]
struct Status {
    peer: HostName,
    address: String,
    /// Why it ended. Locked while yamux is polled, so that a stream that yamux has ended finds the reason.
    reason: Mutex<Option<String>>,
    ended: watch::Sender<bool>,
}

impl Status {
    fn reason(&self) -> MutexGuard<'_, Option<String>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self) -> NetError {
        let reason = self.reason().clone();
        NetError::Closed {
            peer: self.peer.clone(),
            address: self.address.clone(),
            cause: reason.unwrap_or_else(|| "closed".into()),
        }
    }
}

enum Command {
    Open(oneshot::Sender<yamux::Stream>),
    Close(String),
}

/// Handle of a connection; when the last one and all streams are gone, the connection is closed.
#[derive(Debug)]
pub(super) struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    status: Arc<Status>,
}

impl Handle {
    pub(super) fn peer(&self) -> &HostName {
        &self.status.peer
    }

    /// Opens an outbound stream; nothing is sent yet.
    pub(super) async fn open(
        self: &Arc<Self>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Stream, NetError> {
        let (reply, opened) = oneshot::channel();
        // A failed send means a dropped `reply`, which is seen below.
        drop(self.commands.send(Command::Open(reply)));
        match opened.await {
            Ok(stream) => Ok(Stream::new(stream, Arc::clone(self), Some(slot))),
            Err(_) => Err(self.closed().await),
        }
    }

    /// Ends the connection; all its streams fail with `reason`.
    pub(super) fn close(&self, reason: impl Into<String>) {
        drop(self.commands.send(Command::Close(reason.into())));
    }

    /// Waits for the end of the connection and tells why.
    pub(super) async fn closed(&self) -> NetError {
        let mut ended = self.status.ended.subscribe();
        // The sender lives in the status, so this cannot fail.
        drop(ended.wait_for(|ended| *ended).await);
        self.status.error()
    }
}

/// Starts driving a connection. Inbound streams come out of the receiver. `revoked` closes it with the text it yields.
pub(super) fn start<T, R>(
    socket: T,
    mode: Mode,
    peer: HostName,
    address: String,
    revoked: R,
) -> (Arc<Handle>, mpsc::UnboundedReceiver<yamux::Stream>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Future<Output = String> + Send + 'static,
{
    let mut config = Config::default();
    config.set_max_num_streams(STREAMS_MAX);
    config.set_split_send_size(PIECE);
    config.set_max_connection_receive_window(Some(WINDOW_MAX));
    let status = Arc::new(Status {
        peer,
        address,
        reason: Mutex::new(None),
        ended: watch::Sender::new(false),
    });
    let (commands, queue) = mpsc::unbounded_channel();
    let (inbound, streams) = mpsc::unbounded_channel();
    let driver = Driver {
        yamux: Connection::new(socket.compat(), config, mode),
        commands: queue,
        opening: VecDeque::new(),
        inbound,
        status: Arc::clone(&status),
        _ending: Ending(Arc::clone(&status)),
    };
    tokio::spawn(driver.run(revoked));
    (Arc::new(Handle { commands, status }), streams)
}

struct Driver<T> {
    yamux: Connection<Compat<T>>,
    commands: mpsc::UnboundedReceiver<Command>,
    opening: VecDeque<oneshot::Sender<yamux::Stream>>,
    inbound: mpsc::UnboundedSender<yamux::Stream>,
    status: Arc<Status>,
    /// The last field: dropped when yamux is gone.
    _ending: Ending,
}

/// Tells the end of a connection, even if its driver panics.
struct Ending(Arc<Status>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0
            .reason()
            .get_or_insert_with(|| "its driver died".into());
        self.0.ended.send_replace(true);
    }
}

enum End {
    /// Nobody uses the connection any more: what was written is still sent.
    Unused,
    /// Now, with a reason.
    Now(String),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    async fn run(mut self, revoked: impl Future<Output = String>) {
        let mut revoked = pin!(revoked);
        let end = poll_fn(|cx| match revoked.as_mut().poll(cx) {
            Poll::Ready(reason) => Poll::Ready(End::Now(reason)),
            Poll::Pending => self.step(cx),
        })
        .await;
        let (reason, graceful) = match end {
            End::Unused => ("it was not used any more".to_owned(), true),
            End::Now(reason) => (reason, false),
        };
        self.status.reason().get_or_insert(reason);
        if graceful {
            let goodbye = poll_fn(|cx| self.yamux.poll_close(cx));
            // It ends anyway.
            drop(tokio::time::timeout(GOODBYE, goodbye).await);
        }
        // Dropping yamux with `self` wakes all streams, which find the reason.
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(Command::Open(reply))) => self.opening.push_back(reply),
                Poll::Ready(Some(Command::Close(reason))) => return Poll::Ready(End::Now(reason)),
                Poll::Ready(None) => return Poll::Ready(End::Unused),
                Poll::Pending => break,
            }
        }
        let status = Arc::clone(&self.status);
        let mut reason = status.reason();
        let end = ready!(self.poll_yamux(cx));
        reason.get_or_insert(end.clone());
        Poll::Ready(End::Now(end))
    }

    /// Opens and accepts streams and moves bytes, until the connection ends.
    fn poll_yamux(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        while !self.opening.is_empty() {
            match self.yamux.poll_new_outbound(cx) {
                Poll::Ready(Ok(stream)) => {
                    if let Some(reply) = self.opening.pop_front() {
                        // If nobody waits any more, the stream is dropped, which resets it.
                        drop(reply.send(stream));
                    }
                }
                Poll::Ready(Err(e)) => return Poll::Ready(explain(&e)),
                Poll::Pending => break,
            }
        }
        loop {
            match ready!(self.yamux.poll_next_inbound(cx)) {
                // If this side does not serve, the stream is dropped, which resets it.
                Some(Ok(stream)) => drop(self.inbound.send(stream)),
                Some(Err(e)) => return Poll::Ready(explain(&e)),
                None => return Poll::Ready("the peer closed it".into()),
            }
        }
    }
}

fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            "the peer closed it without notice".into()
        }
        ConnectionError::Io(e) => e.to_string(),
        ConnectionError::Closed => "the peer closed it".into(),
        other => format!("protocol error: {other}"),
    }
}

/// One stream of a connection.
///
/// A proper end (`shutdown` on the other side) reads as end of file; if the peer gives the stream up by dropping it,
/// or the connection ends, reading and writing fail with the reason. After an own `shutdown` the two cannot always be
/// told apart: messages must say by themselves that they are complete.
#[derive(Debug)]
pub struct Stream {
    inner: Compat<yamux::Stream>,
    handle: Arc<Handle>,
    finished: bool,
    /// Limits the streams of the dialling side.
    _slot: Option<OwnedSemaphorePermit>,
}

impl Stream {
    pub(super) fn new(
        stream: yamux::Stream,
        handle: Arc<Handle>,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            inner: stream.compat(),
            handle,
            finished: false,
            _slot: slot,
        }
    }

    /// The node at the other end.
    pub fn peer(&self) -> &HostName {
        self.handle.peer()
    }

    pub(super) fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }

    /// Why there is no more, if it is not a proper end.
    fn broken(&self) -> Option<io::Error> {
        let status = &self.handle.status;
        let ended = status.reason().is_some();
        if ended {
            return Some(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                status.error().to_string(),
            ));
        }
        let reset = !self.finished && self.inner.get_ref().is_closed();
        reset.then(|| {
            let peer = &status.peer;
            io::Error::new(
                io::ErrorKind::ConnectionReset,
                format!("{peer} gave up this stream"),
            )
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let wanted = buf.remaining();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        let nothing = wanted > 0 && buf.filled().len() == before;
        if (read.is_err() || nothing)
            && let Some(broken) = self.broken()
        {
            return Poll::Ready(Err(broken));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        Poll::Ready(written.map_err(|e| self.broken().unwrap_or(e)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(flushed.map_err(|e| self.broken().unwrap_or(e)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        let shut = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
        match shut {
            Ok(()) => {
                self.finished = true;
                Poll::Ready(Ok(()))
            }
            Err(e) => Poll::Ready(Err(self.broken().unwrap_or(e))),
        }
    }
}
