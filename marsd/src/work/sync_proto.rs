//! The frames of sync and what they mean, without I/O: windows, digests, and which blocks differ.
//!
//! The target asks window after window with the digests of its own blocks; the source answers with a bitmap of the
//! blocks that differ, and their data. [`KIND_DONE`] asks for the log position from which the copy is consistent.

use super::as_u64;
use super::extents::Write;
use super::frame::{get_u32, get_u64};

/// Target: size of the resource (eight bytes). The first frame.
pub const KIND_BEGIN: u8 = 1;
/// Target: position (8), length (4), a digest per block.
pub const KIND_WINDOW: u8 = 2;
/// Target: everything is answered, which log position makes it consistent?
pub const KIND_DONE: u8 = 3;
/// Source: position (8), length (4), bitmap of differing blocks (lowest bit first), their data.
pub const KIND_DIFF: u8 = 4;
/// Source: the log position as text of a replay link.
pub const KIND_END: u8 = 5;
/// Source: still working.
pub const KIND_ALIVE: u8 = 6;

/// Bytes compared by one request.
pub const WINDOW: usize = 1024 * 1024;
/// Bytes compared by one digest.
pub const BLOCK: usize = 4096;
/// Bytes of a digest: BLAKE3, truncated.
pub const DIGEST: usize = 16;

const HEAD: usize = 12;

/// A range of the disk that is compared at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Byte offset on the disk.
    pub pos: u64,
    /// Length in bytes.
    pub len: usize,
}

impl Window {
    /// The window at `pos` of a disk of `size` bytes; `None` where no window begins.
    pub fn at(pos: u64, size: u64) -> Option<Self> {
        if !pos.is_multiple_of(as_u64(WINDOW)) || pos >= size {
            return None;
        }
        let len = super::as_len(size - pos, WINDOW);
        Some(Self { pos, len })
    }

    /// First byte behind it.
    pub fn end(&self) -> u64 {
        self.pos + as_u64(self.len)
    }

    /// Number of blocks, the last may be short.
    pub fn blocks(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }

    /// Any window that a request may name: begins at a block, ends at one or with the disk, and is no longer than
    /// [`WINDOW`].
    fn asked(pos: u64, len: u64, size: u64) -> Option<Self> {
        let end = pos.checked_add(len).filter(|end| *end <= size)?;
        let block = as_u64(BLOCK);
        let whole = pos.is_multiple_of(block) && (end % block == 0 || end == size);
        (whole && len > 0 && len <= as_u64(WINDOW)).then(|| Self {
            pos,
            len: super::as_len(len, WINDOW),
        })
    }

    fn head(&self) -> Vec<u8> {
        let mut head = self.pos.to_le_bytes().to_vec();
        // At most WINDOW.
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        head.extend(len.to_le_bytes());
        head
    }

    fn has_head(&self, payload: &[u8]) -> bool {
        let len = get_u32(payload, 8).and_then(|n| usize::try_from(n).ok());
        get_u64(payload, 0) == Some(self.pos) && len == Some(self.len)
    }
}

/// The digests of all blocks of `data`, one after the other.
pub fn digests(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len().div_ceil(BLOCK) * DIGEST);
    for block in data.chunks(BLOCK) {
        out.extend_from_slice(&digest(block));
    }
    out
}

fn digest(block: &[u8]) -> [u8; DIGEST] {
    let mut out = [0; DIGEST];
    let hash = blake3::hash(block);
    for (to, from) in out.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    out
}

/// Payload of a request for `window`, of which the target has `data`.
pub fn format_request(window: Window, data: &[u8]) -> Vec<u8> {
    let mut out = window.head();
    out.extend(digests(data));
    out
}

/// Reads a request about a disk of `size` bytes: the window and the digests of its blocks.
pub fn parse_request(payload: &[u8], size: u64) -> Result<(Window, &[u8]), String> {
    let pos = get_u64(payload, 0).ok_or("window request without a position")?;
    let len = get_u32(payload, 8).ok_or("window request without a length")?;
    let window = Window::asked(pos, u64::from(len), size).ok_or_else(|| {
        format!("no window of {len} bytes begins at byte {pos} of a disk of {size} bytes")
    })?;
    let digests = payload.get(HEAD..).unwrap_or_default();
    if !window.has_head(payload) || digests.len() != window.blocks() * DIGEST {
        return Err(format!("malformed request for the window at byte {pos}"));
    }
    Ok((window, digests))
}

