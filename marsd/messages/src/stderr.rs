//! Messages on stderr, which may be the journal.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use tracing::Level;

use crate::queue::{Line, Place};

/// Whether stderr leads to the journal, as `JOURNAL_STREAM` says.
pub fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

pub(crate) fn is_terminal() -> bool {
    nix::unistd::isatty(std::io::stderr()).unwrap_or(false)
}

#[derive(Debug)]
pub(crate) struct Stderr;

impl Place for Stderr {
    fn write(&mut self, lines: &[Line]) -> u64 {
        let mut out = std::io::stderr().lock();
        for line in lines {
            // Nobody is left to tell if this fails.
            let _ = out.write_all(line.text.as_bytes());
        }
        0
    }

    fn missing(&self, count: u64) -> Option<Line> {
        let prefix = if is_journal() { "<4>" } else { "" };
        Some(Line {
            level: Level::WARN,
            text: format!(
                "{prefix}{count} messages are missing here: there were too many at once\n"
            ),
        })
    }
}
