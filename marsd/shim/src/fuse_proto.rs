//! The bytes of the FUSE protocol that a file system of one file needs; pure (`linux/fuse.h`).

/// Largest payload of one read or write in bytes.
pub const MAX_IO: usize = 1 << 20;
/// Size of the buffer that takes any request.
pub const REQUEST_MAX: usize = MAX_IO + 4096;
/// Bytes before the payload of a write request.
pub const WRITE_HEADER: usize = IN_HEADER + 40;
/// Bytes of the header of a reply.
pub const OUT_HEADER: usize = 16;
const IN_HEADER: usize = 40;

const ASYNC_READ: u64 = 1 << 0;
const BIG_WRITES: u64 = 1 << 5;
const ASYNC_DIO: u64 = 1 << 15;
const MAX_PAGES: u64 = 1 << 22;
const INIT_EXT: u64 = 1 << 30;
const HAS_RESEND: u64 = 1 << 39;
const FOPEN_DIRECT_IO: u32 = 1 << 0;
const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
const FATTR_SIZE: u32 = 1 << 3;
const NOTIFY_RESEND: i32 = 7;
const FALLOC_KEEP_SIZE: u32 = 1;
const FALLOC_ZERO_RANGE: u32 = 0x10;

/// What the kernel asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// First request: its protocol version and the flags it offers.
    Init {
        /// Major version.
        major: u32,
        /// Minor version.
        minor: u32,
        /// Read-ahead that it would do.
        max_readahead: u32,
        /// What it can do.
        flags: u64,
    },
    /// Attributes of the file.
    GetAttr,
    /// Changes attributes; the new size if that is one of them.
    SetAttr {
        /// New size in bytes.
        size: Option<u64>,
    },
    /// Opens the file.
    Open,
    /// Reads.
    Read {
        /// Byte offset.
        offset: u64,
        /// Length in bytes.
        len: u32,
    },
    /// Writes the bytes from [`WRITE_HEADER`] on.
    Write {
        /// Byte offset.
        offset: u64,
        /// Length in bytes.
        len: u32,
    },
    /// Makes everything durable.
    Fsync,
    /// Makes a range read as zeroes.
    WriteZeroes {
        /// Byte offset.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Sizes of the file system.
    StatFs,
    /// Nothing to do, the answer is success.
    Nothing,
    /// Nothing to do, and no answer is expected.
    Silent,
    /// The file system goes away.
    Destroy,
    /// Not offered.
    Unsupported,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Number of the request, to be repeated in the reply.
    pub unique: u64,
    /// What is asked.
    pub operation: Operation,
}

/// Reads a request as `/dev/fuse` delivered it; None if it is shorter than it says.
pub fn parse_request(buf: &[u8]) -> Option<Request> {
    let unique = u64_at(buf, 8)?;
    let body = buf.get(IN_HEADER..)?;
    let operation = match u32_at(buf, 4)? {
        26 => Operation::Init {
            major: u32_at(body, 0)?,
            minor: u32_at(body, 4)?,
            max_readahead: u32_at(body, 8)?,
            flags: u64::from(u32_at(body, 12)?) | u64::from(u32_at(body, 16).unwrap_or(0)) << 32,
        },
        3 => Operation::GetAttr,
        4 => Operation::SetAttr {
            size: if u32_at(body, 0)? & FATTR_SIZE != 0 {
                Some(u64_at(body, 16)?)
            } else {
                None
            },
        },
        14 => Operation::Open,
        15 => Operation::Read {
            offset: u64_at(body, 8)?,
            len: u32_at(body, 16)?,
        },
        16 => parse_write(buf, body)?,
        17 => Operation::StatFs,
        18 | 25 | 34 => Operation::Nothing, // RELEASE, FLUSH, ACCESS
        20 => Operation::Fsync,
        2 | 36 | 42 => Operation::Silent, // FORGET, INTERRUPT, BATCH_FORGET
        38 => Operation::Destroy,
        43 => match u32_at(body, 24)? {
            // Discard (KEEP_SIZE | PUNCH_HOLE) is refused: it could not be replicated as what it is.
            mode if mode & !FALLOC_KEEP_SIZE == FALLOC_ZERO_RANGE => Operation::WriteZeroes {
                offset: u64_at(body, 8)?,
                len: u64_at(body, 16)?,
            },
            _ => Operation::Unsupported,
        },
        _ => Operation::Unsupported,
    };
    Some(Request { unique, operation })
}

fn parse_write(buf: &[u8], body: &[u8]) -> Option<Operation> {
    let len = u32_at(body, 16)?;
    if buf.len() < WRITE_HEADER + len as usize {
        return None;
    }
    Some(Operation::Write {
        offset: u64_at(body, 8)?,
        len,
    })
}

/// Header of a reply with `body` bytes behind it; `errno` is 0 or positive.
pub fn format_header(unique: u64, errno: i32, body: usize) -> [u8; OUT_HEADER] {
    let mut out = [0; OUT_HEADER];
    let len = u32::try_from(OUT_HEADER + body).unwrap_or(u32::MAX);
    put(&mut out, 0, &len.to_le_bytes());
    put(&mut out, 4, &(-errno).to_le_bytes());
    put(&mut out, 8, &unique.to_le_bytes());
    out
}

