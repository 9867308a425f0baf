//! What of the logs is here and how much of it is applied (`symlink-spec.md` sections 11.2 and 11.4).

use alloc::collections::BTreeMap;

use crate::link::{ActualKey, LinkPath, ResourceLink};
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;
use crate::stamp::Stamp;
use crate::tree::Tree;
use crate::version::VersionValue;

use super::percent::Percent;
use super::{Context, known_end, rate};

/// The log that a node works on, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayStatus {
    /// The log, if the node has a replay link.
    pub log: Option<LogName>,
    /// Bytes of it on the node that asks; `None` if it is missing or empty there.
    pub size_bytes: Option<u64>,
    /// Bytes applied.
    pub pos: u64,
    /// Bytes known to be still to do.
    pub todo_bytes: i64,
    /// Bytes of logs received per second.
    pub file_rate: i64,
    /// Bytes replayed per second.
    pub replay_rate: i64,
    /// Seconds between writing and replaying, if that says something.
    pub delay_secs: Option<u64>,
    /// Bytes of logs up to their known end that are not applied; at least this much where sizes are not known.
    pub behind_bytes: u64,
    /// Seconds that the node is behind: its delay, or the time since it last applied anything, whichever is longer;
    /// 0 if it is not behind.
    pub lag_secs: u64,
    /// What follows from it.
    pub state: Replay,
}

/// What replay is doing, as far as it is seen from the positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// Bytes are there, less than one percent of them is applied.
    Stopped(Percent),
    /// A part of the bytes that are there is applied.
    Running(Percent),
    /// All bytes that are here are applied, but the node itself has more to do.
    Dirty(Percent),
    /// All is applied that is here, but more is known to exist.
    Behind {
        /// The known end of all logs.
        end: ReplayPos,
    },
    /// All is applied.
    Wait,
    /// The node has no (readable) replay link.
    Unknown,
}

impl ReplayStatus {
    /// How far `host` is, as seen on `me`.
    pub fn of(tree: &Tree, view: &ResourceView<'_>, host: &HostName, ctx: &Context<'_>) -> Self {
        let me = ctx.me;
        let link = view.replay(host);
        let pos = link.as_ref().map_or(0, |r| r.pos);
        let todo_bytes = match &link {
            Some(r) if r.pos > 0 => r.dirty_len,
            _ => 0,
        };
        let log = link.as_ref().map(|r| r.log.clone());
        let size_bytes = log
            .as_ref()
            .and_then(|log| shown_log_size(view, log, me))
            .filter(|size| *size > 0 && view.device(me).is_some());
        let serving = view.actual(host, ActualKey::IsPrimary);
        let behind = link.as_ref().and_then(|at| behind(view, host, at));
        let state = match link {
            Some(_) => state(pos, todo_bytes, size_bytes, serving, behind.as_ref()),
            None => Replay::Unknown,
        };
        let delay_secs = behind.as_ref().and_then(|_| delay_secs(tree, view, host));
        let standing = |_| standing_secs(tree, view, host, ctx.now);
        Self {
            behind_bytes: match (&link, &behind) {
                (Some(at), Some(end)) => behind_bytes(view, at, end),
                _ => 0,
            },
            lag_secs: behind
                .as_ref()
                .map_or(0, standing)
                .max(delay_secs.unwrap_or(0)),
            log,
            size_bytes,
            pos,
            todo_bytes,
            file_rate: rate(view, host, ActualKey::FileRate),
            replay_rate: rate(view, host, ActualKey::ReplayRate),
            delay_secs,
            state,
        }
    }
}

fn state(
    pos: u64,
    todo_bytes: i64,
    size_bytes: Option<u64>,
    serving: bool,
    behind: Option<&ReplayPos>,
) -> Replay {
    if let Some(size) = size_bytes {
        let percent = Percent::of(pos, size);
        // Less than one percent written back is nothing special on the node that writes the log.
        if percent < Percent::ONE && !serving {
            return Replay::Stopped(percent);
        }
        if percent < Percent::FULL {
            return Replay::Running(percent);
        }
    }
    if let Ok(todo @ 1..) = u64::try_from(todo_bytes) {
        return Replay::Dirty(Percent::of(pos.saturating_sub(todo), pos));
    }
    match behind {
        Some(end) => Replay::Behind { end: end.clone() },
        None => Replay::Wait,
    }
}

/// The end that others are known to have reached, if `host` at `at` has not.
fn behind(view: &ResourceView<'_>, host: &HostName, at: &ReplayPos) -> Option<ReplayPos> {
    if view.is_designated_primary(host) {
        return None;
    }
    known_end(view).filter(|end| end.order() > at.order())
}

/// Bytes between two positions. Of a log that is not here the longest known version counts, else nothing.
fn behind_bytes(view: &ResourceView<'_>, at: &ReplayPos, end: &ReplayPos) -> u64 {
    if at.log.seq == end.log.seq {
        return end.pos.saturating_sub(at.pos);
    }
    let mut lengths: BTreeMap<u64, u64> = BTreeMap::new();
    let mut longest = |seq: u64, bytes: u64| {
        if (at.log.seq..end.log.seq).contains(&seq) {
            let known = lengths.entry(seq).or_default();
            *known = bytes.max(*known);
        }
    };
    view.logs().for_each(|(log, bytes)| longest(log.seq, bytes));
    for (link, value) in view.links() {
        if let (ResourceLink::Version(seq, _), Ok(value)) = (link, VersionValue::parse(value)) {
            longest(*seq, value.pos);
        }
    }
    let between = lengths
        .values()
        .fold(0_u64, |sum, n| sum.saturating_add(*n));
    let rest = between.saturating_sub(at.pos);
    rest.saturating_add(end.pos)
}

/// Seconds since the replay link of `host` was last written.
fn standing_secs(tree: &Tree, view: &ResourceView<'_>, host: &HostName, now: Stamp) -> u64 {
    let link = LinkPath::res(view.name(), ResourceLink::Replay(host.clone()));
    let since = tree.stamp(&link).map_or(now.secs, |stamp| stamp.secs);
    u64::try_from(now.secs.saturating_sub(since)).unwrap_or(0)
}

/// Size of a log on `me`. The writer's file may be longer than its records, so there its published end counts.
pub(super) fn shown_log_size(view: &ResourceView<'_>, log: &LogName, me: &HostName) -> Option<u64> {
    let file = view.log_size(log)?;
    if &log.host != me {
        return Some(file);
    }
    let end = match view.replay(me) {
        Some(at) if at.log == *log => Some(super::end_of(&at).pos),
        Some(at) if at.log.seq < log.seq => view.version(log.seq, me).map(|v| v.pos),
        _ => None,
    };
    Some(end.map_or(file, |end| file.min(end)))
}

/// Time from writing to replaying of the last record that `host` applied, in seconds.
fn delay_secs(tree: &Tree, view: &ResourceView<'_>, host: &HostName) -> Option<u64> {
    let link = ResourceLink::Actual(host.clone(), ActualKey::Timestamp);
    let link = tree.links.get(&LinkPath::res(view.name(), link))?;
    let (secs, nanos) = link.value.split(',').nth(4)?.split_once('.')?;
    let written = Stamp::new(secs.parse().ok()?, nanos.parse().ok()?);
    if written == Stamp::default() {
        return None;
    }
    let secs = link
        .stamp
        .secs
        .saturating_sub(written.secs)
        .saturating_sub(i64::from(link.stamp.nanos < written.nanos));
    Some(u64::try_from(secs).unwrap_or(0))
}
