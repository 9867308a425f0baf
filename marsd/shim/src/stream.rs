//! Positions of the stream of records over one log and the next; pure.
//!
//! The open logs are cut out of one endless stream of bytes: a log stands at `base..end` of it, the active one has no
//! end yet. All positions of the engine are stream positions, so an order over two logs is an order of numbers.

use mars_core::control::LogStatus;
use mars_core::{LogName, Stamp};

/// Place of one log in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSpan {
    /// The log.
    pub name: LogName,
    /// Stream position of its first byte.
    pub base: u64,
    /// Stream position of its end, once it is closed.
    pub end: Option<u64>,
    /// Stamp of its last record.
    pub last_stamp: Stamp,
    /// It is closed, written back, trimmed and flushed.
    pub complete: bool,
}

/// How far the stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// End of the last record that is in a log.
    pub logged: u64,
    /// End of what is on stable storage.
    pub durable: u64,
    /// All before is on the disk.
    pub written_back: u64,
    /// Stamp of the record that ends there.
    pub written_back_stamp: Stamp,
}

impl LogSpan {
    /// Position in this log, in bytes, of a stream position; positions outside are moved to its nearer end.
    pub fn local(&self, position: u64) -> u64 {
        position.clamp(self.base, self.end.unwrap_or(u64::MAX).max(self.base)) - self.base
    }

    /// Stream position of the end of what is to be found in this log once the stream has come to `position`.
    pub fn limit(&self, position: u64) -> u64 {
        self.base + self.local(position)
    }

    /// What marsd is told about this log.
    pub fn status(&self, marks: &Marks) -> LogStatus {
        let whole = self.end.is_some_and(|end| marks.written_back >= end);
        let stamp = if self.local(marks.written_back) == 0 {
            Stamp::default()
        } else if whole {
            self.last_stamp
        } else {
            marks.written_back_stamp
        };
        LogStatus {
            log: self.name.clone(),
            logged: self.local(marks.logged),
            durable: self.local(marks.durable),
            written_back: self.local(marks.written_back),
            written_back_stamp: stamp,
            complete: self.complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use mars_core::HostName;

    use super::*;

    fn span(seq: u64, base: u64, end: Option<u64>) -> LogSpan {
        LogSpan {
            name: LogName::new(seq, &HostName::new("a").unwrap()),
            base,
            end,
            last_stamp: Stamp::new(50, 0),
            complete: false,
        }
    }

    #[test]
    fn marks_are_shown_in_the_log_they_fall_into() {
        let (old, new) = (span(1, 0, Some(1000)), span(2, 1000, None));
        let marks = Marks {
            logged: 1300,
            durable: 1100,
            written_back: 400,
            written_back_stamp: Stamp::new(7, 0),
        };
        let a = old.status(&marks);
        assert_eq!((a.logged, a.durable, a.written_back), (1000, 1000, 400));
        assert_eq!(a.written_back_stamp, Stamp::new(7, 0));
        let b = new.status(&marks);
        assert_eq!((b.logged, b.durable, b.written_back), (300, 100, 0));
        assert_eq!(b.written_back_stamp, Stamp::default());
        let marks = Marks {
            written_back: 1200,
            ..marks
        };
        assert_eq!(old.status(&marks).written_back_stamp, Stamp::new(50, 0));
        assert_eq!(new.status(&marks).written_back_stamp, Stamp::new(7, 0));
    }
}
