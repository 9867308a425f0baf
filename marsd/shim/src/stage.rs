//! Builds the bytes of one log write: records one behind the other, beginning with the partial block before; pure.

use mars_core::Stamp;
use mars_core::log_format::{
    CODE_NEW_DATA, HEADER_LEN, LogTime, OVERHEAD, Record, TRAILER_LEN, encode_header,
    encode_trailer,
};

use crate::memory::copy_past_cache;

/// Alignment of log writes in bytes.
pub const LOG_ALIGN: u64 = 4096;

/// Payload of a record.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// These bytes.
    Data(&'a [u8]),
    /// These bytes of a large write, which is not read soon and would push out of the cache what is.
    Large(&'a [u8]),
    /// This many zero bytes.
    Zero(usize),
}

impl Payload<'_> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Data(data) | Self::Large(data) => data.len(),
            Self::Zero(len) => *len,
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the bytes `range` of it to `out`, which has the length of the range.
    pub fn copy(&self, range: std::ops::Range<usize>, out: &mut [u8]) {
        match self {
            Self::Data(data) => out.copy_from_slice(&data[range]),
            Self::Large(data) => copy_past_cache(&data[range], out),
            Self::Zero(_) => out.fill(0),
        }
    }

    /// CRC32C of it, which was copied to `copied`; taken where the bytes are in the cache.
    fn crc(&self, copied: &[u8]) -> u32 {
        match self {
            Self::Large(data) => crc_fast::crc32_iscsi(data),
            Self::Data(_) | Self::Zero(_) => crc_fast::crc32_iscsi(copied),
        }
    }
}

/// Fill state of a buffer whose first byte stands at the aligned stream position `base` of its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stage {
    /// Byte offset in the log of the first byte of the buffer; a multiple of [`LOG_ALIGN`].
    pub file_offset: u64,
    /// Bytes at the beginning that were written before (the partial block).
    pub carried: usize,
    /// Bytes in the buffer.
    pub filled: usize,
}

impl Stage {
    /// Continues a log of `end` bytes; the caller puts the bytes of the partial last block into the buffer.
    pub fn at(end: u64) -> Self {
        let carried = usize::try_from(end % LOG_ALIGN).unwrap_or(0);
        Self {
            file_offset: end - end % LOG_ALIGN,
            carried,
            filled: carried,
        }
    }

    /// Whether no record was added.
    pub fn is_empty(&self) -> bool {
        self.filled == self.carried
    }

    /// End of the records, as byte offset in the log.
    pub fn end(&self) -> u64 {
        self.file_offset + self.filled as u64
    }

    /// Length of the write in bytes, a multiple of [`LOG_ALIGN`].
    pub fn write_len(&self) -> usize {
        self.filled.next_multiple_of(4096)
    }

    /// Whether a record with `payload` bytes still fits into a buffer of `capacity` bytes.
    pub fn fits(&self, payload: usize, capacity: usize) -> bool {
        (self.filled + payload + OVERHEAD).next_multiple_of(4096) <= capacity
    }

    /// Appends a record for device offset `pos`; the caller has asked [`Stage::fits`].
    pub fn push(&mut self, buffer: &mut [u8], pos: u64, payload: Payload<'_>, stamp: Stamp) {
        let len = payload.len();
        let body = &mut buffer[self.filled..self.filled + len + OVERHEAD];
        let (head, rest) = body.split_at_mut(HEADER_LEN);
        let (data, tail) = rest.split_at_mut(len);
        payload.copy(0..len, data);
        let time = LogTime {
            secs: stamp.secs,
            nanos: stamp.nanos,
        };
        let record = Record {
            stamp: time,
            written: time,
            pos,
            // At most PAYLOAD_MAX.
            len: u32::try_from(len).unwrap_or(0),
            code: CODE_NEW_DATA,
            crc: payload.crc(data),
        };
        let mut header = [0; HEADER_LEN];
        encode_header(&mut header, &record);
        head.copy_from_slice(&header);
        let mut trailer = [0; TRAILER_LEN];
        encode_trailer(&mut trailer, &record);
        tail.copy_from_slice(&trailer);
        self.filled += len + OVERHEAD;
    }

    /// Closes the write: zeroes the padding behind the records of `buffer` and tells what the next one begins with:
    /// its carried bytes are the last ones of this one.
    #[must_use]
    pub fn close(&self, buffer: &mut [u8]) -> Self {
        buffer[self.filled..self.write_len()].fill(0);
        Self::at(self.end())
    }
}

#[cfg(test)]
mod tests {
    use mars_core::log_format::{Parsed, parse};

    use super::*;

    #[test]
    fn consecutive_writes_make_one_valid_log() {
        let mut log = vec![0xee; 64 * 1024];
        let mut buffers = [vec![0xaa; 16 * 1024], vec![0xbb; 16 * 1024]];
        let mut stage = Stage::at(0);
        let mut expect = Vec::new();
        for round in 0..12u64 {
            let [a, b] = &mut buffers;
            let (now, next) = if round % 2 == 0 { (a, b) } else { (b, a) };
            for n in 0..=round % 3 {
                let len = usize::try_from(512 + n * 1536).unwrap();
                let data = vec![u8::try_from(round * 7 + n).unwrap(); len];
                assert!(stage.fits(data.len(), now.len()));
                let pos = round * 8192;
                let payload = match n {
                    0 => Payload::Data(&data),
                    _ => Payload::Large(&data),
                };
                stage.push(now, pos, payload, Stamp::new(9, 1));
                expect.push((pos, data));
            }
            let following = stage.close(now);
            let from = stage.filled - following.carried;
            next[..following.carried].copy_from_slice(&now[from..stage.filled]);
            let at = usize::try_from(stage.file_offset).unwrap();
            log[at..at + stage.write_len()].copy_from_slice(&now[..stage.write_len()]);
            stage = following;
            assert!(stage.is_empty());
        }
        let mut at = 0;
        for (pos, data) in expect {
            let parsed = parse(&log[at..], crc_fast::crc32_iscsi).unwrap();
            let Parsed::Record(record, payload) = parsed else {
                panic!("{parsed:?} at {at}");
            };
            assert_eq!((record.pos, payload), (pos, &data[..]));
            at += record.total_len();
        }
        assert_eq!(at as u64, stage.end());
        let padded = at.next_multiple_of(4096);
        assert!(log[at..padded].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_full_buffer_refuses_and_zeroes_are_zero() {
        let mut buffer = vec![1; 8192];
        let mut stage = Stage::at(10_000);
        assert_eq!((stage.file_offset, stage.carried), (8192, 1808));
        assert!(stage.fits(4096, 8192));
        stage.push(&mut buffer, 0, Payload::Zero(4096), Stamp::default());
        assert!(!stage.fits(4096, 8192));
        assert!(buffer[1808 + 48..1808 + 48 + 4096].iter().all(|b| *b == 0));
    }
}
