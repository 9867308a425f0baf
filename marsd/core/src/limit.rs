//! Limits of rates: a token bucket that is told the time, and the load average as the system shows it.

use core::time::Duration;

/// Unused time that may be made up for: timers are late, and on a loaded machine very late.
const SLACK: Duration = Duration::from_millis(500);
/// Waits are never longer, however much was booked.
const LONGEST: Duration = Duration::from_secs(3600);

/// A limit in units per second; 0 = off. Time is counted from any moment, the same in all calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    per_sec: u64,
    /// When everything that was booked will have been moved at the allowed rate.
    paid: Duration,
}

impl Bucket {
    /// A limit of `per_sec`; 0 = off.
    pub const fn new(per_sec: u64) -> Self {
        Self {
            per_sec,
            paid: Duration::ZERO,
        }
    }

    /// The limit.
    pub const fn per_sec(&self) -> u64 {
        self.per_sec
    }

    /// Changes the limit at `now`. What was booked beyond now is forgotten: it was counted at another rate.
    pub fn set(&mut self, now: Duration, per_sec: u64) {
        if self.per_sec != per_sec {
            self.per_sec = per_sec;
            self.paid = now;
        }
    }

    /// Books `amount` that was moved at `now`, and tells how long to wait before more is.
    pub fn book(&mut self, now: Duration, amount: u64) -> Duration {
        self.book_turn(now, amount);
        if self.per_sec == 0 {
            return Duration::ZERO;
        }
        self.paid.saturating_sub(now)
    }

    /// Books `amount` at `now`, and tells how long to wait before it may be moved.
    pub fn book_turn(&mut self, now: Duration, amount: u64) -> Duration {
        if self.per_sec == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.per_sec);
        let cost = u64::try_from(nanos).map_or(LONGEST, Duration::from_nanos);
        let start = self.paid.max(now.saturating_sub(SLACK));
        self.paid = start.saturating_add(cost).min(now.saturating_add(LONGEST));
        start.saturating_sub(now)
    }

    /// A portion small enough to be moved at once: a twentieth of a second, 512 bytes to 256 KiB; anything without a
    /// limit.
    pub fn portion(&self) -> usize {
        const MOST: usize = 256 * 1024;
        match self.per_sec {
            0 => usize::MAX,
            rate => usize::try_from(rate / 20).unwrap_or(MOST).clamp(512, MOST),
        }
    }
}

/// The load average of one minute in hundredths, out of the text of `/proc/loadavg`.
pub fn parse_loadavg(text: &str) -> Option<u64> {
    let (whole, part) = text.split_whitespace().next()?.split_once('.')?;
    let part = part.get(..2)?;
    if !(whole.bytes().chain(part.bytes())).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(100)?.checked_add(part.parse().ok()?)
}

/// All memory of the machine in bytes, out of the text of `/proc/meminfo`.
pub fn parse_memory(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The part of `total` bytes of memory that each of `users` may use if all together may use `percent`; `None`: no limit.
pub fn memory_share(total: u64, percent: u64, users: usize) -> Option<u64> {
    let users = u64::try_from(users).unwrap_or(u64::MAX).max(1);
    (percent > 0).then(|| total / 100 * percent.min(100) / users)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Moves portions as fast as allowed, with timers that are late, and returns what was moved in `secs` seconds.
    fn moved(mut bucket: Bucket, secs: u32, late: Duration) -> u64 {
        let (mut now, mut sum) = (Duration::from_secs(1000), 0);
        bucket.set(now, bucket.per_sec());
        bucket.paid = now;
        let end = now + Duration::from_secs(1) * secs;
        while now < end {
            let part = u64::try_from(bucket.portion()).unwrap();
            let wait = bucket.book(now, part);
            sum += part;
            now += if wait.is_zero() {
                MS / 100
            } else {
                wait + late
            };
        }
        sum
    }

    #[test]
    fn the_rate_is_kept_and_half_the_limit_moves_half() {
        for late in [Duration::ZERO, 4 * MS, 60 * MS] {
            let whole = moved(Bucket::new(8 << 20), 20, late);
            let half = moved(Bucket::new(4 << 20), 20, late);
            let wanted = 20 * (8 << 20);
            assert!(
                whole.abs_diff(wanted) * 50 < wanted,
                "{whole} of {wanted}, {late:?}"
            );
            assert!(half.abs_diff(wanted / 2) * 50 < wanted, "{half}, {late:?}");
        }
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut bucket = Bucket::new(1000);
        let now = Duration::from_secs(100);
        assert_eq!(bucket.book(now, 500), Duration::ZERO);
        assert_eq!(bucket.book(now, 500), 500 * MS);
        assert_eq!(bucket.book_turn(now, 500), 500 * MS);
        assert_eq!(bucket.book_turn(now, 500), 1000 * MS);
        let later = now + Duration::from_secs(60);
        assert_eq!(bucket.book(later, 1500), Duration::from_secs(1));
    }

    #[test]
    fn a_change_counts_at_once_and_nothing_overflows() {
        let now = Duration::from_secs(100);
        let mut bucket = Bucket::new(1);
        assert_eq!(bucket.book(now, u64::MAX), LONGEST - SLACK);
        bucket.set(now, 1000);
        assert_eq!(bucket.book(now, 100), 100 * MS);
        bucket.set(now, 0);
        assert_eq!(bucket.book(now, u64::MAX), Duration::ZERO);
        assert_eq!(Bucket::new(u64::MAX).portion(), 256 * 1024);
        assert_eq!(Bucket::new(1).portion(), 512);
    }

    #[test]
    fn what_the_system_shows_is_read() {
        assert_eq!(parse_loadavg("0.07 1.00 2.00 1/234 5678\n"), Some(7));
        assert_eq!(parse_loadavg("12.50 1.00"), Some(1250));
        for bad in ["", "x", "-1.00", "1", "1.x0", "+1.00"] {
            assert_eq!(parse_loadavg(bad), None, "{bad}");
        }
        let table = "MemTotal:        8140336 kB\nMemFree: 1 kB\n";
        assert_eq!(parse_memory(table), Some(8_140_336 * 1024));
        assert_eq!(parse_memory("MemTotal: much"), None);
    }

    #[test]
    fn memory_is_shared_in_equal_parts() {
        assert_eq!(memory_share(8 << 30, 0, 1), None);
        let whole = memory_share(8_000_000_000, 20, 1);
        assert_eq!(whole, Some(1_600_000_000));
        assert_eq!(memory_share(8_000_000_000, 10, 1), Some(800_000_000));
        assert_eq!(memory_share(8_000_000_000, 20, 4), Some(400_000_000));
        assert_eq!(memory_share(8_000_000_000, 20, 0), whole);
    }
}
