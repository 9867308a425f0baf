//! The loop device over the FUSE file: bind, adopt, resize, release.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::error::ShimError;

const LOOP_MAJOR: u64 = 7;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const CONTROL: &str = "/dev/loop-control";
/// Attempts to get a device that others, perhaps in other namespaces, do not take first.
const ATTEMPTS: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

mod ioctl {
    #![allow(missing_docs, unreachable_pub)] // the macros' functions
    use super::{LoopConfig, LoopInfo};

    nix::ioctl_none_bad!(loop_clr_fd, 0x4c01);
    nix::ioctl_write_ptr_bad!(loop_set_status64, 0x4c04, LoopInfo);
    nix::ioctl_read_bad!(loop_get_status64, 0x4c05, LoopInfo);
    nix::ioctl_none_bad!(loop_set_capacity, 0x4c07);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, LoopConfig);
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
}

/// A loop device that is bound to our file.
#[derive(Debug, Clone)]
pub struct LoopDevice {
    /// Its number.
    pub number: u32,
    /// Its path, such as `/dev/loop3`.
    pub path: PathBuf,
    backing: PathBuf,
    sequence: String,
}

impl LoopDevice {
    /// Binds a free device to `file`, which is open at `backing`, with sectors of `sector` bytes.
    pub fn bind(file: &File, backing: &Path, sector: u32) -> Result<Self, ShimError> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open(CONTROL)
            .map_err(|e| ShimError::io("open", Path::new(CONTROL), e))?;
        // Older kernels (6.12) give the device the size that they know of the file, and know none before they have asked.
        nix::sys::stat::fstat(file)
            .map_err(|e| ShimError::io("ask the size of", backing, e.into()))?;
        for _ in 0..ATTEMPTS {
            // SAFETY: the ioctl takes no argument.
            let number = unsafe { ioctl::loop_ctl_get_free(control.as_raw_fd()) }.map_err(|e| {
                ShimError::io("get a free device from", Path::new(CONTROL), e.into())
            })?;
            let mut device = Self::numbered(u32::try_from(number).unwrap_or(0), backing);
            device.make_node(&device.path)?;
            let node = device.open(0)?;
            match configure(&node, file, sector) {
                Ok(()) => {
                    device.sequence = device.read_sequence();
                    device.record();
                    device.tune();
                    return Ok(device);
                }
                // Somebody else was faster.
                Err(Errno::EBUSY) => {}
                Err(e) => return Err(ShimError::io("bind", &device.path, e.into())),
            }
        }
        Err(ShimError::Invalid(format!(
            "no free loop device after {ATTEMPTS} attempts"
        )))
    }

    /// Takes over the device at `path`, which a predecessor has bound to `backing`.
    pub fn adopt(path: &Path, backing: &Path) -> Result<Self, ShimError> {
        let recorded = Self::recorded(backing).filter(|d| d.path == path && d.is_ours());
        recorded.ok_or_else(|| {
            ShimError::Invalid(format!(
                "{} is not (any more) the loop device of {}: the device of the predecessor is gone",
                path.display(),
                backing.display()
            ))
        })
    }

    fn numbered(number: u32, backing: &Path) -> Self {
        Self {
            number,
            path: format!("/dev/loop{number}").into(),
            backing: backing.into(),
            sequence: String::new(),
        }
    }

    fn sysfs(&self, attribute: &str) -> PathBuf {
        format!("/sys/block/loop{}/{attribute}", self.number).into()
    }

    /// Whether the device is still bound as it was. Other nodes on the same machine may use the same path in another
    /// mount namespace, so the number of the binding counts too. Does not ask the file.
    pub fn is_ours(&self) -> bool {
        let Ok(text) = std::fs::read_to_string(self.sysfs("loop/backing_file")) else {
            return false;
        };
        let text = text.trim_end_matches('\n');
        let text = text.strip_suffix(" (deleted)").unwrap_or(text);
        Path::new(text) == self.backing && self.read_sequence() == self.sequence
    }

    /// Number of the present binding, never used again while the system runs; empty before Linux 5.15.
    fn read_sequence(&self) -> String {
        std::fs::read_to_string(self.sysfs("diskseq"))
            .map(|text| text.trim_end().to_owned())
            .unwrap_or_default()
    }

    /// Remembers the binding for a successor and for [`release_stale`].
    fn record(&self) {
        let path = record_path(&self.backing);
        let text = format!("{} {}\n", self.number, self.sequence);
        if let Err(e) = std::fs::write(&path, text) {
            tracing::warn!("{}: {e}", path.display());
        }
    }

    /// Removes what was recorded: the device has gone in good order.
    pub fn forget(&self) {
        // Best effort: the number of the binding tells an old record from a new one.
        let _ = std::fs::remove_file(record_path(&self.backing));
        let _ = std::fs::remove_file(udev_path(&self.backing));
    }

    /// Tells udev, and through it systemd, that the device is ready at `node`.
    pub fn announce(&self, node: &Path) {
        let name = format!("MARS_DEVICE={}\n", node.display());
        let told = std::fs::write(udev_path(&self.backing), name)
            .and_then(|()| std::fs::write(self.sysfs("uevent"), "change"));
        if let Err(e) = told {
            // Only what waits for the device by means of udev notices.
            tracing::info!("udev is not told of {}: {e}", node.display());
        }
    }

    /// The device that was bound last to `backing`, as it was recorded.
    fn recorded(backing: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(record_path(backing)).ok()?;
        let (number, sequence) = text
            .trim_end()
            .split_once(' ')
            .unwrap_or((text.trim_end(), ""));
        let mut device = Self::numbered(number.parse().ok()?, backing);
        device.sequence = sequence.to_owned();
        Some(device)
    }

    /// Device number.
    pub fn rdev(&self) -> u64 {
        makedev(LOOP_MAJOR, u64::from(self.number))
    }

    /// Creates the block node `path` for this device, mode 0600; another block node there is replaced.
    pub fn make_node(&self, path: &Path) -> Result<(), ShimError> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_block_device() && meta.rdev() == self.rdev() => {
                return Ok(());
            }
            Ok(meta) if meta.file_type().is_block_device() => std::fs::remove_file(path)
                .map_err(|e| ShimError::io("remove the old node", path, e))?,
            Ok(_) => {
                return Err(ShimError::Invalid(format!(
                    "{} exists and is no block device: remove it",
                    path.display()
                )));
            }
            Err(_) => {}
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|e| ShimError::io("create the directory", parent, e))?;
        }
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match mknod(path, SFlag::S_IFBLK, mode, self.rdev()) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(ShimError::io("create the block node", path, e.into())),
        }
    }

    /// Opens the device; `flags` such as O_EXCL.
    pub fn open(&self, flags: i32) -> Result<File, ShimError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(&self.path)
            .map_err(|e| ShimError::io("open", &self.path, e))
    }

    /// Takes the new size of the file over.
    pub fn update_size(&self) -> Result<(), ShimError> {
        let node = self.open(0)?;
        // SAFETY: the ioctl takes no argument.
        unsafe { ioctl::loop_set_capacity(node.as_raw_fd()) }
            .map(|_| ())
            .map_err(|e| ShimError::io("resize", &self.path, e.into()))
    }

    /// Lets the device go as soon as its last user (`node` is one) has closed it.
    pub fn release(&self, node: &File) -> Result<(), ShimError> {
        // SAFETY: the ioctl takes no argument.
        match unsafe { ioctl::loop_clr_fd(node.as_raw_fd()) } {
            Ok(_) | Err(Errno::ENXIO) => Ok(()),
            Err(e) => Err(ShimError::io("release", &self.path, e.into())),
        }
    }

    /// Takes a [`LoopDevice::release`] back, if the device is still there; tells whether it is.
    pub fn keep(&self) -> Result<bool, ShimError> {
        let node = self.open(0)?;
        let Some(mut info) =
            status(&node).map_err(|e| ShimError::io("look at", &self.path, e.into()))?
        else {
            return Ok(false);
        };
        if !self.is_ours() {
            return Ok(false);
        }
        info.flags &= !LO_FLAGS_AUTOCLEAR;
        // SAFETY: the ioctl reads one LoopInfo.
        match unsafe { ioctl::loop_set_status64(node.as_raw_fd(), &raw const info) } {
            Ok(_) => Ok(true),
            Err(Errno::ENXIO) => Ok(false),
            Err(e) => Err(ShimError::io("keep", &self.path, e.into())),
        }
    }

    /// Queue settings; the device works without them, only slower or splitting large requests.
    fn tune(&self) {
        for (attribute, value) in [
            ("queue/max_sectors_kb", "1024"),
            // A discard could not be replicated as what it is.
            ("queue/discard_max_bytes", "0"),
        ] {
            let path = self.sysfs(attribute);
            if let Err(e) = std::fs::write(&path, value) {
                tracing::info!("{}: {e}", path.display());
            }
        }
    }
}

