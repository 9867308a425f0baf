//! Finds where the valid records of a logfile end: in memory, in a file, and before a fetch goes on.
//!
//! A log ends at the first thing that is not a valid record, whatever the length of the file
//! (`symlink-spec.md` section 5).

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use mars_core::log_format::{HEADER_LEN, Invalid, LogTime, Parsed, RECORD_MAX, Record, parse};

use super::{as_len, as_u64};

/// Why [`walk`] stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At the end of the given bytes, or in a record that they do not complete.
    NeedMore,
    /// The next bytes are zero as far as they were given (at least one).
    Zeros,
    /// The next bytes are no record.
    Invalid(Invalid),
}

/// What [`walk`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Length of the whole valid records at the beginning, in bytes.
    pub(crate) len: usize,
    /// When the last of them was written.
    pub(crate) last: Option<LogTime>,
    /// What follows them.
    pub(crate) stop: Stop,
}

/// Passes each valid record at the beginning of `buf`, with the place of its payload, to `each`.
pub(crate) fn walk(buf: &[u8], mut each: impl FnMut(&Record, Range<usize>)) -> Walk {
    let (mut len, mut last) = (0, None);
    let stop = loop {
        let rest = buf.get(len..).unwrap_or_default();
        match parse(rest, crc_fast::crc32_iscsi) {
            Ok(Parsed::Record(record, payload)) => {
                let start = len + HEADER_LEN;
                each(&record, start..start + payload.len());
                last = Some(record.stamp);
                len += record.total_len();
            }
            Ok(Parsed::End) if rest.is_empty() => break Stop::NeedMore,
            Ok(Parsed::End) => break Stop::Zeros,
            Ok(Parsed::Incomplete(_)) => break Stop::NeedMore,
            Err(cause) => break Stop::Invalid(cause),
        }
    };
    Walk { len, last, stop }
}

/// Whole valid records: those of `begun`, then those of `others`.
#[derive(Debug, Default)]
pub(crate) struct Valid {
    /// At most one, which earlier bytes began.
    pub(crate) begun: Vec<u8>,
    /// Those that the last bytes have whole.
    pub(crate) others: Bytes,
}

/// Checks log bytes while they arrive in pieces: lets whole valid records through and keeps the rest.
#[derive(Debug)]
pub(crate) struct RecordCheck {
    /// Position of the first byte of `rest`, a record boundary.
    end: u64,
    /// The beginning of a record.
    rest: Vec<u8>,
    last: Option<LogTime>,
}

impl RecordCheck {
    /// Expects a record to begin at log position `end`.
    pub(crate) fn new(end: u64) -> Self {
        Self {
            end,
            rest: Vec::new(),
            last: None,
        }
    }

    /// Takes the next bytes; returns the whole valid records that they complete, and what is wrong behind those.
    pub(crate) fn push(&mut self, mut bytes: Bytes) -> (Valid, Option<Invalid>) {
        let begun = match self.complete(&mut bytes) {
            Ok(record) => record,
            Err(cause) => return (Valid::default(), Some(cause)),
        };
        // None if the record that was begun is not whole yet.
        let walk = walk(&bytes, |_, _| ());
        let others = bytes.split_to(walk.len);
        self.rest.extend_from_slice(&bytes);
        self.end += as_u64(walk.len);
        self.last = walk.last.or(self.last);
        let invalid = match walk.stop {
            Stop::Invalid(cause) => Some(cause),
            Stop::Zeros if bytes.len() >= HEADER_LEN => Some(Invalid::StartMagic),
            Stop::NeedMore | Stop::Zeros => None,
        };
        (Valid { begun, others }, invalid)
    }

    /// Goes on with the record that earlier bytes began, and returns it when it is whole.
    fn complete(&mut self, bytes: &mut Bytes) -> Result<Vec<u8>, Invalid> {
        while !self.rest.is_empty() {
            let whole = match parse(&self.rest, crc_fast::crc32_iscsi)? {
                Parsed::Record(record, _) => {
                    self.end += as_u64(self.rest.len());
                    self.last = Some(record.stamp);
                    return Ok(std::mem::take(&mut self.rest));
                }
                Parsed::Incomplete(whole) => whole,
                Parsed::End if self.rest.len() < HEADER_LEN => HEADER_LEN,
                Parsed::End => return Err(Invalid::StartMagic),
            };
            if bytes.is_empty() {
                break;
            }
            let more = bytes.len().min(whole - self.rest.len());
            self.rest.extend_from_slice(&bytes.split_to(more));
        }
        Ok(Vec::new())
    }

