//! What a service manager is told, if one listens: systemd's protocol of `NOTIFY_SOCKET` and its watchdog.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// Signs of life for the watchdog.
#[derive(Debug)]
pub struct Watchdog {
    interval: Option<Duration>,
    last: Option<Instant>,
}

impl Watchdog {
    /// As often as the environment asks for; never if it does not.
    pub fn from_env() -> Self {
        Self {
            // Often enough that one that is lost does no harm.
            interval: sd_notify::watchdog_enabled().map(|timeout| timeout / 3),
            last: None,
        }
    }

    /// Gives a sign of life, if it is time to.
    pub fn beat(&mut self, now: Instant) {
        let due = |interval| self.last.is_none_or(|last| now >= last + interval);
        if self.interval.is_some_and(due) {
            self.last = Some(now);
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// The daemon is ready; `status` says for what.
pub fn tell_ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon is about to end.
pub fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("the service manager cannot be told: {e}");
    }
}
