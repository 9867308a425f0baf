//! How far the disk of a node is a copy, and whether it is a consistent one (`symlink-spec.md` sections 8.5 and 11.2).

use crate::link::{ActualKey, ResourceLink};
use crate::name::HostName;
use crate::position::ReplayPos;
use crate::resource::ResourceView;

use super::percent::Percent;
use super::rate;

/// State of the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncStatus {
    /// Bytes synced; 0 if not known.
    pub done_bytes: u64,
    /// Part of the resource that is synced.
    pub percent: Percent,
    /// Bytes per second.
    pub rate: i64,
    /// What may be said of the copy.
    pub state: Copy,
}

/// What may be said of the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    /// Parts of it are missing.
    Incomplete,
    /// All of it is there, but of different times, until the logs are replayed up to here.
    NotConsistent {
        /// From here on it is consistent.
        until: ReplayPos,
        /// Where replay is, if that is known.
        now: Option<ReplayPos>,
    },
    /// Complete and consistent.
    Good,
}

impl SyncStatus {
    /// The state of the copy on `host`.
    pub fn of(view: &ResourceView<'_>, host: &HostName) -> Self {
        let size = view.size_bytes().unwrap_or(0);
        let done = view.sync_status(host);
        let done_bytes = done.unwrap_or(0);
        let complete = done.is_some() && view.size_bytes().is_some() && done_bytes >= size;
        let percent = if complete && size == 0 {
            Percent::FULL
        } else {
            Percent::of(done_bytes, size)
        };
        Self {
            done_bytes,
            percent,
            rate: rate(view, host, ActualKey::SyncRate),
            state: if complete {
                consistency(view, host)
            } else {
                Copy::Incomplete
            },
        }
    }
}

fn consistency(view: &ResourceView<'_>, host: &HostName) -> Copy {
    // An unreadable position is no permission: only a missing one means that the sync was consistent at once.
    if view.get(ResourceLink::SyncPos(host.clone())).is_none() {
        return Copy::Good;
    }
    let now = view.replay(host);
    match (view.sync_pos(host), now) {
        (Some(until), Some(now)) if now.order() >= until.order() => Copy::Good,
        (Some(until), now) => Copy::NotConsistent { until, now },
        (None, _) => Copy::Incomplete,
    }
}
