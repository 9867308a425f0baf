//! Tests of the record codec, which itself must stay free of test code that the kernel cannot build.

use alloc::vec;
use alloc::vec::Vec;

use crate::log_format::*;

const VECTOR: &str = "577917d908e9f7a8010164008f4a64500000000015cd5b07000000000010000000000000\
    10000000000000000100000000010203\
    0405060708090a0b0c0d0e0f6d72b54ab71f947400000000010000000000000\
    08f4a64500000000015ae510d00000000";

fn record(pos: u64, payload: &[u8], crc: u32) -> (Record, Vec<u8>) {
    let record = Record {
        stamp: LogTime {
            secs: 1_348_749_967,
            nanos: 123_456_789,
        },
        written: LogTime {
            secs: 1_348_749_967,
            nanos: 223_456_789,
        },
        pos,
        len: u32::try_from(payload.len()).unwrap(),
        code: CODE_NEW_DATA,
        crc,
    };
    let mut header = [0xff; HEADER_LEN];
    let mut trailer = [0xff; TRAILER_LEN];
    encode_header(&mut header, &record);
    encode_trailer(&mut trailer, &record);
    let bytes = [&header[..], payload, &trailer[..]].concat();
    (record, bytes)
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(1, |a, b| a.wrapping_mul(31).wrapping_add(u32::from(*b)))
}

#[test]
fn the_test_vector_is_met_byte_for_byte() {
    let payload: Vec<u8> = (0..16).collect();
    let (record, bytes) = record(4096, &payload, 0);
    assert_eq!(hex::encode(&bytes), VECTOR);
    assert_eq!(parse(&bytes, sum), Ok(Parsed::Record(record, &payload[..])));
}

#[test]
fn every_flipped_bit_of_payload_magic_length_and_flags_is_found() {
    let payload = vec![0x5a; 512];
    let (_, good) = record(0, &payload, sum(&payload));
    let checked = (0..12).chain(36..40).chain(48..48 + 512 + 13);
    for at in checked {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let seen = parse(&bad, sum);
            assert!(
                !matches!(seen, Ok(Parsed::Record(..) | Parsed::End)),
                "byte {at} bit {bit}: {seen:?}"
            );
        }
    }
}

#[test]
fn every_torn_record_is_incomplete_or_invalid_and_zeros_are_the_end() {
    let payload = vec![7; 512];
    let (record, good) = record(0, &payload, sum(&payload));
    for cut in 1..good.len() {
        assert!(
            matches!(parse(&good[..cut], sum), Ok(Parsed::Incomplete(n)) if n > cut),
            "cut at {cut}"
        );
        let mut torn = good.clone();
        torn[cut..].fill(0);
        // Behind the flag copy only the time of writing can tear: the record is whole without it.
        if cut <= HEADER_LEN + 512 + 12 {
            assert!(parse(&torn, sum).is_err(), "torn at {cut}");
        }
    }
    assert_eq!(parse(&[], sum), Ok(Parsed::End));
    assert_eq!(parse(&[0; 4096], sum), Ok(Parsed::End));
    assert_eq!(record.total_len(), 596);
}

#[test]
fn writes_are_cut_at_4k_and_at_64k_borders() {
    assert_eq!(chunk_len(0, 1 << 20), 4096);
    assert_eq!(chunk_len(REGION_SIZE - 512, 4096), 512);
    assert_eq!(chunk_len(512, 512), 512);
}
