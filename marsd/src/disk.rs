//! Facts about a disk: its size.

use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Size in bytes of a block device or a file.
///
/// # Errors
/// Of the system, when it cannot be opened.
pub fn size_bytes(path: &Path) -> io::Result<u64> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)?;
    file.seek(SeekFrom::End(0))
}
