//! The node of a device below `/dev`, which the kernel makes only where that is a devtmpfs.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mars_kmod_core::abi;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::kmod::KmodError;

/// Makes the device node, unless the kernel did.
pub(super) fn make_node(path: &Path, status: &abi::Status) -> Result<(), KmodError> {
    if is_node(path, status) {
        return Ok(());
    }
    let failed = |e: std::io::Error| KmodError::io("make the device node", path, e);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let number = makedev(status.device_major.into(), status.device_minor.into());
    let mode = Mode::from_bits_truncate(0o660);
    mknod(path, SFlag::S_IFBLK, mode, number).map_err(|e| failed(e.into()))
}

/// Removes the node if it is that of the device, which is gone; best effort, as the kernel may have done it.
pub(super) fn remove_node(path: &Path, status: &abi::Status) {
    if is_node(path, status) {
        let _ = fs::remove_file(path);
    }
}

fn is_node(path: &Path, status: &abi::Status) -> bool {
    let number = makedev(status.device_major.into(), status.device_minor.into());
    fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device() && m.rdev() == number)
}

/// The node of the device in `dir`, if there is one.
pub(super) fn find_node(dir: &Path, status: &abi::Status) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(|path| is_node(path, status))
}
