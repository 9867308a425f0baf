//! Builds one write to the log: headers and trailers in a buffer of its own, payloads where they stand; pure.

use core::ops::DerefMut;

use crate::log_format::{
    encode_header, encode_trailer, LogTime, Record, CODE_NEW_DATA, HEADER_LEN, OVERHEAD,
    TRAILER_LEN,
};
use crate::map::Slot;

/// Segments that one record may need: header, two pages, trailer.
pub const SEGMENTS_PER_RECORD: usize = 4;

/// A run of bytes of the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// In the buffer of headers and trailers.
    Meta {
        /// Byte offset.
        at: u32,
        /// Bytes.
        len: u32,
    },
    /// In a memory slot.
    Memory {
        /// The slot.
        slot: Slot,
        /// Byte offset in the slot.
        at: u32,
        /// Bytes.
        len: u32,
    },
}

impl Default for Segment {
    fn default() -> Self {
        Self::Meta { at: 0, len: 0 }
    }
}

/// Payload bytes of a record in one memory slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// The slot.
    pub slot: Slot,
    /// Byte offset in the slot.
    pub at: u32,
    /// Bytes.
    pub len: u32,
}

/// The write; see the module.
///
/// # Invariants
///
/// The segments, one behind the other, are `bytes` bytes: whole records.
#[derive(Debug)]
pub struct Batch<M, S> {
    meta: M,
    meta_len: usize,
    segments: S,
    segment_count: usize,
    bytes: u64,
}

impl<M, S> Batch<M, S>
where
    M: DerefMut<Target = [u8]>,
    S: DerefMut<Target = [Segment]>,
{
    /// An empty batch over these buffers.
    pub fn new(meta: M, segments: S) -> Self {
        Self {
            meta,
            meta_len: 0,
            segments,
            segment_count: 0,
            bytes: 0,
        }
    }

    /// Whether one more record fits.
    pub fn has_room(&self) -> bool {
        self.meta_len + OVERHEAD <= self.meta.len()
            && self.segment_count + SEGMENTS_PER_RECORD <= self.segments.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Length of the write in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The write, piece by piece.
    pub fn segments(&self) -> &[Segment] {
        &self.segments[..self.segment_count]
    }

    /// Headers and trailers.
    pub fn meta(&self) -> &[u8] {
        &self.meta
    }

    /// Forgets all records.
    pub fn clear(&mut self) {
        (self.meta_len, self.segment_count, self.bytes) = (0, 0, 0);
    }

    /// Appends a record for device offset `pos` whose payload is `parts` (at most two) with the checksum `crc`; the
    /// caller has asked [`Self::has_room`].
    pub fn push(&mut self, pos: u64, parts: &[Part], crc: u32, stamp: LogTime) {
        let len = parts.iter().map(|p| p.len).sum();
        let record = Record {
            stamp,
            written: stamp,
            pos,
            len,
            code: CODE_NEW_DATA,
            crc,
        };
        let mut header = [0; HEADER_LEN];
        encode_header(&mut header, &record);
        self.push_meta(&header);
        for part in parts {
            self.push_segment(Segment::Memory {
                slot: part.slot,
                at: part.at,
                len: part.len,
            });
        }
        let mut trailer = [0; TRAILER_LEN];
        encode_trailer(&mut trailer, &record);
        self.push_meta(&trailer);
        self.bytes += record.total_len() as u64;
    }

    fn push_meta(&mut self, bytes: &[u8]) {
        let at = self.meta_len;
        self.meta[at..at + bytes.len()].copy_from_slice(bytes);
        self.meta_len += bytes.len();
        // A trailer and the header behind it are one piece. All is far below 4 GiB.
        if let Some(Segment::Meta { len, .. }) = self.segments[..self.segment_count].last_mut() {
            *len += bytes.len() as u32;
            return;
        }
        self.push_segment(Segment::Meta {
            at: at as u32,
            len: bytes.len() as u32,
        });
    }

    fn push_segment(&mut self, segment: Segment) {
        self.segments[self.segment_count] = segment;
        self.segment_count += 1;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::log_format::{parse, Parsed};

    #[test]
    fn the_pieces_are_valid_records() {
        let memory: Vec<Vec<u8>> = (0..3u8).map(|n| vec![n + 1; 4096]).collect();
        let mut batch = Batch::new(vec![0; 300], vec![Segment::default(); 16]);
        let stamp = LogTime { secs: 5, nanos: 6 };
        let part = |slot, at, len| Part { slot, at, len };
        let writes = [
            (8192, vec![part(0, 0, 4096)]),
            (1024, vec![part(1, 1024, 3072), part(2, 0, 512)]),
            (512, vec![part(1, 512, 512)]),
        ];
        for (pos, parts) in &writes {
            assert!(batch.has_room());
            batch.push(*pos, parts, 0x1234, stamp);
        }
        assert!(!batch.has_room());
        let mut log = Vec::new();
        for segment in batch.segments() {
            match *segment {
                Segment::Meta { at, len } => {
                    log.extend_from_slice(&batch.meta()[at as usize..(at + len) as usize]);
                }
                Segment::Memory { slot, at, len } => {
                    log.extend_from_slice(&memory[slot as usize][at as usize..(at + len) as usize]);
                }
            }
        }
        assert_eq!(log.len() as u64, batch.bytes());
        // Trailer and next header are joined.
        assert_eq!(batch.segments().len(), 4 + 4);
        let mut rest = &log[..];
        for (pos, parts) in &writes {
            let Ok(Parsed::Record(record, payload)) = parse(rest, |_| 0x1234) else {
                panic!("no record");
            };
            assert_eq!((record.pos, record.stamp), (*pos, stamp));
            let expect: Vec<u8> = parts
                .iter()
                .flat_map(|p| vec![memory[p.slot as usize][0]; p.len as usize])
                .collect();
            assert_eq!(payload, expect);
            rest = &rest[record.total_len()..];
        }
        assert!(rest.is_empty());
        batch.clear();
        assert!(batch.is_empty() && batch.has_room() && batch.segments().is_empty());
    }
}