/// Payload of the answer: of `data`, which the source has in `window`, the blocks whose digests are not `theirs`.
pub fn format_diff(window: Window, data: &[u8], theirs: &[u8]) -> Vec<u8> {
    let mut bitmap = vec![0u8; window.blocks().div_ceil(8)];
    let mut blocks = Vec::new();
    for (n, (block, their)) in data.chunks(BLOCK).zip(theirs.chunks(DIGEST)).enumerate() {
        if digest(block)[..] != *their {
            if let Some(byte) = bitmap.get_mut(n / 8) {
                *byte |= 1 << (n % 8);
            }
            blocks.extend_from_slice(block);
        }
    }
    let mut out = window.head();
    out.extend(bitmap);
    out.extend(blocks);
    out
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// The differing blocks; their data stands in the payload of the answer.
    pub writes: Vec<Write>,
    /// Blocks that were equal.
    pub ok_blocks: u64,
    /// Blocks that were not.
    pub bad_blocks: u64,
}

/// Reads the answer to the request for `window`.
pub fn parse_diff(payload: &[u8], window: Window) -> Result<Diff, String> {
    if !window.has_head(payload) {
        let pos = window.pos;
        return Err(format!(
            "the window at byte {pos} was to be answered, something else was"
        ));
    }
    let blocks = window.blocks();
    let mut at = HEAD + blocks.div_ceil(8);
    let bitmap = payload.get(HEAD..at).unwrap_or_default();
    let mut writes = Vec::new();
    for n in 0..blocks {
        let byte = bitmap.get(n / 8).copied().unwrap_or(0);
        if byte >> (n % 8) & 1 == 1 {
            let start = n * BLOCK;
            let len = (window.len - start).min(BLOCK);
            let pos = window.pos + as_u64(start);
            writes.push(Write { pos, at, len });
            at += len;
        }
    }
    if at != payload.len() {
        return Err(format!(
            "the answer for the window at byte {} has {} bytes instead of {at}",
            window.pos,
            payload.len()
        ));
    }
    let bad_blocks = as_u64(writes.len());
    Ok(Diff {
        ok_blocks: as_u64(blocks) - bad_blocks,
        bad_blocks,
        writes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_differing_blocks_travel_also_in_a_short_last_window() {
        let size = as_u64(WINDOW) + 3 * 4096 + 512;
        let window = Window::at(as_u64(WINDOW), size).unwrap();
        assert_eq!(
            (window.len, window.blocks(), window.end()),
            (3 * 4096 + 512, 4, size)
        );
        let mine = vec![1; window.len];
        let mut theirs = mine.clone();
        theirs[5000] = 2;
        theirs[3 * 4096 + 511] = 2;
        let request = format_request(window, &mine);
        let (parsed, digests) = parse_request(&request, size).unwrap();
        assert_eq!(parsed, window);
        let answer = format_diff(window, &theirs, digests);
        let diff = parse_diff(&answer, window).unwrap();
        assert_eq!((diff.ok_blocks, diff.bad_blocks), (2, 2));
        let mut result = mine;
        for w in diff.writes {
            let to = usize::try_from(w.pos).unwrap() - WINDOW;
            result[to..to + w.len].copy_from_slice(&answer[w.at..w.at + w.len]);
        }
        assert_eq!(result, theirs);
        assert!(parse_request(&request, size + 512).is_err());
        assert!(parse_diff(&answer[..answer.len() - 1], window).is_err());
        assert!(parse_diff(&request, window).is_err());
        assert_eq!(Window::at(512, size), None);
        assert_eq!(Window::at(as_u64(2 * WINDOW), size), None);
    }

    proptest! {
        #[test]
        fn hostile_payloads_are_errors_not_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let window = Window::at(0, 8192).unwrap();
            let _ = parse_request(&bytes, 8192);
            let mut answer = window.head();
            answer.extend(&bytes);
            if let Ok(diff) = parse_diff(&answer, window) {
                for w in diff.writes {
                    prop_assert!(w.at + w.len <= answer.len() && w.pos + as_u64(w.len) <= 8192);
                }
            }
        }
    }
}
