//! A sync of some ranges only: the list that the source sends, and the windows that the target asks for.
//!
//! The list travels in frames of [`KIND_RANGES`]: offset and length (eight bytes each) of every range; a frame without
//! any ends it. A source that cannot tell the ranges says why in [`KIND_NO_RANGES`], and everything is to be synced.

use tokio::io::AsyncWrite;

use super::as_u64;
use super::frame::{FrameError, get_u64, write_frame};
use super::sync_proto::{BLOCK, WINDOW, Window};

/// Source: ranges (offset 8, length 8), ascending; without any: that was all.
pub const KIND_RANGES: u8 = 7;
/// Source: why it has no list.
pub const KIND_NO_RANGES: u8 = 8;

/// Ranges of a disk: offset and length in bytes.
pub type Ranges = Vec<(u64, u64)>;

/// Ranges in one frame.
const PER_FRAME: usize = 65_536;

/// Sends the list, or why there is none.
pub(super) async fn send<S: AsyncWrite + Unpin>(
    output: &mut S,
    ranges: &Result<Ranges, String>,
) -> Result<(), FrameError> {
    let ranges = match ranges {
        Ok(ranges) => ranges,
        Err(why) => return write_frame(output, KIND_NO_RANGES, &[why.as_bytes()]).await,
    };
    for part in ranges.chunks(PER_FRAME) {
        let mut payload = Vec::with_capacity(part.len() * 16);
        for (pos, len) in part {
            payload.extend(pos.to_le_bytes());
            payload.extend(len.to_le_bytes());
        }
        write_frame(output, KIND_RANGES, &[&payload]).await?;
    }
    write_frame(output, KIND_RANGES, &[]).await
}

/// Takes the ranges of one frame into the list; false if it was the last.
pub(super) fn parse(payload: &[u8], size: u64, ranges: &mut Ranges) -> Result<bool, String> {
    if !payload.len().is_multiple_of(16) {
        return Err(format!("list of ranges with {} bytes", payload.len()));
    }
    for at in (0..payload.len()).step_by(16) {
        let (Some(pos), Some(len)) = (get_u64(payload, at), get_u64(payload, at + 8)) else {
            return Err("torn list of ranges".into());
        };
        let from = ranges.last().map_or(0, |(pos, len)| pos + len);
        let inside = pos.checked_add(len).is_some_and(|end| end <= size);
        if pos < from || len == 0 || !inside || pos % as_u64(BLOCK) != 0 {
            return Err(format!("range of {len} bytes at {pos} of a disk of {size}"));
        }
        ranges.push((pos, len));
    }
    Ok(!payload.is_empty())
}

/// The windows of the ranges and of everything from `tail` on, as far as they lie behind `start`.
pub(super) fn windows(ranges: &Ranges, tail: u64, start: u64, size: u64) -> Vec<Window> {
    let block = as_u64(BLOCK);
    let start = start - start % block;
    let tail = if tail >= size {
        size
    } else {
        tail - tail % block
    };
    let mut out = Vec::new();
    let before = ranges
        .iter()
        .map(|(pos, len)| (*pos, (pos + len).min(tail)));
    for (pos, end) in before.chain([(tail, size)]) {
        let mut pos = pos.max(start);
        while pos < end {
            let next = (pos - pos % as_u64(WINDOW) + as_u64(WINDOW)).min(end);
            out.push(Window {
                pos,
                len: super::as_len(next - pos, WINDOW),
            });
            pos = next;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const K64: u64 = 65536;

    #[test]
    fn windows_cover_the_ranges_and_the_tail_and_nothing_else() {
        let ranges = vec![(0, K64), (MIB - K64, 3 * K64), (5 * MIB, K64)];
        let all = |tail, start| -> Vec<(u64, u64)> {
            let windows = windows(&ranges, tail, start, 8 * MIB + 512);
            windows.iter().map(|w| (w.pos, as_u64(w.len))).collect()
        };
        let first = [(0, K64), (MIB - K64, K64), (MIB, 2 * K64), (5 * MIB, K64)];
        assert_eq!(all(8 * MIB + 512, 0), first);
        assert_eq!(
            all(u64::MAX, MIB + 4096 + 7)[0],
            (MIB + 4096, 2 * K64 - 4096)
        );
        let tail = [
            (0, K64),
            (MIB - K64, K64),
            (MIB, K64),
            (MIB + K64, MIB - K64),
        ];
        assert_eq!(all(MIB + K64 + 1, 0)[..4], tail);
        assert_eq!(all(MIB + K64, 0).last(), Some(&(8 * MIB, 512)));
    }

    #[tokio::test]
    async fn a_list_comes_back_and_nonsense_is_refused() {
        let many: Ranges = (0..70_000).map(|n| (n * 2 * K64, K64)).collect();
        let mut bytes = Vec::new();
        send(&mut bytes, &Ok(many.clone())).await.unwrap();
        let mut reader = crate::work::frame::FrameReader::new(&bytes[..]);
        let (mut got, size) = (Vec::new(), 140_000 * K64);
        while parse(&reader.next().await.unwrap().payload, size, &mut got).unwrap() {}
        assert_eq!(got, many);
        let bad = |pairs: &[u64], size| {
            let payload: Vec<u8> = pairs.iter().flat_map(|n| n.to_le_bytes()).collect();
            parse(&payload, size, &mut Vec::new()).is_err()
        };
        assert!(!bad(&[0, K64, K64, K64], 2 * K64));
        assert!(bad(&[0, K64], K64 - 1));
        assert!(bad(&[K64, K64, 0, K64], 9 * K64));
        assert!(bad(&[u64::MAX - 4095, 8192], u64::MAX));
        assert!(bad(&[0, 0], K64) && bad(&[7, K64], 9 * K64) && bad(&[7], K64));
    }
}
