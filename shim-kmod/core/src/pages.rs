//! Pages and sectors: how a write falls into them, and which pieces of a page are written back; pure.

/// Bytes of a page, and of a slot.
pub const PAGE: u64 = 4096;
/// Bytes of a sector, the smallest unit of a write.
pub const SECTOR: u64 = 512;
const SECTORS_PER_PAGE: u64 = PAGE / SECTOR;

/// The part of a write that goes to one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Number of the page.
    pub page: u64,
    /// Bit n: sector n of the page is written.
    pub mask: u8,
    /// Byte offset in the page.
    pub at: u32,
    /// Length in bytes.
    pub len: u32,
}

/// The pages that `pos..pos + len` touches (both multiples of [`SECTOR`]).
pub fn split_pages(pos: u64, len: u64) -> impl Iterator<Item = Piece> {
    let end = pos + len;
    (pos / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let from = pos.max(page * PAGE);
        let to = end.min((page + 1) * PAGE);
        // Both at most PAGE.
        let (at, len) = ((from % PAGE) as u32, (to - from) as u32);
        Piece {
            page,
            mask: sector_mask(u64::from(at) / SECTOR, u64::from(len) / SECTOR),
            at,
            len,
        }
    })
}

fn sector_mask(first: u64, count: u64) -> u8 {
    if count >= SECTORS_PER_PAGE {
        u8::MAX
    } else {
        ((1u8 << count) - 1) << first
    }
}

/// The contiguous pieces of a page that is written back: byte offset in the page and length in bytes.
pub fn runs_of(mask: u8) -> impl Iterator<Item = (u32, u32)> {
    let mut sector = 0u32;
    core::iter::from_fn(move || {
        while sector < 8 && mask & (1 << sector) == 0 {
            sector += 1;
        }
        let first = sector;
        while sector < 8 && mask & (1 << sector) != 0 {
            sector += 1;
        }
        (sector > first).then_some((first * 512, (sector - first) * 512))
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_write_falls_into_pages() {
        let all: Vec<_> = split_pages(4096 - 512, 1536).collect();
        let piece = |page, mask, at, len| Piece {
            page,
            mask,
            at,
            len,
        };
        assert_eq!(all, [piece(0, 0x80, 3584, 512), piece(1, 0x03, 0, 1024)]);
        assert_eq!(
            split_pages(8192, 4096).collect::<Vec<_>>(),
            [piece(2, 0xff, 0, 4096)]
        );
        assert_eq!(
            runs_of(0b1110_0101).collect::<Vec<_>>(),
            [(0, 512), (1024, 512), (2560, 1536)]
        );
    }
}
