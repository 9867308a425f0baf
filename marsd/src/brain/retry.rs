//! A fetch that failed: when it is tried again, and what is shown of it.

use std::time::Duration;

use mars_core::{LogName, ResourceName};

/// Time before a fetch that failed is tried again; it doubles as long as it fails in the same way.
const FIRST: Duration = Duration::from_secs(1);
/// It doubles so many times at most.
const DOUBLED: u32 = 3;
/// A peer that has refused so many times in a row will not send that log.
const PROVEN: u32 = 3;

/// Why a fetch failed, and how often in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchFailure {
    text: String,
    is_refused: bool,
    tries: u32,
}

impl FetchFailure {
    /// The failure that follows `before`; `is_refused` if the peer has said why it does not send the log.
    pub(super) fn after(
        before: Option<&Self>,
        log: &LogName,
        cause: &str,
        is_refused: bool,
    ) -> Self {
        let text = format!("fetch of {log}: {cause}");
        let same = before.filter(|old| old.text == text);
        Self {
            tries: same.map_or(0, |old| old.tries).saturating_add(1),
            text,
            is_refused,
        }
    }

    /// Whether it did not fail in this way before.
    pub(super) fn is_new(&self) -> bool {
        self.tries == 1
    }

    /// Time before the next try.
    pub(super) fn pause(&self) -> Duration {
        FIRST * (1 << self.tries.saturating_sub(1).min(DOUBLED))
    }

    /// What is shown, with the way out once waiting is of no use.
    pub(super) fn shown(&self, res: &ResourceName) -> String {
        if self.is_refused && self.tries >= PROVEN {
            return format!(
                "{}; if this stays: 'marsadm log-rotate {res}' on the primary, then 'marsadm invalidate {res}' here",
                self.text
            );
        }
        self.text.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_in_the_same_way_is_tried_less_often_and_names_the_way_out() {
        let log = LogName::parse("log-000000001-A").unwrap();
        let res = ResourceName::new("r1").unwrap();
        let mut pauses = Vec::new();
        let mut last: Option<FetchFailure> = None;
        for round in 1..=6 {
            let failure = FetchFailure::after(last.as_ref(), &log, "A does not send it", true);
            pauses.push(failure.pause().as_secs());
            assert_eq!(failure.is_new(), round == 1);
            let names_it = failure.shown(&res).contains("'marsadm invalidate r1' here");
            assert_eq!(names_it, round >= 3, "{round}");
            last = Some(failure);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
        let other = FetchFailure::after(last.as_ref(), &log, "connection lost", false);
        assert!(other.is_new() && other.pause() == FIRST);
        let mut own = other;
        for _ in 0..5 {
            own = FetchFailure::after(Some(&own), &log, "connection lost", false);
        }
        assert!(!own.shown(&res).contains("invalidate"), "nothing is lost");
    }
}
