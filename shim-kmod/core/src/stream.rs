//! Positions of the stream of records over one log and the next; pure.
//!
//! The logs are cut out of one endless stream of bytes: a log stands at `base..end` of it, the active one has no end
//! yet. All positions of the data path are stream positions, so an order over two logs is an order of numbers.

use crate::log_format::LogTime;

/// Place of one log in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Number of the log.
    pub seq: u64,
    /// Stream position of its first byte.
    pub base: u64,
    /// Stream position of its end, once it is closed.
    pub end: Option<u64>,
    /// Stamp of its last record, once it is closed.
    pub last_stamp: LogTime,
    /// It is closed and written back.
    pub complete: bool,
}

impl Span {
    /// Position in this log of a stream position; positions outside are moved to its nearer end.
    pub fn local(&self, position: u64) -> u64 {
        let end = self.end.unwrap_or(u64::MAX).max(self.base);
        position.clamp(self.base, end) - self.base
    }
}

/// What is told about one log, in bytes of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// Number of the log.
    pub seq: u64,
    /// End of the last record that is in the log.
    pub logged: u64,
    /// All before this is on stable storage.
    pub durable: u64,
    /// All before this is on the disk.
    pub written_back: u64,
    /// Stamp of the record that ends at `written_back`.
    pub stamp: LogTime,
    /// Closed and written back.
    pub complete: bool,
}

/// How far the stream has come.
///
/// # Invariants
///
/// `written_back` ≤ `durable` ≤ `logged`, except that a log that fails is behind `written_back` until it is closed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stream {
    older: Option<Span>,
    newest: Option<Span>,
    /// End of the last record that is in a log.
    pub logged: u64,
    logged_stamp: LogTime,
    /// End of what is on stable storage.
    pub durable: u64,
    /// All before is on the disk.
    pub written_back: u64,
    written_back_stamp: LogTime,
}

impl Stream {
    /// Nothing logged yet.
    pub const fn new() -> Self {
        const ZERO: LogTime = LogTime { secs: 0, nanos: 0 };
        Self {
            older: None,
            newest: None,
            logged: 0,
            logged_stamp: ZERO,
            durable: 0,
            written_back: 0,
            written_back_stamp: ZERO,
        }
    }

    /// The log that takes new records.
    pub fn newest(&self) -> Option<&Span> {
        self.newest.as_ref().filter(|s| s.end.is_none())
    }

    /// Number of the last log, open or closed.
    pub fn last_seq(&self) -> Option<u64> {
        self.newest.map(|s| s.seq)
    }

    /// Whether an older log is not complete.
    pub fn is_switching(&self) -> bool {
        self.older.is_some_and(|s| !s.complete)
    }

    /// Position in the newest log of a stream position.
    pub fn local(&self, position: u64) -> u64 {
        self.newest.map_or(0, |s| s.local(position))
    }

    /// Begins with byte `pos` of a log whose records before are all on the disk, the last one with `stamp`; returns
    /// the stream position.
    pub fn begin(&mut self, seq: u64, pos: u64, stamp: LogTime) -> u64 {
        let base = self.logged;
        let at = base + pos;
        self.older = None;
        self.newest = Some(Span {
            seq,
            base,
            end: None,
            last_stamp: stamp,
            complete: false,
        });
        (self.logged, self.durable, self.written_back) = (at, at, at);
        (self.logged_stamp, self.written_back_stamp) = (stamp, stamp);
        at
    }

    /// Goes on in the next log. All records are durable.
    pub fn switch(&mut self, seq: u64) {
        self.older = self.newest.map(|s| Span {
            end: Some(self.logged),
            last_stamp: self.logged_stamp,
            complete: self.written_back >= self.logged,
            ..s
        });
        self.newest = Some(Span {
            seq,
            base: self.logged,
            end: None,
            last_stamp: self.logged_stamp,
            complete: false,
        });
    }

    /// Takes back [`Self::begin`] of a log that took no record.
    pub fn forget(&mut self) {
        self.newest = None;
    }

    /// Records up to `position` are in the log, the last one with `stamp`.
    pub fn set_logged(&mut self, position: u64, stamp: LogTime) {
        self.logged = position;
        self.logged_stamp = stamp;
    }

    /// The log is on stable storage up to `position`.
    pub fn set_durable(&mut self, position: u64) {
        self.durable = self.durable.max(position);
    }

    /// Everything before `position` is on the disk; `stamp` is that of the record that ends there.
    pub fn set_written_back(&mut self, position: u64, stamp: LogTime) {
        self.written_back = position;
        self.written_back_stamp = stamp;
        if let Some(older) = &mut self.older {
            older.complete |= older.end.is_some_and(|end| position >= end);
        }
    }

