//! `/mars/log.txt`: written as long as somebody has made it, and never more of it than a small part of the file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mars_tree::wall_clock;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::statvfs::fstatvfs;
use tracing::Level;

use crate::queue::{Line, Place};

/// Most bytes of the file; then it becomes `log.txt.old` and a new one is begun.
const FILE_MAX: u64 = 256 << 20;
/// Part of the file system that it may take up: one of so many.
const SHARE: u64 = 32;

/// The file, made by the administrator.
#[derive(Debug)]
pub(crate) struct LogTxt {
    path: PathBuf,
    /// Whether it exists: then it is worth making messages of every level.
    is_there: Arc<AtomicBool>,
}

impl LogTxt {
    pub(crate) fn new(path: PathBuf, is_there: Arc<AtomicBool>) -> Self {
        let new = Self { path, is_there };
        new.look();
        new
    }

    fn look(&self) {
        let is_there = fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.is_file());
        self.is_there.store(is_there, Ordering::Relaxed);
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        options.append(true).custom_flags(flags.bits());
        let file = options.open(&self.path)?;
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::from(io::ErrorKind::InvalidInput))
    }

    /// The locked file with room for `len` bytes; `None` if there is no file, or it was replaced meanwhile.
    fn open_with_room(&self, len: u64) -> io::Result<Option<Flock<File>>> {
        let Ok(file) = self.open() else {
            return Ok(None);
        };
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let meta = file.metadata()?;
        if fs::symlink_metadata(&self.path)?.ino() != meta.ino() {
            return Ok(None);
        }
        let space = fstatvfs(&*file)?;
        let total = space.blocks().saturating_mul(space.fragment_size());
        let max = FILE_MAX.min(total / SHARE);
        if meta.len() == 0 || meta.len().saturating_add(len) <= max {
            return Ok(Some(file));
        }
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        fs::rename(&self.path, &old)?;
        let mut new = OpenOptions::new();
        new.append(true).create_new(true).mode(meta.mode() & 0o777);
        let new = Flock::lock(new.open(&self.path)?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        Ok(Some(new))
    }

    fn add(&self, text: &str) -> io::Result<()> {
        let len = u64::try_from(text.len()).unwrap_or(u64::MAX);
        for _ in 0..3 {
            if let Some(mut file) = self.open_with_room(len)? {
                let before = file.metadata()?.len();
                return file.write_all(text.as_bytes()).inspect_err(|_| {
                    // Half a message helps nobody; if this fails as well, it stays.
                    let _ = file.set_len(before);
                });
            }
            self.look();
            if !self.is_there.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Place for LogTxt {
    fn write(&mut self, lines: &[Line]) -> u64 {
        self.look();
        if !self.is_there.load(Ordering::Relaxed) {
            return 0;
        }
        let text: String = lines.iter().map(|line| line.text.as_str()).collect();
        match self.add(&text) {
            Ok(()) => 0,
            // No space, most likely: it is told here as soon as there is some.
            Err(_) => u64::try_from(lines.len()).unwrap_or(u64::MAX),
        }
    }

    fn missing(&self, count: u64) -> Option<Line> {
        let now = wall_clock();
        let text = format!(
            "{}.{:09} MARS_WARN    {count} messages are missing here: too many at once, or no space\n",
            now.secs, now.nanos
        );
        Some(Line {
            level: Level::WARN,
            text,
        })
    }

    fn idle(&mut self) {
        self.look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> [Line; 1] {
        [Line {
            level: Level::INFO,
            text: text.into(),
        }]
    }

    #[test]
    fn it_is_written_only_while_it_exists_and_is_a_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log.txt");
        let is_there = Arc::new(AtomicBool::new(false));
        let mut log = LogTxt::new(path.clone(), is_there.clone());
        assert_eq!(log.write(&lines("lost\n")), 0);
        assert!(!path.exists() && !is_there.load(Ordering::Relaxed));
        fs::write(&path, "").unwrap();
        Place::idle(&mut log);
        assert!(is_there.load(Ordering::Relaxed));
        log.write(&lines("one\n"));
        fs::remove_file(&path).unwrap();
        log.write(&lines("lost\n"));
        fs::write(&path, "two\n").unwrap();
        log.write(&lines("three\n"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\nthree\n");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(home.path().join("elsewhere"), &path).unwrap();
        log.write(&lines("lost\n"));
        assert!(!home.path().join("elsewhere").exists());
    }

    /// A small file system that only this thread sees.
    fn small(bytes: &str) -> tempfile::TempDir {
        use nix::mount::{MsFlags, mount};
        let home = tempfile::tempdir().unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).unwrap();
        let size = format!("size={bytes}");
        mount(
            Some("none"),
            home.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(&*size),
        )
        .unwrap();
        home
    }

    #[test]
    fn it_takes_a_small_part_of_the_file_system_and_a_full_one_costs_messages_only() {
        let home = small("4m");
        let path = home.path().join("log.txt");
        let old = home.path().join("log.txt.old");
        fs::write(&path, "").unwrap();
        let mut log = LogTxt::new(path.clone(), Arc::default());
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        for number in 0..20_000 {
            assert_eq!(log.write(&lines(&format!("message number {number}\n"))), 0);
        }
        let share = (4 << 20) / SHARE;
        assert!(size(&path) <= share && size(&old) <= share && size(&old) > share / 2);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("message number 19999\n"), "{text}");

        fs::write(home.path().join("ballast"), vec![1; 4 << 20]).unwrap_err();
        let before = size(&path);
        let more = vec![lines(&"x".repeat(4000)); 3].concat();
        assert_eq!(log.write(&more), 3);
        assert_eq!(size(&path), before, "no half message stays");
        fs::remove_file(home.path().join("ballast")).unwrap();
        assert_eq!(log.write(&lines("again\n")), 0);
        assert!(fs::read_to_string(&path).unwrap().ends_with("again\n"));
    }
}
