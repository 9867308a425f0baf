//! What a secondary does, in its simplest form: applies the records of a log to an image.

use std::path::Path;

use mars_core::log_format::{CODE_NEW_DATA, Parsed, parse};

/// Applies the records of `log` from `pos` on; returns the position behind the last valid one.
pub fn replay(log: &Path, pos: u64, image: &mut [u8]) -> u64 {
    let bytes = std::fs::read(log).unwrap();
    let mut at = usize::try_from(pos).unwrap();
    while let Ok(Parsed::Record(record, payload)) = parse(&bytes[at..], crc_fast::crc32_iscsi) {
        assert_eq!(record.code, CODE_NEW_DATA);
        let to = usize::try_from(record.pos).unwrap();
        image[to..to + payload.len()].copy_from_slice(payload);
        at += record.total_len();
    }
    at as u64
}
