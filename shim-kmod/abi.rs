//! The binary interface between marsd and the kernel module: fixed-size structures and request numbers of
//! `/dev/mars-control`; core only (`shim-kmod/README.md` says what each request does).
//!
//! Used by the module and, via `#[path]`, by user space. Numbers are of the machine's own byte order. Texts are UTF-8,
//! padded with at least one NUL. Fields and bytes that are not used must be 0. All structures have the same layout for
//! 32-bit and 64-bit callers.

use core::mem::size_of;

/// Version of everything in here; another version is refused.
pub const ABI_VERSION: u32 = 1;

/// Path of the control device.
pub const CONTROL_DEVICE: &str = "/dev/mars-control";

/// Bytes of a resource name field.
pub const RESOURCE_LEN: usize = 24;
/// Bytes of an owner field.
pub const OWNER_LEN: usize = 72;
/// Bytes of a device name field.
pub const DEVICE_LEN: usize = 32;
/// Bytes of a log name field.
pub const LOG_NAME_LEN: usize = 96;
/// Most logs of one status.
pub const LOGS_MAX: usize = 2;

const IOCTL_TYPE: u32 = 0xe7;

const fn request(number: u32, size: usize) -> u32 {
    // Read and write, size, type, number: as _IOWR of the kernel's headers. All sizes are below 2^14.
    (3 << 30) | ((size as u32) << 16) | (IOCTL_TYPE << 8) | number
}

/// [`Hello`].
pub const HELLO: u32 = request(0, size_of::<Hello>());
/// [`Attach`].
pub const ATTACH: u32 = request(1, size_of::<Attach>());
/// [`Log`].
pub const LOG: u32 = request(2, size_of::<Log>());
/// [`Target`].
pub const PASS_THROUGH: u32 = request(3, size_of::<Target>());
/// [`Target`], with `value` the new size in bytes.
pub const RESIZE: u32 = request(4, size_of::<Target>());
/// [`Status`] of the resource `id`.
pub const STATUS: u32 = request(5, size_of::<Status>());
/// [`Status`] of the first resource whose `id` and `change` are both greater than the given ones.
pub const NEXT: u32 = request(6, size_of::<Status>());
/// [`Target`].
pub const STOP: u32 = request(7, size_of::<Target>());
/// [`Target`].
pub const RELEASE: u32 = request(8, size_of::<Target>());

/// Argument of [`HELLO`], which comes first on every open file.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// In: version of the caller. Out: version of the module, also if the request is refused.
    pub abi: u32,
    /// 0.
    pub reserved: u32,
    /// Out: version of the module, as text.
    pub module_version: [u8; 32],
}

/// Argument of [`ATTACH`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attach {
    /// Out: number of the resource, never used again.
    pub id: u64,
    /// Size of the device in bytes, a multiple of the disk's logical block size, at most the size of the disk.
    pub size_bytes: u64,
    /// Most bytes kept in memory before they are written back; 0 for the default.
    pub dirty_max_bytes: u64,
    /// The disk: a block device, open for reading and writing, not exclusively.
    pub disk_fd: i32,
    /// 0.
    pub reserved: u32,
    /// The node that the resource belongs to. Told in the status, not interpreted.
    pub owner: [u8; OWNER_LEN],
    /// The resource. Owner and resource together are unique.
    pub resource: [u8; RESOURCE_LEN],
    /// Name of the device below `/dev`, such as `mars/r1`; unique.
    pub device: [u8; DEVICE_LEN],
}

/// Argument of [`LOG`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The resource.
    pub id: u64,
    /// Number of the log.
    pub seq: u64,
    /// Where logging goes on, in bytes: the length of the file, a record boundary. Everything before it is on the
    /// disk, on stable storage. 0 for a switch.
    pub pos: u64,
    /// Seconds of the stamp of the record that ends at `pos`, or a later one: records get later stamps.
    pub stamp_secs: i64,
    /// Nanoseconds of that stamp.
    pub stamp_nanos: u32,
    /// The log: a regular file, open for reading and writing, without O_APPEND, O_DIRECT.
    pub log_fd: i32,
    /// The mark file, 256 bytes or longer, open for writing; -1 for none.
    pub mark_fd: i32,
    /// 0.
    pub reserved: u32,
    /// Name of the log, such as `log-000000001-a`. Told in the status and stored in the mark.
    pub name: [u8; LOG_NAME_LEN],
}

/// Argument of requests that name a resource and nothing else, or a number.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The resource.
    pub id: u64,
    /// See the request; else 0.
    pub value: u64,
}

/// Values of [`Status::state`].
pub mod state {
    /// Disk open, no log, no device.
    pub const ATTACHED: u32 = 1;
    /// The device is served and every write is logged.
    pub const LOGGING: u32 = 2;
    /// What is logged is written back, for pass-through or for the end; writes wait.
    pub const DRAINING: u32 = 3;
    /// The device is served, writes go straight to the disk.
    pub const PASS_THROUGH: u32 = 4;
    /// The disk failed: all I/O is answered with EIO, what was acknowledged is in the log.
    pub const FAILED: u32 = 5;
    /// The device is gone, everything is written back; to be released. Of a failed resource: to be replayed.
    pub const STOPPED: u32 = 6;
}

