//! The files `warnings` and `errors`: the last messages of marsd and its shims, for `mars-status --debug`. Where the
//! kernel module is loaded, its files of these names show the end of them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tracing::Level;

use crate::queue::{Line, Place};

/// Size at which a file is cut to its newer half, in bytes.
const FILE_MAX: usize = 64 * 1024;
/// Most bytes that a file of the kernel module takes, in one write (`shim-kmod/README.md`).
const MODULE_MAX: usize = 16 * 1024;
const NAMES: [&str; 2] = ["warnings", "errors"];

/// The files in one directory, which several processes write.
#[derive(Debug)]
pub(crate) struct Recent {
    dir: PathBuf,
    /// Of the kernel module; missing while that is not loaded.
    module: PathBuf,
}

impl Recent {
    /// Shows what an earlier process left, too.
    pub(crate) fn new(dir: PathBuf, module: PathBuf) -> Self {
        let recent = Self { dir, module };
        recent.show();
        recent
    }

    fn show(&self) {
        for name in NAMES {
            // What the module does not take stands in our own file.
            let _ = copy_end(&self.dir.join(name), &self.module.join(name));
        }
    }

    fn add(&self, lines: &[Line]) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let _lock = Flock::lock(File::open(&self.dir)?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let of = |wanted: fn(&Level) -> bool| -> String {
            let lines = lines.iter().filter(|line| wanted(&line.level));
            lines.map(|line| line.text.as_str()).collect()
        };
        let [warnings, errors] = NAMES;
        append(&self.dir, warnings, &of(|level| *level == Level::WARN))?;
        append(&self.dir, errors, &of(|level| *level == Level::ERROR))?;
        self.show();
        Ok(())
    }
}

impl Place for Recent {
    fn write(&mut self, lines: &[Line]) -> u64 {
        match self.add(lines) {
            Ok(()) => 0,
            // They stand on stderr as well; the next ones are tried again.
            Err(_) => u64::try_from(lines.len()).unwrap_or(u64::MAX),
        }
    }

    /// Only the last messages are kept anyway.
    fn missing(&self, _: u64) -> Option<Line> {
        None
    }
}

/// Adds `text`; older lines go when the file gets too long. Who reads sees the old or the new file.
fn append(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let path = dir.join(name);
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if len.saturating_add(text.len()) <= FILE_MAX {
        return file.write_all(text.as_bytes());
    }
    let mut all = fs::read(&path)?;
    all.extend(text.as_bytes());
    let temp = dir.join(format!(".tmp-{name}"));
    let kept = newest(&all, FILE_MAX / 2);
    let mut new = OpenOptions::new();
    let new = new.write(true).create(true).truncate(true).mode(0o600);
    new.open(&temp)?.write_all(kept)?;
    fs::rename(&temp, &path)
}

/// Copies the last lines to an existing file.
fn copy_end(from: &Path, to: &Path) -> io::Result<()> {
    if !to.exists() {
        return Ok(());
    }
    fs::write(to, newest(&fs::read(from)?, MODULE_MAX))
}

/// The last whole lines, at most `max` bytes.
fn newest(text: &[u8], max: usize) -> &[u8] {
    let Some(start) = text.len().checked_sub(max) else {
        return text;
    };
    let tail = &text[start..];
    if start == 0 || text[start - 1] == b'\n' {
        return tail;
    }
    let line = tail.iter().position(|b| *b == b'\n');
    line.map_or(&[], |at| &tail[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, text: &str) -> Line {
        let text = format!("{text}\n");
        Line { level, text }
    }

    #[test]
    fn each_file_has_its_level_and_only_the_newest_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("run/sys");
        let mut recent = Recent::new(dir.clone(), home.path().join("none"));
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(
            recent.write(&[line(Level::WARN, "a"), line(Level::ERROR, "b")]),
            0
        );
        assert_eq!(
            (read("warnings"), read("errors")),
            ("a\n".into(), "b\n".into())
        );
        for number in 0..10_000 {
            recent.write(&[line(Level::WARN, &format!("number {number}"))]);
        }
        let text = read("warnings");
        assert!(
            text.len() <= FILE_MAX && text.len() > FILE_MAX / 4,
            "{}",
            text.len()
        );
        assert!(text.starts_with("number ") && text.ends_with("number 9999\n"));
        assert_eq!(read("errors"), "b\n");
        // One line that is longer than all there is room for.
        recent.write(&[
            line(Level::ERROR, &"x".repeat(2 * FILE_MAX)),
            line(Level::ERROR, "c"),
        ]);
        assert_eq!(read("errors"), "c\n");
        let names = fs::read_dir(&dir).unwrap().count();
        assert_eq!(names, 2, "nothing is left behind");
    }

    #[test]
    fn a_directory_that_cannot_be_made_costs_the_messages_only() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        let mut recent = Recent::new(home.path().join("file/sys"), home.path().join("none"));
        assert_eq!(recent.write(&[line(Level::WARN, "a")]), 1);
    }

    #[test]
    fn the_files_of_the_module_show_the_end() {
        let home = tempfile::tempdir().unwrap();
        let (dir, module) = (home.path().join("sys"), home.path().join("module"));
        fs::create_dir(&module).unwrap();
        for name in NAMES {
            fs::write(module.join(name), "").unwrap();
        }
        let read = |name: &str| fs::read_to_string(module.join(name)).unwrap();
        let mut recent = Recent::new(dir.clone(), module.clone());
        recent.write(&[line(Level::WARN, &"x".repeat(MODULE_MAX))]);
        recent.write(&[line(Level::WARN, "a"), line(Level::ERROR, "b")]);
        assert_eq!(
            (read("warnings"), read("errors")),
            ("a\n".into(), "b\n".into())
        );
        // As the module is loaded anew.
        fs::write(module.join("errors"), "").unwrap();
        Recent::new(dir, module.clone());
        assert_eq!(read("errors"), "b\n");
    }
}
