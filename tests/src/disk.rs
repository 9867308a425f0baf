//! Disks of a node: image files behind loop devices, which outlive the death of the node as real disks do.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::command::host;
use crate::error::{Context, Result};

/// A block device of a node.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Path inside the node, such as `/dev/vg-test/LV-ResA`.
    pub path: String,
    /// The loop device of the machine.
    pub device: PathBuf,
    /// The file with the content.
    pub image: PathBuf,
}

impl Disk {
    /// Makes an empty disk of `bytes` bytes; its image goes to `dir`.
    ///
    /// # Errors
    /// The image or the loop device cannot be made.
    pub fn create(dir: &Path, path: &str, bytes: u64) -> Result<Self> {
        let image = dir.join(format!(
            "{}.img",
            path.trim_start_matches('/').replace('/', "-")
        ));
        std::fs::create_dir_all(dir).context(format!("create {}", dir.display()))?;
        File::create_new(&image)
            .and_then(|file| file.set_len(bytes))
            .context(format!("create {}", image.display()))?;
        let shown = image.to_string_lossy();
        let device = host(&["losetup", "--find", "--show", "--direct-io=on", &shown])?;
        Ok(Self {
            path: path.into(),
            device: device.trim().into(),
            image,
        })
    }

    /// The script that makes the device visible in a freshly booted node.
    ///
    /// # Errors
    /// The loop device is gone.
    pub fn node_script(&self) -> Result<String> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(&self.device)
            .context(format!("look at {}", self.device.display()))?;
        let rdev = meta.rdev();
        let (major, minor) = (nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev));
        let path = &self.path;
        Ok(format!(
            "mkdir -p $(dirname {path}) && mknod -m 660 {path} b {major} {minor}"
        ))
    }
}
