//! Everything the display needs that does not stand in the tree: time, versions, parameters, mounts, free space and
//! messages. The only module that looks at the system.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use mars_core::{Stamp, Tree};
use mars_tree::{Env, load_daemon_lock, param_file, params_dir, wall_clock};
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use crate::options::{Options, Show};

/// Where the kernel tells whether the module is loaded.
const MODULE: &str = "/sys/module/mars";
/// Messages shown at most, the newest.
const MESSAGES_MAX: usize = 200;
/// Bytes read of a file of messages at most, the last.
const MESSAGES_BYTES: u64 = 256 * 1024;
/// Bytes read of a small file at most.
const SMALL_BYTES: u64 = 4096;
/// Bytes read of a table of the kernel at most.
const TABLE_BYTES: u64 = 64 * 1024 * 1024;

/// Names of the parameters that are shown.
pub const PARAMETERS: [&str; 11] = [
    "loadavg_limit",
    "network_traffic_limit_kb",
    "network_traffic_rate_kb",
    "percent_mem_limit_kb",
    "mem_used_kb",
    "server_io_limit_mb",
    "server_io_rate_mb",
    "free_space_mb",
    "logdel_auto_gb",
    "logrot_auto_gb",
    "network_io_timeout",
];

/// Whether a device can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// There is no such device.
    NoDevice,
    /// It exists, and is not mounted.
    NotMounted,
    /// It is mounted here.
    At(String),
}

/// Facts of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The time.
    pub now: Stamp,
    /// Release of the running kernel.
    pub kernel: String,
    /// Version of the kernel module, if it is loaded.
    pub module: Option<String>,
    /// Values of those [`PARAMETERS`] that are published.
    pub parameters: BTreeMap<&'static str, String>,
    /// Size of the file system of the tree in KiB.
    pub partition_kib: Option<u64>,
    /// Mounts by name of the device below `/dev/mars`.
    pub mounts: BTreeMap<String, Mount>,
    /// Whether somebody holds the lock of marsd; `None` if that cannot be told here.
    pub daemon_lock: Option<bool>,
    /// Warnings, oldest first.
    pub warnings: Vec<String>,
    /// Errors, oldest first.
    pub errors: Vec<String>,
}

impl Facts {
    /// Looks at the system, as far as `options` need it. What cannot be found out counts as absent.
    pub fn gather(env: &Env, tree: &Tree, options: &Options) -> Self {
        let mounts = if options.show == Show::Screen {
            gather_mounts(env, tree)
        } else {
            BTreeMap::new()
        };
        let messages = |name| {
            if options.debug {
                load_messages(env, name)
            } else {
                Vec::new()
            }
        };
        Self {
            now: wall_clock(),
            kernel: load_line(Path::new("/proc/sys/kernel/osrelease"))
                .unwrap_or_else(|| "unknown".into()),
            module: load_module(),
            parameters: load_parameters(env),
            partition_kib: load_partition(env),
            mounts,
            daemon_lock: load_daemon_lock(&env.run),
            warnings: messages("warnings"),
            errors: messages("errors"),
        }
    }
}

/// The last `max` bytes of a regular file. Nothing else is opened for long: a pipe would never end.
fn load_end(path: &Path, max: u64) -> Option<String> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() {
        return None;
    }
    if meta.len() > max {
        file.seek(SeekFrom::Start(meta.len() - max)).ok()?;
    }
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn load_line(path: &Path) -> Option<String> {
    let text = load_end(path, SMALL_BYTES)?;
    Some(text.trim().to_string())
}

fn load_module() -> Option<String> {
    let dir = Path::new(MODULE);
    dir.is_dir().then(|| {
        load_line(&dir.join("version")).unwrap_or_else(|| "loaded, version not told".into())
    })
}

