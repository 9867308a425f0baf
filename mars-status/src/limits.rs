//! The limits of `--monitor` for how far this node is behind (`symlink-spec.md` section 11.5).

use mars_core::status::ReplayStatus;

use crate::exit::Exit;

/// Two limits of one quantity, which a value has to exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// Above this: WARNING.
    pub warn: Option<u64>,
    /// Above this: CRITICAL.
    pub crit: Option<u64>,
}

/// All limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Seconds that replay is behind.
    pub lag_secs: Limit,
    /// Bytes of logs that are not replayed.
    pub behind_bytes: Limit,
}

impl Limit {
    /// Whether one is given.
    pub const fn any(self) -> bool {
        self.warn.is_some() || self.crit.is_some()
    }

    /// The code for a value, and the limit that it exceeds.
    pub fn judge(self, value: u64) -> (Exit, Option<u64>) {
        let exceeded = |limit: Option<u64>| limit.filter(|limit| value > *limit);
        match (exceeded(self.crit), exceeded(self.warn)) {
            (Some(limit), _) => (Exit::CRITICAL, Some(limit)),
            (None, Some(limit)) => (Exit::WARNING, Some(limit)),
            (None, None) => (Exit::OK, None),
        }
    }
}

impl Limits {
    /// Whether one is given.
    pub const fn any(self) -> bool {
        self.lag_secs.any() || self.behind_bytes.any()
    }

    /// # Errors
    /// A warning that would come later than the alarm.
    pub(crate) fn check(self) -> Result<(), String> {
        for (name, limit) in [("lag", self.lag_secs), ("behind", self.behind_bytes)] {
            if let (Some(warn), Some(crit)) = (limit.warn, limit.crit)
                && warn > crit
            {
                return Err(format!(
                    "--warn-{name} {warn} is above --crit-{name} {crit}: swap them"
                ));
            }
        }
        Ok(())
    }

    /// The worst code of both quantities.
    pub fn judge(self, replay: &ReplayStatus) -> Exit {
        let lag = self.lag_secs.judge(replay.lag_secs).0;
        let behind = self.behind_bytes.judge(replay.behind_bytes).0;
        lag.max(behind)
    }
}
