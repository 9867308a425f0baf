//! Frames of bulk data on a stream: one byte kind, four bytes little-endian length, payload.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::as_u64;

/// Largest payload of a frame in bytes.
pub const FRAME_MAX: usize = 4 * 1024 * 1024;
/// Bytes before the payload.
const HEAD: usize = 5;

/// A frame is expected to be as long as the last one, within these bounds in bytes.
const EXPECTED: (usize, usize) = (64 * 1024, 512 * 1024);

/// Bytes that a stream gives at once, mostly.
const PIECE: usize = 64 * 1024;

/// The sender refuses or gives up; the payload says why, in words.
pub const KIND_REFUSED: u8 = 0x7f;

/// One frame as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is; the numbers belong to the protocol that uses it.
    pub kind: u8,
    /// At most [`FRAME_MAX`] bytes.
    pub payload: Bytes,
}

impl Frame {
    /// The payload as words for people, shortened, without control characters.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.payload);
        text.chars().filter(|c| !c.is_control()).take(500).collect()
    }
}

/// Why no further frame could be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the stream between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// The other side closed the stream inside a frame.
    #[error("the peer closed the connection in the middle of a frame")]
    Torn,
    /// A length beyond [`FRAME_MAX`].
    #[error("frame of kind {kind} announces {len} bytes, more than the limit of {FRAME_MAX}")]
    TooLong {
        /// Kind of the frame.
        kind: u8,
        /// Its announced length in bytes.
        len: u64,
    },
    /// The other side sends nothing at all.
    #[error("nothing was heard from the peer for {} s", .0.as_secs())]
    Silent(Duration),
    /// The stream failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// Whether the other side has closed or reset the connection, at whatever point.
    pub fn is_gone(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof, WriteZero};
        match self {
            Self::Closed | Self::Torn => true,
            Self::Io(e) => matches!(
                e.kind(),
                BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof | WriteZero
            ),
            Self::Silent(_) | Self::TooLong { .. } => false,
        }
    }
}

/// Reads frames; `next` loses nothing when its future is dropped.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buf: BytesMut,
    /// Room to make for the next frame.
    expected: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from `stream`.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            buf: BytesMut::new(),
            expected: EXPECTED.0,
        }
    }

    /// The next frame; cancel-safe.
    pub async fn next(&mut self) -> Result<Frame, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The next frame; gives up when not a single byte comes for `silence`. Cancel-safe.
    pub async fn next_within(&mut self, silence: Duration) -> Result<Frame, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            let filled = tokio::time::timeout(silence, self.fill()).await;
            filled.unwrap_or(Err(FrameError::Silent(silence)))?;
        }
    }

    async fn fill(&mut self) -> Result<(), FrameError> {
        // The stream clears what it is given, and has no more than this.
        let mut room = (&mut self.buf).limit(PIECE);
        if self.stream.read_buf(&mut room).await? > 0 {
            return Ok(());
        }
        Err(match self.buf.is_empty() {
            true => FrameError::Closed,
            false => FrameError::Torn,
        })
    }

    fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.buf.first_chunk::<HEAD>() else {
            self.buf.reserve(self.expected);
            return Ok(None);
        };
        let kind = head[0];
        let announced = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let len = usize::try_from(announced).unwrap_or(usize::MAX);
        if len > FRAME_MAX {
            return Err(FrameError::TooLong {
                kind,
                len: u64::from(announced),
            });
        }
        let whole = HEAD + len;
        if self.buf.len() < whole {
            self.buf.reserve(whole - self.buf.len());
            return Ok(None);
        }
        self.expected = whole.clamp(EXPECTED.0, EXPECTED.1);
        self.buf.advance(HEAD);
        let payload = self.buf.split_to(len).freeze();
        if self.buf.is_empty() {
            // The memory belongs to the frame now.
            self.buf = BytesMut::new();
        }
        Ok(Some(Frame { kind, payload }))
    }
}

/// Writes one frame whose payload is `parts` one after the other, and flushes the stream.
pub async fn write_frame<W: AsyncWrite + Unpin>(
    stream: &mut W,
    kind: u8,
    parts: &[&[u8]],
) -> Result<(), FrameError> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let announced = match u32::try_from(len) {
        Ok(n) if len <= FRAME_MAX => n,
        _ => {
            let len = as_u64(len);
            return Err(FrameError::TooLong { kind, len });
        }
    };
    let mut head = [kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&announced.to_le_bytes());
    stream.write_all(&head).await?;
    for part in parts {
        stream.write_all(part).await?;
    }
    stream.flush().await?;
    Ok(())
}

/// Tells the other side why nothing more will come, and closes our direction.
pub async fn refuse<W: AsyncWrite + Unpin>(stream: &mut W, why: &str) -> Result<(), FrameError> {
    write_frame(stream, KIND_REFUSED, &[why.as_bytes()]).await?;
    stream.shutdown().await?;
    Ok(())
}

/// Reads eight little-endian bytes at `at`.
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(part.try_into().ok()?))
}

/// Reads four little-endian bytes at `at`.
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let rt = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        rt.block_on(work)
    }

    async fn read_all(bytes: &[u8]) -> (Vec<Frame>, FrameError) {
        let mut reader = FrameReader::new(bytes);
        let mut frames = Vec::new();
        loop {
            match reader.next().await {
                Ok(frame) => frames.push(frame),
                Err(e) => return (frames, e),
            }
        }
    }

    #[test]
    fn frames_survive_every_cut_of_the_stream() {
        let mut bytes = Vec::new();
        block_on(async {
            write_frame(&mut bytes, 1, &[b"ab", b"cd"]).await.unwrap();
            write_frame(&mut bytes, 2, &[]).await.unwrap();
        });
        let (frames, end) = block_on(read_all(&bytes));
        let kinds: Vec<_> = frames.iter().map(|f| (f.kind, &f.payload[..])).collect();
        assert_eq!(kinds, [(1, &b"abcd"[..]), (2, &b""[..])]);
        assert!(matches!(end, FrameError::Closed));
        for cut in 1..bytes.len() {
            let (frames, end) = block_on(read_all(&bytes[..cut]));
            assert_eq!(frames.len(), usize::from(cut >= 9), "cut {cut}");
            assert_eq!(matches!(end, FrameError::Closed), cut == 9, "cut {cut}");
        }
    }

    #[test]
    fn too_long_frames_are_refused_on_both_sides() {
        let bytes = [9, 1, 0, 0x40, 0];
        let (_, end) = block_on(read_all(&bytes));
        assert!(matches!(
            end,
            FrameError::TooLong {
                kind: 9,
                len: 0x40_0001
            }
        ));
        let long = vec![0; FRAME_MAX + 1];
        let sent = block_on(write_frame(&mut Vec::new(), 1, &[&long]));
        assert!(matches!(sent, Err(FrameError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            block_on(read_all(&bytes));
        }
    }
}
