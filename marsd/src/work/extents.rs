//! Turns the writes of a batch into the disk extents that its last writers leave behind, sorted and joined.

use std::collections::BTreeMap;
use std::ops::Range;

use super::as_u64;

/// One write: `len` bytes, which stand at `at` of the source buffer, go to byte `pos` of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Byte offset on the disk.
    pub pos: u64,
    /// Offset of the data in the source buffer.
    pub at: usize,
    /// Length in bytes.
    pub len: usize,
}

/// A contiguous range of the disk, put together from pieces of the source buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Byte offset on the disk.
    pub pos: u64,
    /// Length in bytes: the sum of the pieces.
    pub len: usize,
    /// Places in the source buffer, in disk order.
    pub pieces: Vec<Range<usize>>,
}

/// The effect of `writes`, applied in order, as disjoint extents of at most `max` bytes in disk order. A single
/// write that is longer than `max` stays whole.
pub fn coalesce(writes: &[Write], max: usize) -> Vec<Extent> {
    let mut map = Map::default();
    for write in writes {
        map.insert(*write);
    }
    let mut extents: Vec<Extent> = Vec::new();
    for (pos, (end, at)) in map.0 {
        let len = usize::try_from(end - pos).unwrap_or(usize::MAX);
        let piece = at..at.saturating_add(len);
        match extents.last_mut() {
            Some(e) if e.pos + as_u64(e.len) == pos && e.len + len <= max => {
                e.len += len;
                e.pieces.push(piece);
            }
            _ => extents.push(Extent {
                pos,
                len,
                pieces: vec![piece],
            }),
        }
    }
    extents
}

/// Disjoint ranges of the disk: start -> (end, offset in the source buffer).
#[derive(Debug, Default)]
struct Map(BTreeMap<u64, (u64, usize)>);

impl Map {
    fn insert(&mut self, write: Write) {
        let (start, end) = (write.pos, write.pos.saturating_add(as_u64(write.len)));
        if start == end {
            return;
        }
        if let Some((&s, &(e, at))) = self.0.range(..start).next_back()
            && e > start
        {
            self.0.insert(s, (start, at));
            self.keep_tail(s, e, at, end);
        }
        while let Some((&s, &(e, at))) = self.0.range(start..end).next() {
            self.0.remove(&s);
            self.keep_tail(s, e, at, end);
        }
        self.0.insert(start, (end, write.at));
    }

    /// Of the old range `s..e` only what lies behind `end` stays.
    fn keep_tail(&mut self, s: u64, e: u64, at: usize, end: u64) {
        if e > end {
            let skipped = usize::try_from(end - s).unwrap_or(usize::MAX);
            self.0.insert(end, (e, at.saturating_add(skipped)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK: usize = 300;

    fn naive(writes: &[Write], source: &[u8]) -> Vec<Option<u8>> {
        let mut disk = vec![None; DISK];
        for w in writes {
            for i in 0..w.len {
                disk[usize::try_from(w.pos).unwrap() + i] = Some(source[w.at + i]);
            }
        }
        disk
    }

    fn applied(extents: &[Extent], source: &[u8]) -> Vec<Option<u8>> {
        let mut disk = vec![None; DISK];
        for e in extents {
            let data: Vec<u8> = e
                .pieces
                .iter()
                .flat_map(|p| source[p.clone()].to_vec())
                .collect();
            assert_eq!(data.len(), e.len);
            for (i, byte) in data.into_iter().enumerate() {
                let old = disk[usize::try_from(e.pos).unwrap() + i].replace(byte);
                assert_eq!(old, None, "extents overlap");
            }
        }
        disk
    }

    proptest! {
        #[test]
        fn extents_do_what_the_writes_do_in_order(
            specs in prop::collection::vec((0usize..DISK, 0usize..40), 0..60), max in 1usize..100
        ) {
            let mut writes = Vec::new();
            let mut at = 0;
            for (pos, len) in specs {
                let len = len.min(DISK - pos);
                writes.push(Write { pos: as_u64(pos), at, len });
                at += len;
            }
            let source: Vec<u8> = (0..at).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
            let extents = coalesce(&writes, max);
            prop_assert_eq!(applied(&extents, &source), naive(&writes, &source));
            prop_assert!(extents.windows(2).all(|w| w[0].pos + as_u64(w[0].len) <= w[1].pos));
            prop_assert!(extents.iter().all(|e| e.len <= max || e.pieces.len() == 1));
        }
    }

    #[test]
    fn neighbours_are_joined_and_the_last_writer_wins() {
        let write = |pos, at| Write { pos, at, len: 512 };
        let extents = coalesce(&[write(512, 0), write(0, 512), write(512, 1024)], 4096);
        assert_eq!(extents.len(), 1);
        assert_eq!((extents[0].pos, extents[0].len), (0, 1024));
        assert_eq!(extents[0].pieces, [512..1024, 1024..1536]);
    }
}
