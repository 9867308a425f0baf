//! Rates: measures the bytes per second of a worker, and limits them.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(3);
const SHORTEST: Duration = Duration::from_secs(1);
const SLOT: Duration = Duration::from_millis(100);

/// Bytes per second over the last one to three seconds; the clock is the caller's.
#[derive(Debug, Clone, Default)]
pub struct RateMeter {
    slots: VecDeque<(Instant, u64)>,
    since: Option<Instant>,
}

impl RateMeter {
    /// A meter that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `bytes` that were moved at `now`.
    pub fn add(&mut self, now: Instant, bytes: u64) {
        self.since.get_or_insert(now);
        self.forget_old(now);
        match self.slots.back_mut() {
            Some((at, sum)) if now.saturating_duration_since(*at) < SLOT => {
                *sum = sum.saturating_add(bytes);
            }
            _ => self.slots.push_back((now, bytes)),
        }
    }

    /// Bytes per second as of `now`; 0 when nothing was moved in the last three seconds.
    pub fn rate(&mut self, now: Instant) -> u64 {
        self.forget_old(now);
        let Some(since) = self.since else { return 0 };
        let seen = now.saturating_duration_since(since);
        let millis = seen.clamp(SHORTEST, WINDOW).as_millis();
        let sum: u128 = self.slots.iter().map(|(_, n)| u128::from(*n)).sum();
        u64::try_from(sum * 1000 / millis).unwrap_or(u64::MAX)
    }

    fn forget_old(&mut self, now: Instant) {
        let old = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) >= WINDOW;
        while self.slots.front().is_some_and(old) {
            self.slots.pop_front();
        }
    }
}

/// A limit in bytes per second that may change at any time, shared by all workers that it applies to; 0 = off.
#[derive(Debug, Default)]
pub struct RateLimit {
    bytes_per_sec: AtomicU64,
    next: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// A limit of `bytes_per_sec`; 0 = off.
    pub fn new(bytes_per_sec: u64) -> Self {
        Self {
            bytes_per_sec: AtomicU64::new(bytes_per_sec),
            next: Mutex::new(None),
        }
    }

    /// Changes the limit; waits that have already begun are not shortened beyond one second.
    pub fn set(&self, bytes_per_sec: u64) {
        self.bytes_per_sec.store(bytes_per_sec, Ordering::Relaxed);
    }

    /// Waits until `bytes` more may be moved.
    pub async fn take(&self, bytes: u64) {
        let wait = self.reserve(Instant::now(), bytes);
        let until = Instant::now() + wait;
        while Instant::now() < until && self.bytes_per_sec.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep_until(until.min(Instant::now() + SHORTEST)).await;
        }
    }

    /// Books `bytes` at `now` and tells how long to wait before moving them.
    fn reserve(&self, now: Instant, bytes: u64) -> Duration {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.bytes_per_sec.load(Ordering::Relaxed);
        if limit == 0 {
            *next = None;
            return Duration::ZERO;
        }
        let start = next.unwrap_or(now).max(now);
        let millis = u128::from(bytes) * 1000 / u128::from(limit);
        let cost = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        *next = start.checked_add(cost.min(Duration::from_secs(3600)));
        start.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_follows_a_steady_flow_and_forgets_it() {
        let start = Instant::now();
        let mut meter = RateMeter::new();
        assert_eq!(meter.rate(start), 0);
        for tenth in 0..50 {
            meter.add(start + Duration::from_millis(tenth * 100), 1000);
        }
        let rate = meter.rate(start + Duration::from_secs(5));
        assert!((9_500..=10_000).contains(&rate), "{rate}");
        assert_eq!(meter.rate(start + Duration::from_secs(9)), 0);
    }

    #[test]
    fn the_first_bytes_do_not_make_a_wild_rate() {
        let start = Instant::now();
        let mut meter = RateMeter::new();
        meter.add(start, 5000);
        assert_eq!(meter.rate(start + Duration::from_millis(1)), 5000);
    }

    #[test]
    fn the_limit_spaces_out_and_can_be_switched_off() {
        let now = Instant::now();
        let limit = RateLimit::new(1000);
        assert_eq!(limit.reserve(now, 500), Duration::ZERO);
        assert_eq!(limit.reserve(now, 500), Duration::from_millis(500));
        let later = now + Duration::from_millis(700);
        assert_eq!(limit.reserve(later, 1), Duration::from_millis(300));
        limit.set(0);
        assert_eq!(limit.reserve(now, 1_000_000), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn taking_waits_in_time() {
        let limit = RateLimit::new(1000);
        let start = Instant::now();
        limit.take(2500).await;
        limit.take(1).await;
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(2500), "{waited:?}");
        assert!(waited < Duration::from_millis(2600), "{waited:?}");
    }
}
