//! Write load whose acknowledged writes are known, so that each can be looked for afterwards.
//!
//! Write number `n` (from 1) of a load goes to a block that follows from the seed and `n`, and holds both; so the
//! reader knows of every block which writes it may hold. Writes are issued one after the other: whatever a crash
//! leaves must be the state after some write number, at least the last one that was flushed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Context, Result, fail};

/// Bytes per write.
pub const BLOCK: usize = 4096;
const MAGIC: u64 = 0x6d61_7273_6c6f_6164;

/// Where a load writes.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// Distinguishes loads; also decides the order of blocks.
    pub seed: u64,
    /// First block.
    pub first: u64,
    /// Number of blocks.
    pub blocks: u64,
}

/// What a region holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The region is as it was after this write number; 0 is before the first.
    pub after: u64,
}

impl Region {
    /// The block of write number `n`.
    fn block_of(&self, n: u64) -> u64 {
        self.first + mix(self.seed ^ mix(n)) % self.blocks
    }

    fn offset(block: u64) -> u64 {
        block * BLOCK as u64
    }

    /// Fills `buffer` with the content of write number `n`.
    fn fill(&self, n: u64, buffer: &mut [u8]) {
        let head = [MAGIC, self.seed, n];
        let mut state = mix(self.seed.wrapping_add(n));
        for (index, word) in buffer.chunks_exact_mut(8).enumerate() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let value = head.get(index).copied().unwrap_or(state);
            word.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Writes until `count` writes are done or the process is killed, flushes after every `flush_every` of them and
    /// then prints the number of the last one as a line: it is on stable storage.
    ///
    /// # Errors
    /// A write or flush fails: the application has seen an I/O error.
    pub fn write(&self, path: &Path, count: u64, flush_every: u64) -> Result {
        let file = open(path)?;
        let mut memory = vec![0; 2 * BLOCK];
        let buffer = aligned(&mut memory);
        for n in 1..=count {
            self.fill(n, buffer);
            file.write_all_at(buffer, Self::offset(self.block_of(n)))
                .context(format!("write {n} to {}", path.display()))?;
            if n % flush_every == 0 || n == count {
                file.sync_data()
                    .context(format!("flush {} after write {n}", path.display()))?;
                writeln!(std::io::stdout(), "{n}").context("report a write")?;
            }
        }
        Ok(())
    }

    /// Reads the region and tells which write number it stands at.
    ///
    /// # Errors
    /// A block holds something that this load never wrote there, or the blocks do not belong to one write number.
    pub fn read(&self, path: &Path) -> Result<State> {
        let file = open(path)?;
        let mut memory = vec![0; 2 * BLOCK];
        let mut found = Vec::new();
        let mut expected = vec![0; BLOCK];
        for block in self.first..self.first + self.blocks {
            let buffer = aligned(&mut memory);
            file.read_exact_at(buffer, Self::offset(block))
                .context(format!("read block {block} of {}", path.display()))?;
            let n = number_of(self.seed, buffer);
            if n != 0 {
                self.fill(n, &mut expected);
            }
            if n != 0 && (*buffer != *expected || self.block_of(n) != block) {
                return Err(fail(format!(
                    "block {block} holds nothing that was written to it"
                )));
            }
            found.push(n);
        }
        let after = found.iter().copied().max().unwrap_or(0);
        self.check_prefix(&found, after)
    }

    fn check_prefix(&self, found: &[u64], after: u64) -> Result<State> {
        let mut expected = vec![0; found.len()];
        for n in 1..=after {
            let index = usize::try_from(self.block_of(n) - self.first).context("block number")?;
            expected[index] = n;
        }
        match found.iter().zip(&expected).position(|(a, b)| a != b) {
            None => Ok(State { after }),
            Some(index) => Err(fail(format!(
                "block {} holds write {}, but write {} is in the region and {} came before it",
                index as u64 + self.first,
                found[index],
                after,
                expected[index]
            ))),
        }
    }
}

/// The write number in a block, 0 if this load has not written it.
fn number_of(seed: u64, block: &[u8]) -> u64 {
    let word = |i: usize| {
        let bytes = block.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok());
        u64::from_le_bytes(bytes.unwrap_or_default())
    };
    if word(0) == MAGIC && word(1) == seed {
        word(2)
    } else {
        0
    }
}

/// Scatters the bits of a number.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
        .open(path)
        .context(format!("open {}", path.display()))
}

/// The part of a buffer that direct I/O accepts.
fn aligned(memory: &mut [u8]) -> &mut [u8] {
    let skip = memory.as_ptr().align_offset(BLOCK);
    &mut memory[skip..skip + BLOCK]
}

/// The last write number that a load has reported as flushed.
pub fn last_reported(output: &str) -> u64 {
    // The last line may be torn.
    let whole = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
    whole
        .lines()
        .rev()
        .find_map(|l| l.parse().ok())
        .unwrap_or(0)
}

/// Body of `mars-node load` and `mars-node state`.
///
/// # Errors
/// Wrong arguments, or an I/O error.
pub fn load_main(words: &[&str]) -> Result {
    let number = |text: &str| {
        text.parse::<u64>()
            .context(format!("'{text}' is no number"))
    };
    let region = |seed: &str, first: &str, blocks: &str| -> Result<Region> {
        Ok(Region {
            seed: number(seed)?,
            first: number(first)?,
            blocks: number(blocks)?,
        })
    };
    match words {
        ["load", path, seed, first, blocks, count, flush_every] => region(seed, first, blocks)?
            .write(Path::new(path), number(count)?, number(flush_every)?.max(1)),
        ["state", path, seed, first, blocks] => {
            let state = region(seed, first, blocks)?.read(Path::new(path))?;
            writeln!(std::io::stdout(), "{}", state.after).context("print the state")
        }
        _ => Err(fail(
            "usage: mars-node load PATH SEED FIRST BLOCKS COUNT FLUSH_EVERY | state PATH SEED FIRST BLOCKS",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Region {
            seed: 7,
            first: 3,
            blocks: 16,
        }
    }

    fn after_writes(count: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.as_file().set_len(64 * BLOCK as u64).unwrap();
        region().write(file.path(), count, 10).unwrap();
        file
    }

    #[test]
    fn the_state_after_any_number_of_writes_is_recognised() {
        for count in [0, 1, 40, 41] {
            let file = after_writes(count);
            assert_eq!(region().read(file.path()).unwrap().after, count);
        }
    }

    #[test]
    fn a_lost_write_a_foreign_block_and_a_flipped_bit_are_seen() {
        let file = after_writes(40);
        let block = region().block_of(39);
        let handle = open(file.path()).unwrap();
        let mut memory = vec![0; 2 * BLOCK];
        let buffer = aligned(&mut memory);
        handle.write_all_at(buffer, Region::offset(block)).unwrap();
        assert!(region().read(file.path()).is_err(), "lost");
        region().fill(39, buffer);
        handle.write_all_at(buffer, Region::offset(block)).unwrap();
        assert_eq!(region().read(file.path()).unwrap().after, 40);
        buffer[100] ^= 1;
        handle.write_all_at(buffer, Region::offset(block)).unwrap();
        assert!(region().read(file.path()).is_err(), "flipped");
        region().fill(40, buffer);
        handle.write_all_at(buffer, Region::offset(block)).unwrap();
        assert!(region().read(file.path()).is_err(), "misplaced");
    }

    #[test]
    fn a_torn_report_does_not_count() {
        assert_eq!(last_reported("10\n20\n3"), 20);
        assert_eq!(last_reported(""), 0);
    }
}
