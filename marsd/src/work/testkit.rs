//! What the tests of the workers share: logs and disks made of temporary files.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use mars_core::log_format::*;

/// One whole record with a checksum.
pub(crate) fn record_bytes(pos: u64, payload: &[u8]) -> Vec<u8> {
    coded_record(pos, payload, CODE_NEW_DATA)
}

/// One whole record of any code.
pub(crate) fn coded_record(pos: u64, payload: &[u8], code: u16) -> Vec<u8> {
    let time = LogTime {
        secs: 1_700_000_000,
        nanos: 5,
    };
    let record = Record {
        stamp: time,
        written: time,
        pos,
        len: u32::try_from(payload.len()).unwrap(),
        code,
        crc: crc_fast::crc32_iscsi(payload),
    };
    let mut header = [0; HEADER_LEN];
    let mut trailer = [0; TRAILER_LEN];
    encode_header(&mut header, &record);
    encode_trailer(&mut trailer, &record);
    [&header[..], payload, &trailer[..]].concat()
}

/// A logfile in a directory of its own.
pub(crate) struct TempLog {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

impl TempLog {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log-000000001-a");
        std::fs::File::create(&path).unwrap();
        Self { dir, path, len: 0 }
    }

    pub(crate) fn append(&mut self, pos: u64, payload: &[u8]) {
        self.append_raw(&record_bytes(pos, payload));
    }

    pub(crate) fn append_raw(&mut self, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).open(&self.path).unwrap();
        file.write_all(bytes).unwrap();
        self.len += bytes.len() as u64;
    }

    /// A zeroed disk beside the log.
    pub(crate) fn disk(&self, name: &str, size: u64) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        path
    }
}