fn load_parameters(env: &Env) -> BTreeMap<&'static str, String> {
    let value = |name: &str| {
        let text = load_end(&param_file(env, name), SMALL_BYTES)?;
        let last = text.lines().next_back()?;
        Some(last.replace('\t', ""))
    };
    PARAMETERS
        .into_iter()
        .filter_map(|name| Some((name, value(name)?)))
        .collect()
}

fn load_partition(env: &Env) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(&env.dir).ok()?;
    let bytes = stat.blocks().checked_mul(stat.fragment_size())?;
    Some(bytes / 1024)
}

fn load_messages(env: &Env, name: &str) -> Vec<String> {
    // The kernel module may be younger than the last message.
    let files = [param_file(env, name), params_dir(env).join(name)];
    let mut texts = files
        .iter()
        .filter_map(|file| load_end(file, MESSAGES_BYTES));
    let text = texts.find(|text| !text.is_empty()).unwrap_or_default();
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    let skip = lines.len().saturating_sub(MESSAGES_MAX);
    lines.into_iter().skip(skip).collect()
}

fn gather_mounts(env: &Env, tree: &Tree) -> BTreeMap<String, Mount> {
    let table = load_end(Path::new("/proc/self/mountinfo"), TABLE_BYTES).unwrap_or_default();
    let entries = parse_mounts(&table);
    tree.resources()
        .filter_map(|name| {
            let device = tree.resource(&name).device(&env.host)?.to_string();
            let path = format!("/dev/mars/{device}");
            let mount = mount_of(&path, &entries);
            Some((device, mount))
        })
        .collect()
}

/// One mount: device numbers, source and mount point.
#[derive(Debug, PartialEq, Eq)]
struct MountEntry {
    number: String,
    source: String,
    point: String,
}

/// Reads `/proc/self/mountinfo`; lines that are not understood are left out.
fn parse_mounts(table: &str) -> Vec<MountEntry> {
    let parse = |line: &str| {
        let mut fields = line.split(' ');
        let number = fields.nth(2)?.to_string();
        let point = unescape(fields.nth(1)?);
        let source = unescape(fields.skip_while(|f| *f != "-").nth(2)?);
        Some(MountEntry {
            number,
            source,
            point,
        })
    };
    table.lines().filter_map(parse).collect()
}

fn mount_of(path: &str, entries: &[MountEntry]) -> Mount {
    let Ok(meta) = fs::metadata(path) else {
        return Mount::NoDevice;
    };
    let number = format!("{}:{}", major(meta.rdev()), minor(meta.rdev()));
    let is_block = meta.file_type().is_block_device();
    entries
        .iter()
        .find(|e| e.source == path || is_block && e.number == number)
        .map_or(Mount::NotMounted, |e| Mount::At(e.point.clone()))
}

/// Undoes the octal escapes of the mount table.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4);
        if let Some(byte) = code.and_then(|c| u8::from_str_radix(c, 8).ok()) {
            out.push(char::from(byte));
            rest = &rest[at + 4..];
        } else {
            out.push('\\');
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_with_its_escapes() {
        let table = "36 35 7:3 / /srv/with\\040blank rw,noatime shared:1 - ext4 /dev/loop3 rw\n\
                     garbage\n37 35 0:5 / /proc rw - proc proc rw\n";
        let entries = parse_mounts(table);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].point, "/srv/with blank");
        assert_eq!(
            (entries[0].number.as_str(), entries[0].source.as_str()),
            ("7:3", "/dev/loop3")
        );
        assert_eq!(unescape("a\\04"), "a\\04");
    }

    #[test]
    fn a_missing_device_is_told_from_one_that_is_not_mounted() {
        assert_eq!(mount_of("/dev/mars/is/not/there", &[]), Mount::NoDevice);
        assert_eq!(mount_of("/dev/null", &[]), Mount::NotMounted);
        let entry = MountEntry {
            number: "1:3".into(),
            source: "/dev/other".into(),
            point: "/x".into(),
        };
        // Numbers of character devices have nothing to do with those of block devices.
        assert_eq!(mount_of("/dev/null", &[entry]), Mount::NotMounted);
    }
}