/// Bits of [`Status::flags`].
pub mod flag {
    /// The device exists.
    pub const DEVICE: u32 = 1;
    /// [`super::STOP`](super::STOP) was accepted.
    pub const STOPPING: u32 = 2;
    /// The mark could not be stored before pass-through: the logs must not be replayed on this disk.
    pub const MARK_MISSING: u32 = 4;
}

/// Bits of [`LogStatus::flags`].
pub mod log_flag {
    /// Fully written back, flushed, trimmed and closed.
    pub const COMPLETE: u32 = 1;
}

/// Values of [`Failure::operation`].
pub mod operation {
    /// Nothing has failed.
    pub const NONE: u32 = 0;
    /// Write to the log.
    pub const LOG_WRITE: u32 = 1;
    /// Flush of the log.
    pub const LOG_FLUSH: u32 = 2;
    /// Store the mark before pass-through.
    pub const MARK: u32 = 3;
    /// Write to the disk.
    pub const DISK_WRITE: u32 = 4;
    /// Flush of the disk.
    pub const DISK_FLUSH: u32 = 5;
}

/// What went wrong first.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failure {
    /// One of [`operation`].
    pub operation: u32,
    /// Error number, positive.
    pub errno: u32,
    /// Byte offset in the log or on the disk, as far as it is known.
    pub offset: u64,
}

/// Positions of one log, in bytes, at record boundaries.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStatus {
    /// Number of the log.
    pub seq: u64,
    /// End of the last record that is in the log.
    pub logged: u64,
    /// All before this is on stable storage.
    pub durable: u64,
    /// All before this is on the disk, and the disk was flushed.
    pub written_back: u64,
    /// Seconds of the stamp of the record that ends at `written_back`; 0 if that is 0.
    pub stamp_secs: i64,
    /// Nanoseconds of that stamp.
    pub stamp_nanos: u32,
    /// Bits of [`log_flag`].
    pub flags: u32,
    /// Name of the log.
    pub name: [u8; LOG_NAME_LEN],
}

/// Counters since the resource was attached.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Read requests of the application.
    pub reads: u64,
    /// Write requests of the application.
    pub writes: u64,
    /// Flushes of the application.
    pub flushes: u64,
    /// Payload bytes logged.
    pub logged_bytes: u64,
    /// Bytes written back to the disk.
    pub written_back_bytes: u64,
    /// Dirty bytes that are newer in the log than on the disk.
    pub dirty_bytes: u64,
}

/// Answer of [`STATUS`] and [`NEXT`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// In and out: number of the resource.
    pub id: u64,
    /// Number of the last change, counted over all resources. In: only for [`NEXT`].
    pub change: u64,
    /// Size of the device in bytes.
    pub size_bytes: u64,
    /// One of [`state`].
    pub state: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Device number of the served device, 0 while there is none.
    pub device_major: u32,
    /// Device number of the served device.
    pub device_minor: u32,
    /// Device number of the disk.
    pub disk_major: u32,
    /// Device number of the disk.
    pub disk_minor: u32,
    /// How often the device is open.
    pub openers: u32,
    /// Number of valid elements of `logs`.
    pub log_count: u32,
    /// Why the log or the mark failed.
    pub log_failure: Failure,
    /// Why the disk failed.
    pub disk_failure: Failure,
    /// Counters.
    pub counters: Counters,
    /// As in [`Attach`].
    pub owner: [u8; OWNER_LEN],
    /// As in [`Attach`].
    pub resource: [u8; RESOURCE_LEN],
    /// As in [`Attach`].
    pub device: [u8; DEVICE_LEN],
    /// Open logs, oldest first; a complete one is told until the next switch.
    pub logs: [LogStatus; LOGS_MAX],
}

// The layout is a promise: a change needs another ABI_VERSION.
const _: () = assert!(size_of::<Hello>() == 40);
const _: () = assert!(size_of::<Attach>() == 160);
const _: () = assert!(size_of::<Log>() == 144);
const _: () = assert!(size_of::<Target>() == 16);
const _: () = assert!(size_of::<LogStatus>() == 144);
const _: () = assert!(size_of::<Status>() == 552);

/// The text in a field, if it is UTF-8, not empty and padded with at least one NUL, and nothing stands behind that.
pub fn text(field: &[u8]) -> Option<&str> {
    let len = field.iter().position(|b| *b == 0)?;
    if len == 0 || field[len..].iter().any(|b| *b != 0) {
        return None;
    }
    core::str::from_utf8(&field[..len]).ok()
}

/// A field that holds `text`; None if it does not fit or contains NUL.
pub fn field<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = text.as_bytes();
    if bytes.len() >= N || bytes.contains(&0) {
        return None;
    }
    let mut out = [0; N];
    out[..bytes.len()].copy_from_slice(bytes);
    Some(out)
}
