//! The map of what was written past the logs: regions of the device, and how they stand in the file `.unlogged`
//! (`symlink-spec.md` section 8.6).
//!
//! The file is one header block and as many map blocks as the device needs. Each block has its own checksum, so that a
//! torn or damaged one is noticed; then nothing of the file is believed.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Bytes of the device that one bit stands for.
pub const REGION_BYTES: u64 = 64 * 1024;
/// Bytes of a block of the file.
pub const BLOCK_LEN: usize = 4096;
/// Bytes of bits in a map block.
const BITS_LEN: usize = 4080;
/// Regions of a map block.
const REGIONS_PER_BLOCK: u64 = 8 * BITS_LEN as u64;
const BITS_AT: usize = 8;
const SUM_AT: usize = BLOCK_LEN - 4;
const MAGIC: &[u8; 8] = b"MARSPAST";
const VERSION: u32 = 1;

/// A checksum function; CRC-32C.
pub type Sum = fn(&[u8]) -> u32;
/// A block of the file.
pub type Block = [u8; BLOCK_LEN];

/// Why a block is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The checksum is wrong.
    #[error("wrong checksum")]
    Checksum,
    /// It is no block of this kind and version.
    #[error("wrong kind or version")]
    Kind,
    /// It stands in the wrong place.
    #[error("wrong place")]
    Place,
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Size of the device in bytes for which there are bits.
    pub size_bytes: u64,
    /// The first gap (number of a log that was never written) that the bits cover, with all later ones; 0: none.
    pub first_gap: u64,
    /// Something could not be noted: the map is worth nothing.
    pub lost: bool,
}

impl Header {
    /// Whether the bits tell all that was written past the logs in the place of log `gap`.
    pub fn covers(&self, gap: u64) -> bool {
        !self.lost && self.first_gap != 0 && self.first_gap <= gap
    }

    /// The header block.
    pub fn format(&self, sum: Sum) -> Block {
        let mut out = [0; BLOCK_LEN];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&u32::from(self.lost).to_le_bytes());
        out[16..24].copy_from_slice(&REGION_BYTES.to_le_bytes());
        out[24..32].copy_from_slice(&self.size_bytes.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_gap.to_le_bytes());
        seal(&mut out, sum);
        out
    }

    /// Reads a header block.
    pub fn parse(block: &Block, sum: Sum) -> Result<Self, Damage> {
        check(block, sum)?;
        let known = block[..8] == *MAGIC && number(block, 16) == REGION_BYTES;
        if !known || block[8..12] != VERSION.to_le_bytes() {
            return Err(Damage::Kind);
        }
        Ok(Self {
            size_bytes: number(block, 24),
            first_gap: number(block, 32),
            lost: block[12..16] != [0; 4],
        })
    }
}

/// A set of regions of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    size_bytes: u64,
    bits: Vec<u8>,
}

impl Regions {
    /// The empty set for a device of `size_bytes`.
    pub fn new(size_bytes: u64) -> Self {
        let blocks = usize::try_from(map_blocks(size_bytes)).unwrap_or(0);
        Self {
            size_bytes,
            bits: vec![0; blocks * BITS_LEN],
        }
    }

    /// Size of the device in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Grows to a device of `size_bytes`; what is new is not in the set.
    pub fn grow(&mut self, size_bytes: u64) {
        if size_bytes > self.size_bytes {
            let blocks = usize::try_from(map_blocks(size_bytes)).unwrap_or(0);
            self.bits.resize(blocks * BITS_LEN, 0);
            self.size_bytes = size_bytes;
        }
    }

    /// Takes all regions out.
    pub fn clear(&mut self) {
        self.bits.fill(0);
    }

    /// Puts a region in; false if the device has no such region.
    pub fn insert(&mut self, region: u64) -> bool {
        let Some(byte) = place(region).and_then(|n| self.bits.get_mut(n)) else {
            return false;
        };
        *byte |= 1 << (region % 8);
        region < self.size_bytes.div_ceil(REGION_BYTES)
    }

    /// Whether a region is in the set.
    pub fn contains(&self, region: u64) -> bool {
        let byte = place(region).and_then(|n| self.bits.get(n));
        byte.is_some_and(|b| b >> (region % 8) & 1 == 1)
    }

