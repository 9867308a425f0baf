//! The record codec of transaction logfiles, for kernel and user space alike: core only, no allocation
//! (`symlink-spec.md` section 5).
//!
//! A log is a plain sequence of records of `payload + 84` bytes, little endian. The CRC32C of the payload stands in
//! the trailer; 0 means that the writer kept none. The checksum function is the caller's, because the kernel has its
//! own. A reader stops at the first thing that is not a valid record and never looks behind it.

use core::fmt;

/// First eight bytes of a record.
pub const START_MAGIC: u64 = 0xa8f7_e908_d917_7957;
/// First eight bytes after the payload.
pub const END_MAGIC: u64 = 0x7494_1fb7_4ab5_726d;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 48;
/// Bytes after the payload.
pub const TRAILER_LEN: usize = 36;
/// Bytes of a record that are not payload.
pub const OVERHEAD: usize = HEADER_LEN + TRAILER_LEN;
/// Largest payload of one record in bytes.
pub const PAYLOAD_MAX: usize = 4096;
/// Largest record in bytes.
pub const RECORD_MAX: usize = PAYLOAD_MAX + OVERHEAD;
/// The payload of one record never crosses a multiple of this many bytes on the device.
pub const REGION_SIZE: u64 = 64 * 1024;
/// Code of a record that holds new data; records of any other code are skipped by replay.
pub const CODE_NEW_DATA: u16 = 1;

const FORMAT_VERSION: u8 = 1;

/// A point in time: seconds and nanoseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogTime {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds, below 1e9.
    pub nanos: u32,
}

/// What a record says about its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When the write request entered.
    pub stamp: LogTime,
    /// When the record was completed.
    pub written: LogTime,
    /// Byte offset on the device.
    pub pos: u64,
    /// Payload length in bytes, 1 to [`PAYLOAD_MAX`].
    pub len: u32,
    /// [`CODE_NEW_DATA`], or something to be skipped.
    pub code: u16,
    /// CRC32C of the payload, or 0 for none.
    pub crc: u32,
}

impl Record {
    /// Length of the whole record in bytes.
    pub const fn total_len(&self) -> usize {
        self.len as usize + OVERHEAD
    }
}

/// What stands at a position of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A valid record and its payload.
    Record(Record, &'a [u8]),
    /// Nothing: no byte is left, or all that is left (as far as it was given) is zero.
    End,
    /// A valid beginning, but the given bytes end before the record does: give this many bytes.
    Incomplete(usize),
}

/// Why the bytes at a position are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// The first eight bytes are not the start magic.
    StartMagic,
    /// Format version other than 1.
    Version(u8),
    /// The valid flag of header or trailer is not 1.
    NotValid,
    /// A length that no writer makes.
    Length,
    /// The end magic does not stand where the length says.
    EndMagic,
    /// The payload does not match its checksum.
    Checksum,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartMagic => f.write_str("no record begins here (start magic missing)"),
            Self::Version(v) => write!(
                f,
                "record format version {v} is unknown (this reader knows 1)"
            ),
            Self::NotValid => f.write_str("the record is not marked valid"),
            Self::Length => f.write_str("the record has an impossible length"),
            Self::EndMagic => f.write_str("the record is torn (end magic missing)"),
            Self::Checksum => f.write_str("the payload does not match its checksum"),
        }
    }
}

/// Number of payload bytes that the next record may take of a write of `len` bytes at device offset `pos`.
pub const fn chunk_len(pos: u64, len: u64) -> u64 {
    let to_region_end = REGION_SIZE - pos % REGION_SIZE;
    let mut n = if len < PAYLOAD_MAX as u64 {
        len
    } else {
        PAYLOAD_MAX as u64
    };
    if to_region_end < n {
        n = to_region_end;
    }
    n
}

/// Writes the header of `record` into `out`; `record.len` must be 1 to [`PAYLOAD_MAX`].
pub fn encode_header(out: &mut [u8; HEADER_LEN], record: &Record) {
    debug_assert!(record.len >= 1 && record.len as usize <= PAYLOAD_MAX);
    out.fill(0);
    put(out, 0, &START_MAGIC.to_le_bytes());
    out[8] = FORMAT_VERSION;
    out[9] = 1;
    // At most 4180: fits the field.
    put(out, 10, &(record.total_len() as u16).to_le_bytes());
    put_time(out, 12, record.stamp);
    put(out, 28, &record.pos.to_le_bytes());
    put(out, 36, &record.len.to_le_bytes());
    put(out, 44, &record.code.to_le_bytes());
}

/// Writes the trailer of `record` into `out`.
pub fn encode_trailer(out: &mut [u8; TRAILER_LEN], record: &Record) {
    out.fill(0);
    put(out, 0, &END_MAGIC.to_le_bytes());
    put(out, 8, &record.crc.to_le_bytes());
    out[12] = 1;
    put_time(out, 20, record.written);
}

/// Reads what stands at the beginning of `buf`, which holds log bytes from a record boundary on.
pub fn parse(buf: &[u8], crc32c: impl Fn(&[u8]) -> u32) -> Result<Parsed<'_>, Invalid> {
    if buf.len() < HEADER_LEN {
        return if buf.iter().all(|b| *b == 0) {
            Ok(Parsed::End)
        } else {
            Ok(Parsed::Incomplete(HEADER_LEN))
        };
    }
    if get_u64(buf, 0) != START_MAGIC {
        let zero = buf[..HEADER_LEN].iter().all(|b| *b == 0);
        return if zero {
            Ok(Parsed::End)
        } else {
            Err(Invalid::StartMagic)
        };
    }
    if buf[8] != FORMAT_VERSION {
        return Err(Invalid::Version(buf[8]));
    }
    if buf[9] != 1 {
        return Err(Invalid::NotValid);
    }
    let total = u16::from_le_bytes([buf[10], buf[11]]) as usize;
    let len = get_u32(buf, 36);
    if len == 0 || len as usize > PAYLOAD_MAX || total != len as usize + OVERHEAD {
        return Err(Invalid::Length);
    }
    if buf.len() < total {
        return Ok(Parsed::Incomplete(total));
    }
    let (payload, trailer) = buf[HEADER_LEN..total].split_at(len as usize);
    if get_u64(trailer, 0) != END_MAGIC {
        return Err(Invalid::EndMagic);
    }
    if trailer[12] != 1 {
        return Err(Invalid::NotValid);
    }
    let crc = get_u32(trailer, 8);
    if crc != 0 && crc32c(payload) != crc {
        return Err(Invalid::Checksum);
    }
    let code = u16::from_le_bytes([buf[44], buf[45]]);
    let record = Record {
        stamp: get_time(buf, 12),
        written: get_time(trailer, 20),
        pos: get_u64(buf, 28),
        len,
        code,
        crc,
    };
    Ok(Parsed::Record(record, payload))
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put_time(out: &mut [u8], at: usize, time: LogTime) {
    put(out, at, &time.secs.to_le_bytes());
    put(out, at + 8, &u64::from(time.nanos).to_le_bytes());
}

fn get_u32(buf: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&buf[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn get_u64(buf: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&buf[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn get_time(buf: &[u8], at: usize) -> LogTime {
    LogTime {
        secs: get_u64(buf, at) as i64,
        nanos: get_u32(buf, at + 8),
    }
}
