//! Ends of logs: exact, torn, corrupt, followed by zeroes or by stale bytes.

use std::io::Write;

use super::*;
use crate::stage::{Payload, Stage};

/// `count` records of 4096 bytes, stamped 1, 2, ...
fn log_bytes(count: usize) -> Vec<u8> {
    let mut buffer = vec![0; count * RECORD_MAX + 8192];
    let mut stage = Stage::at(0);
    for n in 0..count {
        let data = vec![u8::try_from(n % 250 + 1).unwrap(); 4096];
        let stamp = Stamp::new(i64::try_from(n).unwrap() + 1, 0);
        stage.push(&mut buffer, n as u64 * 4096, Payload::Data(&data), stamp);
    }
    buffer.truncate(stage.filled);
    buffer
}

fn open(bytes: &[u8], pos: u64) -> (Result<OpenedLog, ShimError>, u64) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let path = dir.path().join("log-000000001-a");
    File::create(&path).unwrap().write_all(bytes).unwrap();
    let opened = open_log(&path, pos, 1 << 30);
    let len = std::fs::metadata(&path).unwrap().len();
    (opened, len)
}

#[test]
fn a_log_ends_at_its_last_valid_record_whatever_follows() {
    let record = RECORD_MAX as u64;
    let whole = log_bytes(700); // more than one window
    let end = whole.len() as u64;
    let zeroes = [&whole[..], &[0; 100_000]].concat();
    let torn = whole[..whole.len() - 10].to_vec();
    let mut corrupt = zeroes.clone();
    corrupt[500 * RECORD_MAX + 1000] ^= 1;
    let hole_then_stale = [&whole[..], &[0; 4180], &whole[..4180]].concat();
    for (bytes, expect) in [
        (whole.clone(), end),
        (zeroes, end),
        (torn, end - record),
        (corrupt, 500 * record),
        (hole_then_stale, end),
        (vec![], 0),
    ] {
        let (opened, len) = open(&bytes, 0);
        assert_eq!((opened.unwrap().end, len), (expect, expect));
    }
}

#[test]
fn a_position_is_checked_and_its_stamp_is_found() {
    let record = RECORD_MAX as u64;
    let (opened, _) = open(&log_bytes(5), 3 * record);
    let opened = opened.unwrap();
    assert_eq!(opened.stamp, Stamp::new(3, 0));
    assert_eq!(opened.end, 5 * record);
    let (opened, len) = open(&log_bytes(1), 3 * record);
    assert!(matches!(opened, Err(ShimError::Invalid(_))));
    assert_eq!(len, record);
    // Not a boundary: nothing is cut.
    let (opened, len) = open(&log_bytes(5), 3 * record - 4);
    assert!(matches!(opened, Err(ShimError::Invalid(_))));
    assert_eq!(len, 5 * record);
}
