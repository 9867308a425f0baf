//! Finds out who uses the device: mounts, swap, other block devices, processes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};

use crate::loop_device::LoopDevice;

/// Users of a loop device, which is also known as `node`, as text for people; empty if there are none.
pub fn find_users(device: &LoopDevice, node: &Path) -> Vec<String> {
    let mut users = BTreeSet::new();
    let names = [device.path.as_path(), node];
    for holder in list(&format!("/sys/block/loop{}/holders", device.number)) {
        users.insert(format!("block device {holder}"));
    }
    if let Ok(swaps) = fs::read_to_string("/proc/swaps") {
        let is_ours = |line: &&str| {
            let first = line.split_whitespace().next();
            first.is_some_and(|f| names.contains(&Path::new(f)))
        };
        if swaps.lines().any(|l| is_ours(&l)) {
            users.insert("swap".into());
        }
    }
    let mut namespaces = BTreeSet::new();
    for pid in list("/proc")
        .into_iter()
        .filter_map(|n| n.parse::<u32>().ok())
    {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt"));
        if namespace.is_ok_and(|ns| namespaces.insert(ns))
            && let Ok(text) = fs::read_to_string(format!("/proc/{pid}/mountinfo"))
        {
            for place in parse_mounts(&text, device.rdev(), &names) {
                users.insert(format!("mounted on {place}"));
            }
        }
        if has_open(pid, device.rdev(), &names) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            users.insert(format!("pid {pid} ({})", name.trim_end()));
        }
    }
    users.into_iter().collect()
}

fn list(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

/// Whether a process has the device open. Only links that look like the device are followed: looking at a file of a
/// dead FUSE server would hang.
fn has_open(pid: u32, rdev: u64, names: &[&Path; 2]) -> bool {
    let dir = format!("/proc/{pid}/fd");
    list(&dir).into_iter().any(|fd| {
        let link = format!("{dir}/{fd}");
        let Ok(target) = fs::read_link(&link) else {
            return false;
        };
        let likely = names.contains(&target.as_path())
            || target.starts_with("/dev/")
            || target.to_string_lossy().ends_with(" (deleted)")
                && names.iter().any(|n| target.file_name() == n.file_name());
        likely
            && fs::metadata(&link)
                .is_ok_and(|m| m.file_type().is_block_device() && m.rdev() == rdev)
    })
}

/// Mount points of the device in a `mountinfo`.
fn parse_mounts(text: &str, rdev: u64, names: &[&Path; 2]) -> Vec<String> {
    let number = format!("{}:{}", major(rdev), minor(rdev));
    text.lines()
        .filter_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let head: Vec<&str> = head.split(' ').collect();
            let source = tail.split(' ').nth(1)?;
            let ours = *head.get(2)? == number || names.contains(&Path::new(source));
            ours.then(|| head.get(4).map(|p| p.replace("\\040", " ")))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::makedev;

    use super::*;

    #[test]
    fn mounts_are_found_by_number_and_by_name() {
        let text = "36 35 7:3 / /srv/a\\040b rw,noatime master:1 - ext4 /dev/x rw\n\
                    37 35 0:40 / /data rw - btrfs /dev/mars/r rw\n\
                    38 35 8:1 / / rw - ext4 /dev/sda1 rw\nrubbish\n";
        let names = [Path::new("/dev/loop3"), Path::new("/dev/mars/r")];
        let found = parse_mounts(text, makedev(7, 3), &names);
        assert_eq!(found, ["/srv/a b", "/data"]);
    }
}
