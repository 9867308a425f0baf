//! Link stamps and the Lamport clock that makes them (`symlink-spec.md` section 2).

use core::fmt;

use serde::{Deserialize, Serialize};

/// Time of a link: seconds and nanoseconds since 1970 UTC, kept as the link's mtime. A greater stamp is a newer value.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds, below 1e9.
    pub nanos: u32,
}

const NANOS_PER_SEC: u32 = 1_000_000_000;

impl Stamp {
    /// A stamp from its parts; surplus nanoseconds are carried into the seconds.
    pub const fn new(secs: i64, nanos: u32) -> Self {
        Self {
            secs: secs.saturating_add((nanos / NANOS_PER_SEC) as i64),
            nanos: nanos % NANOS_PER_SEC,
        }
    }

    /// The smallest stamp after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.nanos + 1 < NANOS_PER_SEC {
            Self {
                secs: self.secs,
                nanos: self.nanos + 1,
            }
        } else {
            Self {
                secs: self.secs.saturating_add(1),
                nanos: 0,
            }
        }
    }

    /// Seconds from `earlier` to this stamp, negative if `earlier` is later.
    pub fn secs_since(self, earlier: Self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let whole = self.secs.saturating_sub(earlier.secs) as f64;
        whole + (f64::from(self.nanos) - f64::from(earlier.nanos)) / f64::from(NANOS_PER_SEC)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.secs, self.nanos)
    }
}

/// Lamport clock over wall time: every stamp it gives is later than all it has given or seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lamport {
    last: Stamp,
}

impl Lamport {
    /// A clock that has seen `last`.
    pub const fn new(last: Stamp) -> Self {
        Self { last }
    }

    /// The next stamp: the wall clock, or one nanosecond after the last stamp where the wall clock lags.
    pub fn tick(&mut self, wall: Stamp) -> Stamp {
        self.last = wall.max(self.last.next());
        self.last
    }

    /// Takes note of a stamp seen elsewhere.
    pub fn observe(&mut self, seen: Stamp) {
        self.last = self.last.max(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_never_repeat_and_pass_what_was_seen() {
        let mut clock = Lamport::default();
        let wall = Stamp::new(100, 5);
        assert_eq!(clock.tick(wall), wall);
        assert_eq!(clock.tick(wall), Stamp::new(100, 6));
        clock.observe(Stamp::new(200, 999_999_999));
        assert_eq!(clock.tick(wall), Stamp::new(201, 0));
    }
}