    /// End of the last whole valid record.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Position behind the last byte that was taken.
    pub(crate) fn received(&self) -> u64 {
        self.end + as_u64(self.rest.len())
    }

    /// When the last whole record was written.
    pub(crate) fn last(&self) -> Option<LogTime> {
        self.last
    }
}

/// Where the valid records of a logfile end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanEnd {
    /// End of the last valid record, in bytes.
    pub end: u64,
    /// Size of the file in bytes. More than `end`: zeros, a torn record, or what `invalid` says.
    pub size: u64,
    /// When the last record that was met entered the primary; `None` if there was none behind the start.
    pub last: Option<LogTime>,
    /// Position and cause if something other than zeros or one torn record follows.
    pub invalid: Option<(u64, Invalid)>,
}

const SCAN_CHUNK: usize = 1024 * 1024;

/// Reads the logfile from the record boundary `from` and finds the end of its valid records. What it finds is on
/// stable storage: the file is flushed first, since its last writer may have been killed before doing so.
pub fn scan_valid_end(path: &Path, from: u64) -> io::Result<ScanEnd> {
    let file = File::open(path)?;
    file.sync_data()?;
    let size = file.metadata()?.len();
    if from > size {
        let why =
            format!("position {from} lies behind the end of the file, which has {size} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let (mut pos, mut last) = (from, None);
    loop {
        let mut buf = vec![0; as_len(size - pos, SCAN_CHUNK)];
        file.read_exact_at(&mut buf, pos)?;
        let at_eof = pos + as_u64(buf.len()) >= size;
        let walk = walk(&buf, |_, _| ());
        pos += as_u64(walk.len);
        last = walk.last.or(last);
        let invalid = match walk.stop {
            Stop::NeedMore if !at_eof => continue,
            Stop::NeedMore => None,
            Stop::Invalid(cause) => Some((pos, cause)),
            Stop::Zeros if is_zero(&file, pos, size)? => None,
            Stop::Zeros => Some((pos, Invalid::StartMagic)),
        };
        return Ok(ScanEnd {
            end: pos,
            size,
            last,
            invalid,
        });
    }
}

/// What is wrong with the record at byte `from`; `None` if it is whole, or too few bytes are there.
pub fn check_record(path: &Path, from: u64) -> io::Result<Option<Invalid>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut buf = vec![0; as_len(size.saturating_sub(from), RECORD_MAX)];
    file.read_exact_at(&mut buf, from)?;
    let walk = walk(&buf, |_, _| ());
    Ok(match walk.stop {
        Stop::Invalid(cause) if walk.len == 0 => Some(cause),
        Stop::Zeros if walk.len == 0 => Some(Invalid::StartMagic),
        _ => None,
    })
}

/// Whether all bytes from `from` to `to` are zero.
pub(crate) fn is_zero(file: &File, from: u64, to: u64) -> io::Result<bool> {
    let mut pos = from;
    let mut buf = vec![0; as_len(to.saturating_sub(from), SCAN_CHUNK)];
    while pos < to {
        let len = as_len(to - pos, buf.len());
        let Some(part) = buf.get_mut(..len) else {
            break;
        };
        file.read_exact_at(part, pos)?;
        if part.iter().any(|b| *b != 0) {
            return Ok(false);
        }
        pos += as_u64(len);
    }
    Ok(true)
}

/// Cuts the logfile to `end` bytes and makes that durable.
pub fn truncate_log(path: &Path, end: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let size = file.metadata()?.len();
    if end > size {
        let why = format!("cannot cut to {end} bytes, the file has only {size}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    file.set_len(end)?;
    file.sync_all()
}

/// Where a fetch goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// Size of the local copy now, a record boundary: the next byte to ask for.
    pub from: u64,
    /// Bytes that were cut off because they form no whole valid record; the peer will send them again.
    pub dropped: u64,
    /// What was wrong with them, other than being torn or zero.
    pub invalid: Option<(u64, Invalid)>,
}

/// Prepares the local copy of a foreign log for fetching: whatever follows the last valid record is cut off
/// (after a power loss the end of the file may be anything) and will come from the peer again.
///
/// `boundary` is a record boundary up to which the copy is known to be good, for example the replay position. A copy that
/// is shorter, or gone, is fetched from its own end on, or from the beginning.
pub fn prepare_fetch(path: &Path, boundary: u64) -> io::Result<Prepared> {
    let boundary = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Prepared {
                from: 0,
                dropped: 0,
                invalid: None,
            });
        }
        Err(e) => return Err(e),
        Ok(meta) if meta.len() < boundary => 0,
        Ok(_) => boundary,
    };
    let scan = scan_valid_end(path, boundary)?;
    if scan.end < scan.size {
        truncate_log(path, scan.end)?;
    }
    Ok(Prepared {
        from: scan.end,
        dropped: scan.size - scan.end,
        invalid: scan.invalid,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{TempLog, record_bytes};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clean_log_ends_at_its_size_and_zeros_do_not_count() {
        let mut log = TempLog::new();
        for n in 0..5u8 {
            log.append(u64::from(n) * 512, &[n; 512]);
        }
        let clean = scan_valid_end(&log.path, 0).unwrap();
        assert_eq!(
            (clean.end, clean.size, clean.invalid),
            (5 * 596, 5 * 596, None)
        );
        assert!(clean.last.is_some());
        log.append_raw(&vec![0; 3 * SCAN_CHUNK]);
        let ahead = scan_valid_end(&log.path, 596).unwrap();
        assert_eq!((ahead.end, ahead.invalid), (5 * 596, None));
        log.append_raw(b"x");
        let damaged = scan_valid_end(&log.path, 0).unwrap();
        assert_eq!(damaged.invalid, Some((5 * 596, Invalid::StartMagic)));
        assert!(scan_valid_end(&log.path, damaged.size + 1).is_err());
    }

    #[test]
    fn many_chunks_are_scanned_to_the_end() {
        let mut log = TempLog::new();
        for n in 0..700u64 {
            log.append(n * 4096, &[7; 4096]);
        }
        let scan = scan_valid_end(&log.path, 0).unwrap();
        assert_eq!((scan.end, scan.invalid), (700 * 4180, None));
    }

    #[test]
    fn torn_and_damaged_ends_are_cut_off_before_a_fetch() {
        let mut log = TempLog::new();
        log.append(0, &[1; 512]);
        log.append_raw(&record_bytes(0, &[2; 512])[..200]);
        let torn = prepare_fetch(&log.path, 0).unwrap();
        assert_eq!((torn.from, torn.dropped, torn.invalid), (596, 200, None));
        let mut bad = record_bytes(0, &[2; 512]);
        bad[100] ^= 1;
        log.append_raw(&bad);
        assert_eq!(
            check_record(&log.path, 596).unwrap(),
            Some(Invalid::Checksum)
        );
        assert_eq!(check_record(&log.path, 0).unwrap(), None);
        let flipped = prepare_fetch(&log.path, 596).unwrap();
        assert_eq!(flipped.from, 596);
        assert_eq!(flipped.invalid, Some((596, Invalid::Checksum)));
        assert_eq!(std::fs::metadata(&log.path).unwrap().len(), 596);
        for boundary in [0, 596] {
            let missing = prepare_fetch(&log.path.with_extension("none"), boundary).unwrap();
            assert_eq!(missing.from, 0);
        }
        let short = prepare_fetch(&log.path, 2 * 596).unwrap();
        assert_eq!((short.from, short.dropped), (596, 0));
        assert!(truncate_log(&log.path, 597).is_err());
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_valid_prefix(
            cuts in prop::collection::vec(1usize..900, 1..40), damage in prop::option::of(0usize..3000)
        ) {
            let mut bytes: Vec<u8> = (0..5u8).flat_map(|n| record_bytes(0, &[n; 512])).collect();
            if let Some(at) = damage.filter(|at| *at < bytes.len()) {
                bytes[at] ^= 0x10;
            }
            let whole = walk(&bytes, |_, _| ());
            let mut check = RecordCheck::new(0);
            let (mut out, mut rest) = (Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                let (valid, invalid) = check.push(Bytes::copy_from_slice(piece));
                out.extend(valid.begun);
                out.extend(valid.others);
                prop_assert_eq!(check.end(), as_u64(out.len()));
                rest = tail;
                if invalid.is_some() || rest.is_empty() {
                    prop_assert_eq!(invalid.is_some(), matches!(whole.stop, Stop::Invalid(_)));
                    break;
                }
            }
            prop_assert_eq!(&out[..], &bytes[..whole.len]);
        }
    }
}