/// The message that makes the kernel send again what was not answered.
pub fn format_resend() -> [u8; OUT_HEADER] {
    // A notification is a reply to nothing with a positive code.
    format_header(0, -NOTIFY_RESEND, 0)
}

/// Answer to INIT; also tells whether the kernel can resend requests.
pub fn format_init(minor: u32, max_readahead: u32, offered: u64) -> ([u8; 64], bool) {
    let wanted = ASYNC_READ | BIG_WRITES | ASYNC_DIO | MAX_PAGES | INIT_EXT | HAS_RESEND;
    let flags = wanted & offered;
    let [f0, f1, f2, f3, g0, g1, g2, g3] = flags.to_le_bytes();
    let mut out = [0; 64];
    put(&mut out, 0, &7u32.to_le_bytes());
    put(&mut out, 4, &minor.min(40).to_le_bytes());
    put(&mut out, 8, &max_readahead.to_le_bytes());
    put(&mut out, 12, &[f0, f1, f2, f3]);
    put(&mut out, 16, &256u16.to_le_bytes()); // max_background
    put(&mut out, 18, &192u16.to_le_bytes()); // congestion_threshold
    put(&mut out, 20, &(1u32 << 20).to_le_bytes()); // max_write
    put(&mut out, 24, &1u32.to_le_bytes()); // time granularity, ns
    put(&mut out, 28, &256u16.to_le_bytes()); // max_pages
    put(&mut out, 32, &[g0, g1, g2, g3]);
    (out, flags & HAS_RESEND != 0)
}

/// Answer to GETATTR and SETATTR: a regular file of `size` bytes.
pub fn format_attr(size: u64) -> [u8; 104] {
    let mut out = [0; 104];
    put(&mut out, 0, &(1u64 << 30).to_le_bytes()); // valid, seconds
    put(&mut out, 16, &1u64.to_le_bytes()); // inode
    put(&mut out, 24, &size.to_le_bytes());
    put(&mut out, 32, &(size / 512).to_le_bytes());
    put(&mut out, 76, &0o100_600_u32.to_le_bytes());
    put(&mut out, 80, &1u32.to_le_bytes()); // links
    put(&mut out, 96, &4096u32.to_le_bytes()); // block size
    out
}

/// Answer to OPEN.
pub fn format_open() -> [u8; 16] {
    let mut out = [0; 16];
    let flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
    put(&mut out, 8, &flags.to_le_bytes());
    out
}

/// Answer to WRITE.
pub fn format_written(len: u32) -> [u8; 8] {
    let mut out = [0; 8];
    put(&mut out, 0, &len.to_le_bytes());
    out
}

/// Answer to STATFS.
pub fn format_statfs(size: u64) -> [u8; 80] {
    let mut out = [0; 80];
    put(&mut out, 0, &(size / 4096).to_le_bytes());
    put(&mut out, 24, &1u64.to_le_bytes());
    put(&mut out, 40, &4096u32.to_le_bytes());
    put(&mut out, 44, &255u32.to_le_bytes());
    put(&mut out, 48, &4096u32.to_le_bytes());
    out
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at(buf: &[u8], at: usize) -> Option<u32> {
    let bytes = buf.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(buf: &[u8], at: usize) -> Option<u64> {
    let bytes = buf.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut out = vec![0; IN_HEADER];
        let len = u32::try_from(IN_HEADER + body.len()).unwrap();
        put(&mut out, 0, &len.to_le_bytes());
        put(&mut out, 4, &opcode.to_le_bytes());
        put(&mut out, 8, &77u64.to_le_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_write_must_carry_what_it_says() {
        let mut body = vec![0; 40];
        put(&mut body, 8, &8192u64.to_le_bytes());
        put(&mut body, 16, &512u32.to_le_bytes());
        assert_eq!(parse_request(&request(16, &body)), None);
        body.extend_from_slice(&[7; 512]);
        let parsed = parse_request(&request(16, &body)).unwrap();
        let operation = Operation::Write {
            offset: 8192,
            len: 512,
        };
        assert_eq!(
            parsed,
            Request {
                unique: 77,
                operation
            }
        );
    }

    #[test]
    fn fallocate_is_write_zeroes_or_unsupported() {
        let mut body = vec![0; 32];
        put(&mut body, 16, &4096u64.to_le_bytes());
        for (mode, zero) in [(0x11u32, true), (0x10, true), (3, false), (0, false)] {
            put(&mut body, 24, &mode.to_le_bytes());
            let op = parse_request(&request(43, &body)).unwrap().operation;
            assert_eq!(matches!(op, Operation::WriteZeroes { .. }), zero, "{mode}");
        }
        assert_eq!(parse_request(&[0; 12]), None);
    }

    #[test]
    fn init_takes_only_what_is_offered() {
        assert!(!format_init(31, 0, ASYNC_DIO | INIT_EXT).1);
        let (out, resend) = format_init(45, 0, u64::MAX);
        assert!(resend);
        assert_eq!(u32_at(&out, 4), Some(40));
        assert_eq!(u32_at(&out, 32), Some(1 << 7));
        assert_eq!(u32_at(&format_resend(), 4), Some(7));
    }
}