    /// Ends the stream: all of it is on the disk. Of a broken log only what is durable counts; `complete` tells
    /// whether the last log is done with.
    pub fn close(&mut self, broken: bool, complete: bool) {
        let end = if broken { self.durable } else { self.logged };
        if !broken {
            self.written_back_stamp = self.logged_stamp;
        }
        (self.logged, self.durable, self.written_back) = (end, end, end);
        if let Some(older) = &mut self.older {
            older.complete = true;
        }
        let stamp = self.written_back_stamp;
        if let Some(newest) = &mut self.newest {
            newest.end.get_or_insert(end);
            newest.last_stamp = stamp;
            newest.complete |= complete;
        }
    }

    /// What is told, oldest first.
    pub fn positions(&self) -> impl Iterator<Item = Positions> + '_ {
        [self.older, self.newest]
            .into_iter()
            .flatten()
            .map(|span| self.positions_of(&span))
    }

    fn positions_of(&self, span: &Span) -> Positions {
        let whole = span.end.is_some_and(|end| self.written_back >= end);
        let stamp = if span.local(self.written_back) == 0 {
            LogTime::default()
        } else if whole {
            span.last_stamp
        } else {
            self.written_back_stamp
        };
        let logged = span.local(self.logged);
        let durable = span.local(self.durable).min(logged);
        Positions {
            seq: span.seq,
            logged,
            durable,
            // A failing log is overtaken by the disk; what is told stays in order.
            written_back: span.local(self.written_back).min(durable),
            stamp,
            complete: span.complete,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    fn time(secs: i64) -> LogTime {
        LogTime { secs, nanos: 0 }
    }

    fn told(stream: &Stream) -> Vec<(u64, [u64; 3], i64, bool)> {
        stream
            .positions()
            .map(|p| {
                let positions = [p.logged, p.durable, p.written_back];
                (p.seq, positions, p.stamp.secs, p.complete)
            })
            .collect()
    }

    #[test]
    fn positions_are_told_in_the_log_they_fall_into() {
        let mut stream = Stream::new();
        assert_eq!(stream.begin(7, 600, time(6)), 600);
        assert_eq!(told(&stream), [(7, [600, 600, 600], 6, false)]);
        stream.set_logged(1000, time(10));
        stream.set_durable(1000);
        stream.switch(8);
        assert!(stream.is_switching());
        stream.set_logged(1300, time(13));
        stream.set_durable(1100);
        stream.set_written_back(700, time(7));
        let old = (7, [1000, 1000, 700], 7, false);
        assert_eq!(told(&stream), [old, (8, [300, 100, 0], 0, false)]);
        stream.set_written_back(1050, time(11));
        assert!(!stream.is_switching());
        let old = (7, [1000, 1000, 1000], 10, true);
        assert_eq!(told(&stream), [old, (8, [300, 100, 50], 11, false)]);
        // The next switch forgets the complete one.
        stream.set_durable(1300);
        stream.switch(9);
        assert_eq!(
            told(&stream),
            [(8, [300, 300, 50], 11, false), (9, [0, 0, 0], 0, false)]
        );
    }

    #[test]
    fn a_log_written_back_at_the_switch_is_complete() {
        let mut stream = Stream::new();
        stream.begin(1, 0, time(0));
        stream.switch(2);
        assert!(!stream.is_switching());
        assert_eq!(told(&stream)[0], (1, [0, 0, 0], 0, true));
    }

    #[test]
    fn a_drained_stream_ends_with_its_last_record() {
        let mut stream = Stream::new();
        stream.begin(1, 0, time(0));
        stream.set_logged(500, time(5));
        stream.set_durable(500);
        stream.set_written_back(400, time(4));
        stream.close(false, true);
        assert_eq!(told(&stream), [(1, [500, 500, 500], 5, true)]);
        assert!(stream.newest().is_none());
        // A new one begins at its own zero.
        stream.begin(4, 0, time(9));
        assert_eq!(told(&stream), [(4, [0, 0, 0], 0, false)]);
    }

    #[test]
    fn of_a_broken_log_only_what_is_durable_counts() {
        let mut stream = Stream::new();
        stream.begin(1, 0, time(0));
        stream.set_logged(500, time(5));
        stream.set_durable(300);
        stream.set_written_back(900, time(4));
        assert_eq!(told(&stream), [(1, [500, 300, 300], 4, false)]);
        stream.close(true, false);
        assert_eq!(told(&stream), [(1, [300, 300, 300], 4, false)]);
        assert_eq!(stream.last_seq(), Some(1));
    }
}
