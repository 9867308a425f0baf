//! A stream that is read and written no faster than its limits allow.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::as_u64;
use super::rate::RateLimits;

/// Limits of a stream, by direction.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// What this node sends.
    pub sent: RateLimits,
    /// What it receives.
    pub received: RateLimits,
}

/// A stream under limits: after each portion the next one waits until it is due.
#[derive(Debug)]
pub struct Throttled<S> {
    inner: S,
    traffic: Traffic,
    read_pause: Option<Pin<Box<Sleep>>>,
    write_pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Throttled<S> {
    /// `inner` under the limits of `traffic`.
    pub fn new(inner: S, traffic: Traffic) -> Self {
        Self {
            inner,
            traffic,
            read_pause: None,
            write_pause: None,
        }
    }
}

/// Ready when the pause is over.
fn poll_pause(pause: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = pause {
        ready!(sleep.as_mut().poll(cx));
        *pause = None;
    }
    Poll::Ready(())
}

/// The pause behind a portion, if there is one.
fn pause_after(limits: &RateLimits, bytes: usize) -> Option<Pin<Box<Sleep>>> {
    let wait = limits.book(as_u64(bytes));
    (!wait.is_zero()).then(|| Box::pin(sleep(wait)))
}

impl<S: AsyncRead + Unpin> AsyncRead for Throttled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(poll_pause(&mut this.read_pause, cx));
        let (before, portion) = (buf.filled().len(), this.traffic.received.portion());
        let read = if portion >= buf.remaining() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(portion));
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part));
            let filled = part.filled().len();
            buf.advance(filled);
            read
        };
        this.read_pause = pause_after(&this.traffic.received, buf.filled().len() - before);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Throttled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(poll_pause(&mut this.write_pause, cx));
        let most = bytes.len().min(this.traffic.sent.portion());
        let part = bytes.get(..most).unwrap_or(bytes);
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, part));
        if let Ok(written) = written {
            this.write_pause = pause_after(&this.traffic.sent, written);
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::super::rate::RateLimit;
    use super::*;

    /// Sends `bytes` bytes and returns how long that took, with what the counters say.
    async fn send(sent: u64, received: u64, bytes: usize) -> (Duration, u64, u64) {
        let (near, far) = duplex(16 * 1024);
        let [out, into] = [sent, received].map(|rate| Arc::new(RateLimit::new(rate)));
        let traffic = |out: &Arc<RateLimit>, into: &Arc<RateLimit>| Traffic {
            sent: RateLimits::new([out.clone()]),
            received: RateLimits::new([into.clone()]),
        };
        let none = Arc::new(RateLimit::new(0));
        let mut writer = Throttled::new(near, traffic(&out, &none));
        let mut reader = Throttled::new(far, traffic(&none, &into));
        let data: Vec<u8> = (0..bytes).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let begin = Instant::now();
        let copy = data.clone();
        let sender = tokio::spawn(async move {
            writer.write_all(&copy).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        sender.await.unwrap();
        assert!(got == data);
        (begin.elapsed(), out.moved(), into.moved())
    }

    #[tokio::test(start_paused = true)]
    async fn each_side_keeps_its_limit_and_all_bytes_arrive() {
        let bytes = 1_000_000;
        for (sent, received) in [(100_000, 0), (0, 100_000), (100_000, 300_000)] {
            let (took, out, into) = send(sent, received, bytes).await;
            assert!(took >= Duration::from_secs(9), "{took:?}");
            assert!(took <= Duration::from_secs(11), "{took:?}");
            assert_eq!((out, into), (1_000_000, 1_000_000));
        }
        let (took, ..) = send(50_000, 0, bytes).await;
        assert!(took >= Duration::from_secs(19) && took <= Duration::from_secs(21));
    }
}