/// What the device is bound to, if it is bound.
fn status(node: &File) -> Result<Option<LoopInfo>, Errno> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut info: LoopInfo = unsafe { std::mem::zeroed() };
    // SAFETY: the ioctl fills one LoopInfo.
    match unsafe { ioctl::loop_get_status64(node.as_raw_fd(), &raw mut info) } {
        Ok(_) => Ok(Some(info)),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

fn configure(node: &File, file: &File, sector: u32) -> Result<(), Errno> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    config.block_size = sector;
    config.info.flags = LO_FLAGS_DIRECT_IO;
    // SAFETY: the ioctl reads one LoopConfig.
    unsafe { ioctl::loop_configure(node.as_raw_fd(), &raw const config) }.map(|_| ())
}

/// Releases the loop device that a process which is gone for good has left bound to the file at `backing`.
///
/// The path alone does not tell: in another mount namespace it is another file, perhaps in use.
pub fn release_stale(backing: &Path) {
    let Some(device) = LoopDevice::recorded(backing).filter(LoopDevice::is_ours) else {
        return;
    };
    tracing::warn!("releasing the stale {}", device.path.display());
    let released = device
        .make_node(&device.path)
        .and_then(|()| device.open(0))
        .and_then(|node| device.release(&node));
    if let Err(e) = released {
        tracing::warn!("{e}");
    }
}

/// Beside the mount point: number of the loop device and of its binding.
fn record_path(backing: &Path) -> PathBuf {
    beside(backing, ".loop")
}

/// Beside the mount point: the name of the device, for the rules of udev.
fn udev_path(backing: &Path) -> PathBuf {
    beside(backing, ".udev")
}

fn beside(backing: &Path, suffix: &str) -> PathBuf {
    let mut path = backing.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_size_of_the_kernels() {
        assert_eq!(std::mem::size_of::<LoopInfo>(), 232);
        assert_eq!(std::mem::size_of::<LoopConfig>(), 304);
    }

    #[test]
    fn only_loop_devices_are_adopted() {
        let backing = Path::new("/nonexistent/fuse-r");
        for path in ["/dev/sda", "/dev/loop", "/dev/loopx", "/dev/loop4000000"] {
            assert!(LoopDevice::adopt(Path::new(path), backing).is_err());
        }
    }
}
