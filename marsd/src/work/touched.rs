//! Which differences between two disks are explained by log records, and which are real.
//!
//! Two disks at positions between W and E of one history agree in every block that no record in (W, E] touches. A
//! block that differs and is touched may differ only because one side is further than the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mars_core::log_format::Invalid;
use mars_core::verify::BLOCK_BYTES;

use super::check::{Stop, walk};
use super::{as_len, as_u64};

const SCAN_CHUNK: usize = 1024 * 1024;

/// Differing blocks by number, each with the data that the peer has (empty if it is not needed).
pub(crate) type Blocks = BTreeMap<u64, Vec<u8>>;

/// Takes the blocks that a record of `len` bytes at disk position `pos` touches out of `differing`.
pub(crate) fn take_touched(
    differing: &mut Blocks,
    pos: u64,
    len: u64,
    mut each: impl FnMut(u64, Vec<u8>),
) {
    if len == 0 {
        return;
    }
    let blocks = pos / BLOCK_BYTES..=pos.saturating_add(len - 1) / BLOCK_BYTES;
    while let Some((&block, _)) = differing.range(blocks.clone()).next() {
        let data = differing.remove(&block).unwrap_or_default();
        each(block, data);
    }
}

/// A part of a logfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPart {
    /// The file.
    pub path: PathBuf,
    /// The record boundary at which to begin.
    pub from: u64,
    /// Up to here its records must be valid; what follows counts as far as it is.
    pub to: u64,
}

/// Calls `each` with disk position and length of all records of `part`.
pub(crate) fn for_each_record(part: &LogPart, mut each: impl FnMut(u64, u64)) -> io::Result<()> {
    let file = File::open(&part.path)?;
    let mut pos = part.from;
    let why = loop {
        let mut buf = vec![0; SCAN_CHUNK];
        let len = read_at(&file, &mut buf, pos)?;
        let bytes = buf.get(..len).unwrap_or_default();
        let walked = walk(bytes, |record, payload| {
            each(record.pos, as_u64(payload.len()));
        });
        pos += as_u64(walked.len);
        match walked.stop {
            Stop::Invalid(cause) => break cause,
            // A record may go on behind what was read.
            Stop::NeedMore | Stop::Zeros if walked.len > 0 => {}
            Stop::NeedMore | Stop::Zeros => break Invalid::StartMagic,
        }
    };
    if pos < part.to {
        return Err(damaged(&part.path, pos, part.to, why));
    }
    Ok(())
}

fn damaged(path: &Path, pos: u64, to: u64, why: Invalid) -> io::Error {
    io::Error::other(format!(
        "{} has no valid record at byte {pos}, but goes on to byte {to}: {why}",
        path.display()
    ))
}

/// Fills `buf` as far as the file goes; returns the number of bytes.
fn read_at(file: &File, buf: &mut [u8], pos: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        let at = pos + as_u64(done);
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(as_len(as_u64(done), buf.len()))
}

#[cfg(test)]
mod tests {
    use super::super::testkit::TempLog;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn touched_is_what_a_write_changes(
            blocks in prop::collection::btree_set(0u64..20, 0..20),
            writes in prop::collection::vec((0u64..80_000, 0u64..9000), 0..12)
        ) {
            let mut left: Blocks = blocks.iter().map(|b| (*b, vec![u8::try_from(*b).unwrap()])).collect();
            let mut taken = Blocks::new();
            for (pos, len) in &writes {
                take_touched(&mut left, *pos, *len, |b, data| drop(taken.insert(b, data)));
            }
            for block in blocks {
                let (start, end) = (block * 4096, (block + 1) * 4096);
                // Byte by byte, as a disk would see it.
                let touched = writes.iter().any(|(pos, len)| (*pos..pos + len).any(|b| (start..end).contains(&b)));
                let (is_in, not_in) = if touched { (&taken, &left) } else { (&left, &taken) };
                prop_assert_eq!(is_in.get(&block), Some(&vec![u8::try_from(block).unwrap()]));
                prop_assert!(!not_in.contains_key(&block));
            }
        }
    }

    #[test]
    fn records_are_found_up_to_the_end_and_damage_before_it_is_an_error() {
        let mut log = TempLog::new();
        for n in 0..700u64 {
            log.append(n * 4096, &[7; 4096]);
        }
        let path = log.path.clone();
        let part = |from, to| LogPart {
            path: path.clone(),
            from,
            to,
        };
        let found = |part: LogPart| {
            let mut all = Vec::new();
            for_each_record(&part, |pos, len| all.push((pos, len))).map(|()| all)
        };
        let all = found(part(0, log.len)).unwrap();
        assert_eq!((all.len(), all[699]), (700, (699 * 4096, 4096)));
        assert_eq!(found(part(698 * 4180, 0)).unwrap().len(), 2);
        assert_eq!(found(part(log.len, log.len)).unwrap(), []);
        let error = found(part(0, log.len + 1)).unwrap_err().to_string();
        assert!(error.contains("2926000"), "{error}");
        log.append_raw(&[0; 2000]);
        log.append_raw(b"rubbish");
        assert_eq!(found(part(4180, log.len - 2007)).unwrap().len(), 699);
        assert!(found(part(4180, log.len)).is_err());
    }
}
