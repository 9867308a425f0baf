//! Whether marsd of this node runs, as its lock shows.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether somebody holds the lock of marsd below the run directory; `None` if that cannot be told. Looks at the list of
/// locks: trying to take the lock could stop a marsd that is just starting.
pub fn load_daemon_lock(run: &Path) -> Option<bool> {
    let inode = fs::metadata(run.join("marsd.lock")).ok()?.ino();
    let table = fs::read_to_string("/proc/locks").ok()?;
    Some(is_locked(&table, inode))
}

/// Whether the list names a lock by `flock(2)` on the file with this inode number. The device is not compared: some file
/// systems show another one here than in `stat(2)`.
fn is_locked(table: &str, inode: u64) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let is_flock = fields.nth(1) == Some("FLOCK");
        let file = fields.nth(3).and_then(|f| f.rsplit(':').next());
        is_flock && file.and_then(|n| n.parse().ok()) == Some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_found_by_its_kind_and_inode() {
        let one = "1: FLOCK  ADVISORY  WRITE 412 00:1a:131123 0 EOF\n2: POSIX  ADVISORY  WRITE 9 08:01:17 0 EOF\n";
        let with_waiter = "1: POSIX  ADVISORY  WRITE 810 fe:00:17 0 EOF\n\
                           2: FLOCK  ADVISORY  WRITE 811 fe:00:131123 0 EOF\n2: -> FLOCK\n";
        for table in [one, with_waiter] {
            assert!(is_locked(table, 131_123));
            assert!(!is_locked(table, 17) && !is_locked(table, 0));
        }
    }
}
