//! Disks and devices: sizes, and whether somebody uses them.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use crate::error::{AdmError, Result};
use crate::exit::Exit;

/// What the second argument of create-resource and join-resource means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// A block device.
    Device(String),
    /// A sparse file of this many bytes, to be created.
    Sparse(u64),
}

const SPARSE_UNIT: u64 = 4096;

/// Reads `DEV` or `SIZE` (`[0-9.]+[kmgtp]?`, binary multiples, rounded up to 4 KiB).
pub(crate) fn parse_disk(arg: &str) -> Result<Disk> {
    let usage = |why: &str| AdmError::new(Exit::Usage, format!("'{arg}': {why}"));
    if arg.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        let bytes = parse_size(arg).ok_or_else(|| {
            usage("neither an absolute path nor a size such as 512M, 1.5G or 1048576")
        })?;
        return match bytes.div_ceil(SPARSE_UNIT) * SPARSE_UNIT {
            0 => Err(usage("implausible size")),
            bytes => Ok(Disk::Sparse(bytes)),
        };
    }
    if !arg.starts_with('/') || arg.split('/').any(|p| p == "..") {
        return Err(usage(
            "must be an absolute path starting with '/', without '..'",
        ));
    }
    Ok(Disk::Device(arg.into()))
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, shift) = match text.strip_suffix(|c: char| c.is_ascii_alphabetic()) {
        None => (text, 0),
        Some(number) => {
            let unit = text.chars().last()?.to_ascii_lowercase();
            (number, 10 * (u32::try_from("kmgtp".find(unit)?).ok()? + 1))
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 15 {
        return None;
    }
    let digits = |s: &str| {
        if s.is_empty() {
            Some(0)
        } else {
            s.parse::<u64>().ok().map(u128::from)
        }
    };
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = digits(whole)?.checked_mul(scale)? + digits(fraction)?;
    u64::try_from((parts << shift) / scale)
        .ok()
        .filter(|b| *b < 1 << 60)
}

/// Size in bytes of a block device that nobody else uses.
pub(crate) fn device_size(path: &str, force: bool) -> Result<u64> {
    let meta = fs::metadata(path)
        .map_err(|e| AdmError::missing(format!("block device '{path}' does not exist: {e}")))?;
    if !meta.file_type().is_block_device() {
        return Err(AdmError::refused(format!("'{path}' is not a block device"))
            .remedy("give a block device, or a size such as 10G to have a sparse file made"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if !force {
        options.custom_flags(OFlag::O_EXCL.bits());
    }
    let mut file = options.open(path).map_err(|e| match e.raw_os_error() {
        Some(code) if code == nix::errno::Errno::EBUSY as i32 => AdmError::refused(format!(
            "'{path}' is in use (mounted, or part of another device)"
        ))
        .remedy("unmount it first: it must be used through /dev/mars only"),
        _ => AdmError::system("open", path, e),
    })?;
    size_of(&mut file, path)
}

fn size_of(file: &mut File, path: &str) -> Result<u64> {
    match file.seek(SeekFrom::End(0)) {
        Ok(0) => Err(AdmError::refused(format!("implausible size 0 of '{path}'"))),
        Ok(bytes) => Ok(bytes),
        Err(e) => Err(AdmError::system("find the size of", path, e)),
    }
}

/// Who uses a device node, as far as it can be seen: a mount, or a process that has it open. The processes of MARS
/// itself do not count.
pub(crate) fn in_use(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    if !meta.file_type().is_block_device() {
        return None;
    }
    mounted_on(meta.rdev()).or_else(|| opened_by(meta.rdev()))
}

fn mounted_on(rdev: u64) -> Option<String> {
    let wanted = format!("{}:{}", major(rdev), minor(rdev));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(2) == Some(&wanted.as_str()))
            .then(|| format!("mounted on {}", fields.get(4).unwrap_or(&"?")))
    })
}

fn opened_by(rdev: u64) -> Option<String> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter(|p| {
            p.file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .find_map(|p| opened_by_process(&p.path(), rdev))
}

fn opened_by_process(proc: &Path, rdev: u64) -> Option<String> {
    let name = fs::read_to_string(proc.join("comm")).ok()?;
    let name = name.trim();
    if name.starts_with("mars") {
        return None;
    }
    let open = fs::read_dir(proc.join("fd")).ok()?.flatten().any(|fd| {
        fs::metadata(fd.path()).is_ok_and(|m| m.file_type().is_block_device() && m.rdev() == rdev)
    });
    let pid = proc.file_name()?.to_string_lossy().into_owned();
    open.then(|| format!("opened by process {pid} ({name})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_may_be_fractions_and_are_rounded_up() {
        for (text, bytes) in [
            ("4096", 4096),
            ("1", 4096),
            ("10M", 10 << 20),
            ("1.5g", 3 << 29),
            (".5k", 4096),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse_disk(text).unwrap(), Disk::Sparse(bytes), "{text}");
        }
        for bad in [
            "0",
            "1.2.3",
            "10X",
            "1e9",
            "9999999P",
            ".",
            "",
            "dev/sda",
            "/dev/../x",
        ] {
            assert!(parse_disk(bad).is_err(), "{bad}");
        }
        assert_eq!(
            parse_disk("/dev/vg/lv").unwrap(),
            Disk::Device("/dev/vg/lv".into())
        );
    }
}
