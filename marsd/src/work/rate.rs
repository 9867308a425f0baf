//! Rates: measures the bytes per second of a worker, and limits them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mars_core::limit::Bucket;
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

/// A limit in bytes per second that may change at any time, shared by all workers that it applies to; it also counts.
#[derive(Debug)]
pub struct RateLimit {
    epoch: Instant,
    bucket: Mutex<Bucket>,
    moved: AtomicU64,
}

impl RateLimit {
    /// A limit of `bytes_per_sec`; 0 = off.
    pub fn new(bytes_per_sec: u64) -> Self {
        Self {
            epoch: Instant::now(),
            bucket: Mutex::new(Bucket::new(bytes_per_sec)),
            moved: AtomicU64::new(0),
        }
    }

    /// Changes the limit; waits that have already begun are not shortened.
    pub fn set(&self, bytes_per_sec: u64) {
        let now = self.now();
        self.bucket().set(now, bytes_per_sec);
    }

    /// Counts `bytes` that were moved, and tells how long to wait before more are.
    pub fn book(&self, bytes: u64) -> Duration {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        let now = self.now();
        self.bucket().book(now, bytes)
    }

    /// Counts `bytes` that are about to be moved, and tells how long to wait before.
    pub fn book_turn(&self, bytes: u64) -> Duration {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        let now = self.now();
        self.bucket().book_turn(now, bytes)
    }

    /// Bytes that may be moved at once.
    pub fn portion(&self) -> usize {
        self.bucket().portion()
    }

    /// Bytes moved so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Limits that apply together, such as that of the node and that of a resource; none at all is no limit.
#[derive(Debug, Clone, Default)]
pub struct RateLimits(Vec<Arc<RateLimit>>);

impl RateLimits {
    /// All of these.
    pub fn new(limits: impl IntoIterator<Item = Arc<RateLimit>>) -> Self {
        Self(limits.into_iter().collect())
    }

    /// [`RateLimit::book`] on all.
    pub fn book(&self, bytes: u64) -> Duration {
        let waits = self.0.iter().map(|limit| limit.book(bytes));
        waits.max().unwrap_or_default()
    }

    /// Bytes that all of them let pass at once.
    pub fn portion(&self) -> usize {
        let portions = self.0.iter().map(|limit| limit.portion());
        portions.min().unwrap_or(usize::MAX)
    }

    /// [`RateLimit::book_turn`] on all.
    pub fn book_turn(&self, bytes: u64) -> Duration {
        let waits = self.0.iter().map(|limit| limit.book_turn(bytes));
        waits.max().unwrap_or_default()
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

    #[tokio::test(start_paused = true)]
    async fn taking_waits_in_time_for_the_lowest_limit_and_all_count() {
        let [low, high] = [1000, 5000].map(|rate| Arc::new(RateLimit::new(rate)));
        let both = RateLimits::new([low.clone(), high.clone()]);
        assert_eq!(both.portion(), 512);
        let start = Instant::now();
        for _ in 0..10 {
            tokio::time::sleep(both.book(500)).await;
        }
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(4500), "{waited:?}");
        assert!(waited < Duration::from_millis(5100), "{waited:?}");
        assert_eq!((low.moved(), high.moved()), (5000, 5000));
        low.set(0);
        assert_eq!(both.book(500), Duration::ZERO);
        assert_eq!(RateLimits::default().book_turn(u64::MAX), Duration::ZERO);
    }
}
