//! Frames on a byte stream: a length (u32, little endian) and as many bytes; JSON messages in such frames.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest JSON message, in bytes.
pub const JSON_MAX: usize = 1 << 20;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side announces, or the caller has, too much.
    #[error("a frame of {len} bytes is longer than the {limit} allowed")]
    TooLong {
        /// Bytes.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The stream ended where more was needed.
    #[error("the stream ended early")]
    Ended,
    /// Not the JSON expected.
    #[error("cannot understand the message: {0}")]
    Json(#[from] serde_json::Error),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads one frame of at most `limit` bytes; `None` if the stream ended properly before it.
///
/// # Errors
/// Too long, ended in the middle, or the stream failed. Not cancel safe.
pub async fn read_frame<R>(reader: &mut R, limit: usize) -> Result<Option<Vec<u8>>, FrameError>
where
    R: AsyncRead + Unpin,
{
    let mut head = [0_u8; 4];
    let mut have = 0;
    while have < head.len() {
        match reader.read(&mut head[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(FrameError::Ended),
            n => have += n,
        }
    }
    let len = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if len > limit {
        return Err(FrameError::TooLong { len, limit });
    }
    let mut body = vec![0; len];
    match reader.read_exact(&mut body).await {
        Ok(_) => Ok(Some(body)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(FrameError::Ended),
        Err(e) => Err(e.into()),
    }
}

/// Writes one frame of at most `limit` bytes and flushes.
///
/// # Errors
/// Too long (nothing is written), or the stream failed. Not cancel safe.
pub async fn write_frame<W>(writer: &mut W, body: &[u8], limit: usize) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin,
{
    let too_long = || FrameError::TooLong {
        len: body.len(),
        limit,
    };
    if body.len() > limit {
        return Err(too_long());
    }
    let len = u32::try_from(body.len()).map_err(|_| too_long())?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(body);
    writer.write_all(&frame).await?;
    writer.flush().await?;
    Ok(())
}

/// Reads a JSON message of at most [`JSON_MAX`] bytes; `None` if the stream ended properly before it.
///
/// # Errors
/// As [`read_frame`], or the message is not a `T`.
pub async fn read_json<T, R>(reader: &mut R) -> Result<Option<T>, FrameError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin,
{
    match read_frame(reader, JSON_MAX).await? {
        Some(body) => Ok(Some(serde_json::from_slice(&body)?)),
        None => Ok(None),
    }
}

/// Reads a JSON message that must come.
///
/// # Errors
/// As [`read_json`], and [`FrameError::Ended`] if there is none.
pub async fn expect_json<T, R>(reader: &mut R) -> Result<T, FrameError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin,
{
    read_json(reader).await?.ok_or(FrameError::Ended)
}

/// Writes a JSON message of at most [`JSON_MAX`] bytes.
///
/// # Errors
/// As [`write_frame`].
pub async fn write_json<T, W>(writer: &mut W, message: &T) -> Result<(), FrameError>
where
    T: Serialize + Sync,
    W: AsyncWrite + Unpin,
{
    let body = serde_json::to_vec(message)?;
    write_frame(writer, &body, JSON_MAX).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_round_trip_and_the_end_is_clean_only_between_frames() {
        let mut wire = Vec::new();
        write_frame(&mut wire, b"abc", 3).await.unwrap();
        write_frame(&mut wire, b"", 3).await.unwrap();
        let mut reader = wire.as_slice();
        assert_eq!(read_frame(&mut reader, 3).await.unwrap().unwrap(), b"abc");
        assert_eq!(read_frame(&mut reader, 3).await.unwrap().unwrap(), b"");
        assert!(read_frame(&mut reader, 3).await.unwrap().is_none());
        for cut in [1, 3, 4, 6] {
            let got = read_frame(&mut &wire[..cut], 3).await;
            assert!(matches!(got, Err(FrameError::Ended)), "{cut}: {got:?}");
        }
    }

    #[tokio::test]
    async fn a_frame_beyond_the_limit_is_refused_on_both_sides() {
        let long = u32::MAX.to_le_bytes();
        assert!(matches!(
            read_frame(&mut &long[..], 10).await,
            Err(FrameError::TooLong { limit: 10, .. })
        ));
        let mut wire = Vec::new();
        let refused = write_frame(&mut wire, &[0; 11], 10).await;
        assert!(matches!(refused, Err(FrameError::TooLong { len: 11, .. })));
        assert!(wire.is_empty());
    }

    #[tokio::test]
    async fn bad_json_is_an_error_with_the_cause() {
        let mut wire = Vec::new();
        write_frame(&mut wire, b"{", 10).await.unwrap();
        let got = read_json::<u32, _>(&mut wire.as_slice()).await;
        let text = got.unwrap_err().to_string();
        assert!(text.contains("cannot understand the message: "), "{text}");
    }
}
