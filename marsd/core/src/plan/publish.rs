//! The links by which a node says what it does: its own positions, rates and states (`symlink-spec.md` section 4).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Facts, ShimFacts, log::chain_version};
use crate::link::{ActualKey, ResourceLink};
use crate::log_format::LogTime;
use crate::name::{HostName, ResourceName};
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;

/// Measured facts of one resource, beside those that planning needs.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Real size of the disk in bytes.
    pub disk_bytes: Option<u64>,
    /// Contiguous bytes synced by a running sync.
    pub synced: Option<u64>,
    /// Equal and different 4 KiB blocks of a running sync.
    pub verified: Option<(u64, u64)>,
    /// Bytes per second replayed.
    pub replay_rate: u64,
    /// Bytes per second of logs received.
    pub file_rate: u64,
    /// Bytes per second synced.
    pub sync_rate: u64,
    /// Whether a log is being fetched.
    pub fetching: bool,
    /// Whether a fetch ever ran.
    pub fetched_once: bool,
    /// Whether a sync ever ran.
    pub synced_once: bool,
    /// Write time of the newest record applied.
    pub applied_time: LogTime,
    /// The log that the shim writes and its end on stable storage: what the version link of that log speaks of.
    pub log_durable: Option<(LogName, u64)>,
    /// Why something is stopped.
    pub error: Option<String>,
}

/// What the own links of one resource should say now. A primary says that it is one before it speaks of its log; one
/// that is none any more says so last: who sees that may take over, and must have seen the end of the log.
pub fn publish(
    view: ResourceView<'_>,
    facts: &Facts,
    seen: &Published,
    me: &HostName,
) -> Vec<(ResourceLink, String)> {
    let mut out = Vec::new();
    let flag = |on: bool| if on { "1" } else { "0" }.to_string();
    let Some(pos) = &facts.pos else { return out };
    let mut actual =
        |key: ActualKey, value: String| out.push((ResourceLink::Actual(me.clone(), key), value));
    let up = match &facts.shim {
        ShimFacts::Off => false,
        ShimFacts::Up(status) => status.device.is_some(),
        ShimFacts::Down(_) => true,
    };
    let still = view.actual(me, ActualKey::IsPrimary) && unread_log(view, facts, pos, me);
    let primary = up || still;
    if primary {
        actual(ActualKey::IsPrimary, flag(true));
    }
    if let Some(name) = view.device(me).and_then(|d| ResourceName::new(d).ok()) {
        actual(ActualKey::Device(name), flag(up));
    }
    // A daemon that was killed has left its links behind.
    let left = |key: ActualKey| view.actual(me, key);
    if seen.synced_once || facts.syncing || left(ActualKey::CopySyncstatus(me.clone())) {
        actual(ActualKey::CopySyncstatus(me.clone()), flag(facts.syncing));
        actual(ActualKey::SyncRate, seen.sync_rate.to_string());
    }
    if seen.fetched_once || seen.fetching || left(ActualKey::LogfileUpdate) {
        actual(ActualKey::LogfileUpdate, flag(seen.fetching));
        actual(ActualKey::FileRate, seen.file_rate.to_string());
    }
    actual(ActualKey::ReplayRate, seen.replay_rate.to_string());
    let LogTime { secs, nanos } = seen.applied_time;
    let timestamp = format!(
        "{},{:09},{},{},{secs}.{nanos:09}",
        pos.log.host, pos.log.seq, pos.pos, pos.dirty_len
    );
    actual(ActualKey::Timestamp, timestamp);
    let error = seen
        .error
        .as_deref()
        .map(|e| e.replace('\n', " ").chars().take(900).collect::<String>());
    if error.is_some()
        || view
            .get(ResourceLink::Actual(me.clone(), ActualKey::Error))
            .is_some()
    {
        actual(ActualKey::Error, error.unwrap_or_else(|| "none".into()));
    }
    if let Some(bytes) = seen.disk_bytes {
        out.push((ResourceLink::ActSize(me.clone()), bytes.to_string()));
    }
    if let Some((ok, bad)) = seen.verified {
        out.push((
            ResourceLink::VerifyStatus(me.clone()),
            format!("{ok},{bad}"),
        ));
    }
    if let Some(bytes) = seen.synced {
        out.push((ResourceLink::SyncStatus(me.clone()), bytes.to_string()));
    }
    let durable = seen.log_durable.as_ref().filter(|(log, _)| *log == pos.log);
    let end = durable.map_or(pos.pos, |(_, end)| *end);
    out.extend(position_links(view, pos, end, me));
    if !primary {
        let link = ResourceLink::Actual(me.clone(), ActualKey::IsPrimary);
        out.push((link, flag(false)));
    }
    out
}

/// Whether `host` has said what it does after the present value of `primary` was written, thus knowing it
/// (`symlink-spec.md` section 8.4).
pub fn knows_primary(view: ResourceView<'_>, host: &HostName) -> bool {
    let said = view.stamp(ResourceLink::Actual(host.clone(), ActualKey::IsPrimary));
    view.primary_stamp().is_none_or(|set| said > Some(set))
}

/// Whether the own log may hold writes that were acknowledged before a crash and that nobody knows of.
fn unread_log(view: ResourceView<'_>, facts: &Facts, pos: &ReplayPos, me: &HostName) -> bool {
    let own = pos.log.host == *me && view.log_size(&pos.log).is_some();
    own && facts.log_end.is_none()
}

/// The version and the replay link at `pos`, the version first: who sees the position sees the digest for it.
pub fn position_links(
    view: ResourceView<'_>,
    pos: &ReplayPos,
    log_end: u64,
    me: &HostName,
) -> Vec<(ResourceLink, String)> {
    let mut out = Vec::new();
    let end = ReplayPos {
        pos: log_end.max(pos.pos),
        ..pos.clone()
    };
    if let Some(version) = chain_version(view, me, &end) {
        out.push((ResourceLink::Version(pos.log.seq, me.clone()), version));
    }
    out.push((ResourceLink::Replay(me.clone()), pos.to_string()));
    out
}