    /// The regions as ranges of the device in ascending order, neighbours joined: offset and length in bytes.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let mut out: Vec<(u64, u64)> = Vec::new();
        for (n, byte) in self.bits.iter().enumerate().filter(|(_, b)| **b != 0) {
            for region in (0..8)
                .filter(|bit| byte >> bit & 1 == 1)
                .map(|bit| n as u64 * 8 + bit)
            {
                let from = region * REGION_BYTES;
                let len = REGION_BYTES.min(self.size_bytes.saturating_sub(from));
                match out.last_mut() {
                    Some((pos, before)) if *pos + *before == from => *before += len,
                    _ if len > 0 => out.push((from, len)),
                    _ => {}
                }
            }
        }
        out
    }

    /// Map block `n`, counted from 0 behind the header.
    pub fn format_block(&self, n: u64, sum: Sum) -> Block {
        let mut out = [0; BLOCK_LEN];
        out[..BITS_AT].copy_from_slice(&n.to_le_bytes());
        let at = usize::try_from(n)
            .unwrap_or(usize::MAX)
            .saturating_mul(BITS_LEN);
        if let Some(bits) = self.bits.get(at..at.saturating_add(BITS_LEN)) {
            out[BITS_AT..BITS_AT + BITS_LEN].copy_from_slice(bits);
        }
        seal(&mut out, sum);
        out
    }

    /// Takes over what map block `n` says.
    pub fn parse_block(&mut self, n: u64, block: &Block, sum: Sum) -> Result<(), Damage> {
        check(block, sum)?;
        let at = usize::try_from(n)
            .unwrap_or(usize::MAX)
            .saturating_mul(BITS_LEN);
        let bits = self.bits.get_mut(at..at.saturating_add(BITS_LEN));
        let (Some(bits), true) = (bits, number(block, 0) == n) else {
            return Err(Damage::Place);
        };
        bits.copy_from_slice(&block[BITS_AT..BITS_AT + BITS_LEN]);
        Ok(())
    }
}

/// The regions that `len` bytes at `offset` touch; of nothing, the region where it would stand.
pub fn regions_of(offset: u64, len: u64) -> RangeInclusive<u64> {
    let last = offset.saturating_add(len.max(1) - 1);
    offset / REGION_BYTES..=last / REGION_BYTES
}

/// Map blocks of a device of `size_bytes`.
pub fn map_blocks(size_bytes: u64) -> u64 {
    size_bytes
        .div_ceil(REGION_BYTES)
        .div_ceil(REGIONS_PER_BLOCK)
}

/// The map block that holds a region.
pub fn block_of(region: u64) -> u64 {
    region / REGIONS_PER_BLOCK
}

fn place(region: u64) -> Option<usize> {
    usize::try_from(region / 8).ok()
}

fn number(block: &Block, at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&block[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn seal(block: &mut Block, sum: Sum) {
    let value = sum(&block[..SUM_AT]);
    block[SUM_AT..].copy_from_slice(&value.to_le_bytes());
}

fn check(block: &Block, sum: Sum) -> Result<(), Damage> {
    let right = block[SUM_AT..] == sum(&block[..SUM_AT]).to_le_bytes();
    right.then_some(()).ok_or(Damage::Checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u32 {
        bytes
            .iter()
            .fold(1, |a, b| a.wrapping_mul(31).wrapping_add(u32::from(*b)))
    }

    #[test]
    fn a_header_comes_back_and_a_flipped_bit_is_noticed() {
        let header = Header {
            size_bytes: 77,
            first_gap: 3,
            lost: false,
        };
        let block = header.format(sum);
        assert_eq!(Header::parse(&block, sum), Ok(header));
        for at in [0, 12, 24, 4095] {
            let mut bad = block;
            bad[at] ^= 4;
            assert_eq!(Header::parse(&bad, sum), Err(Damage::Checksum), "{at}");
        }
        let mut other = block;
        other[8] = 2;
        seal(&mut other, sum);
        assert_eq!(Header::parse(&other, sum), Err(Damage::Kind));
        assert_eq!([2, 3, 4].map(|gap| header.covers(gap)), [false, true, true]);
        let lost = Header {
            lost: true,
            ..header
        };
        assert!(!lost.covers(3) && !Header::default().covers(3));
    }

    #[test]
    fn regions_come_back_as_joined_ranges_that_end_with_the_device() {
        let size = REGIONS_PER_BLOCK * REGION_BYTES + 3 * REGION_BYTES + 512;
        let mut set = Regions::new(size);
        assert_eq!(map_blocks(size), 2);
        let last = REGIONS_PER_BLOCK + 3;
        for region in [0, 1, 7, 8, last - 1, last] {
            assert!(set.insert(region));
        }
        assert!(!set.insert(last + 1));
        assert!(!set.insert(1 << 40));
        let mut copy = Regions::new(size);
        for n in 0..2 {
            copy.parse_block(n, &set.format_block(n, sum), sum).unwrap();
        }
        let k = REGION_BYTES;
        let ranges = vec![(0, 2 * k), (7 * k, 2 * k), ((last - 1) * k, k + 512)];
        assert_eq!(copy.ranges(), ranges);
        assert!(copy.contains(8) && !copy.contains(9) && !copy.contains(1 << 50));
        let wrong = set.format_block(1, sum);
        assert_eq!(copy.parse_block(0, &wrong, sum), Err(Damage::Place));
        copy.clear();
        assert_eq!(copy.ranges(), []);
        copy.grow(2 * size);
        assert!(copy.insert(last + 1));
    }

    #[test]
    fn a_write_touches_the_regions_under_it() {
        assert_eq!(regions_of(0, 65536), 0..=0);
        assert_eq!(regions_of(65535, 2), 0..=1);
        assert_eq!(regions_of(65536, 0), 1..=1);
    }
}
