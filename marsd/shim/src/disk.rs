//! Opens the disk below the device for direct I/O, so that nobody else (nor a dying predecessor) writes to it.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::ShimError;

/// How long to wait for a predecessor's last I/O to end.
const CLAIM_WAIT: Duration = Duration::from_secs(5);

/// The disk of a resource.
#[derive(Debug)]
pub struct Disk {
    /// Opened with O_DIRECT.
    pub file: File,
    /// Its path.
    pub path: PathBuf,
    /// Smallest unit of I/O in bytes: 512 or more.
    pub sector: u32,
}

mod ioctl {
    #![allow(missing_docs, unreachable_pub)] // the macros' functions
    nix::ioctl_read_bad!(sector_size, libc::BLKSSZGET, libc::c_int);
    nix::ioctl_read!(size_bytes, 0x12, 114, u64);
}

impl Disk {
    /// Opens `path`, a block device (claimed exclusively) or a regular file (locked), of at least `size_bytes`.
    pub fn open(path: &Path, size_bytes: u64) -> Result<Self, ShimError> {
        let meta = std::fs::metadata(path).map_err(|e| ShimError::io("look at", path, e))?;
        let block = meta.file_type().is_block_device();
        if !block && !meta.is_file() {
            return Err(ShimError::Invalid(format!(
                "{} is neither a block device nor a regular file",
                path.display()
            )));
        }
        let file = open_claimed(path, block)?;
        let disk = Self {
            sector: sector_size(&file, path, block)?,
            file,
            path: path.into(),
        };
        disk.check_size(size_bytes)?;
        Ok(disk)
    }

    /// A second handle.
    pub fn try_clone(&self) -> Result<Self, ShimError> {
        let file = self
            .file
            .try_clone()
            .map_err(|e| ShimError::io("duplicate the descriptor of", &self.path, e))?;
        Ok(Self {
            file,
            path: self.path.clone(),
            sector: self.sector,
        })
    }

    /// Checks that the disk has room for a device of `size_bytes`.
    pub fn check_size(&self, size_bytes: u64) -> Result<(), ShimError> {
        let size = self.size()?;
        if size_bytes == 0 || !size_bytes.is_multiple_of(u64::from(self.sector)) {
            return Err(ShimError::Invalid(format!(
                "size {size_bytes} is not a positive multiple of the sector size {} of {}",
                self.sector,
                self.path.display()
            )));
        }
        if size < size_bytes {
            return Err(ShimError::Invalid(format!(
                "{} has {size} bytes, {size_bytes} are needed",
                self.path.display()
            )));
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, ShimError> {
        let failed = |e| ShimError::io("read the size of", &self.path, e);
        let meta = self.file.metadata().map_err(failed)?;
        if meta.is_file() {
            return Ok(meta.len());
        }
        let mut size = 0;
        // SAFETY: BLKGETSIZE64 writes one u64.
        unsafe { ioctl::size_bytes(self.file.as_raw_fd(), &raw mut size) }
            .map_err(|e| failed(e.into()))?;
        Ok(size)
    }
}

fn open_claimed(path: &Path, block: bool) -> Result<File, ShimError> {
    let deadline = Instant::now() + CLAIM_WAIT;
    loop {
        let exclusive = if block { libc::O_EXCL } else { 0 };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT | exclusive)
            .open(path);
        match opened {
            Ok(file) => {
                if !block {
                    lock_file(&file, path)?;
                }
                return Ok(file);
            }
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(ShimError::io("open the disk exclusively", path, e)),
        }
    }
}

/// Locks `file` for this process. The lock of a killed process goes away only when its last I/O on the file has
/// ended, so nothing of it can land later.
pub(crate) fn lock_file(file: &File, path: &Path) -> Result<(), ShimError> {
    let deadline = Instant::now() + CLAIM_WAIT;
    loop {
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let cause = std::io::Error::last_os_error();
        if cause.kind() != std::io::ErrorKind::WouldBlock {
            return Err(ShimError::io("lock", path, cause));
        }
        if Instant::now() >= deadline {
            return Err(ShimError::Invalid(format!(
                "{} is locked by another process",
                path.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn sector_size(file: &File, path: &Path, block: bool) -> Result<u32, ShimError> {
    if block {
        let mut size = 0;
        // SAFETY: BLKSSZGET writes one int.
        unsafe { ioctl::sector_size(file.as_raw_fd(), &raw mut size) }
            .map_err(|e| ShimError::io("read the sector size of", path, e.into()))?;
        return Ok(u32::try_from(size).unwrap_or(512).max(512));
    }
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the path is an empty C string, the result fits `stat`.
    let rc = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut stat,
        )
    };
    if rc == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0 {
        return Ok(stat.stx_dio_offset_align.max(512));
    }
    Ok(512)
}
