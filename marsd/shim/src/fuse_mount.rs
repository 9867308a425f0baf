//! Mounts the one-file FUSE file system, and removes a dead one.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::ShimError;

/// A mounted file system.
#[derive(Debug)]
pub struct FuseMount {
    /// The mount point, a regular file.
    pub path: PathBuf,
    /// The connection; a process that holds it keeps the file system alive.
    pub fd: OwnedFd,
}

/// Mounts at the regular file `path`, which is created if it is missing.
pub fn mount_file(path: &Path, resource: &str) -> Result<FuseMount, ShimError> {
    let device = Path::new("/dev/fuse");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| ShimError::io("create the mount point", path, e))?;
    let fd = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .map_err(|e| ShimError::io("open", device, e))?;
    let data = format!("fd={},rootmode=100600,user_id=0,group_id=0", fd.as_raw_fd());
    let source = format!("mars-{resource}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some(source.as_str()),
        path,
        Some("fuse.mars"),
        flags,
        Some(data.as_str()),
    )
    .map_err(|e| ShimError::io("mount the FUSE file", path, e.into()))?;
    Ok(FuseMount {
        path: path.into(),
        fd: fd.into(),
    })
}

/// Opens the file for the loop device; the connection must be served meanwhile.
pub fn open_file(path: &Path) -> Result<File, ShimError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| ShimError::io("open the FUSE file", path, e))
}

/// Number of the file system, as `stat` shows it; asks the server.
pub fn device_number(file: &File, path: &Path) -> Result<u64, ShimError> {
    Ok(file
        .metadata()
        .map_err(|e| ShimError::io("look at", path, e))?
        .dev())
}

/// Removes everything that is mounted at `path`; nothing there is no error.
pub fn unmount(path: &Path) -> Result<(), ShimError> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(ShimError::io("unmount", path, e.into())),
        }
    }
}
