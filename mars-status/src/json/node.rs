//! A node as JSON: what its block on the screen shows.

use mars_core::ReplayPos;
use mars_core::status::{
    Condition, Copy, Member, NodeStatus, Percent, Replay, ReplayStatus, SyncStatus,
};
use serde::Serialize;

use super::AliveJson;
use crate::facts::Mount;
use crate::model::Resource;

#[derive(Debug, Serialize)]
pub(super) struct NodeJson<'a> {
    host: &'a str,
    is_local: bool,
    role: &'static str,
    state: &'static str,
    is_connected: bool,
    conditions: Vec<ConditionJson<'a>>,
    member: Option<MemberJson<'a>>,
}

#[derive(Debug, Serialize)]
struct ConditionJson<'a> {
    text: &'a str,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct MemberJson<'a> {
    alive: AliveJson,
    disk: Option<&'a str>,
    disk_size_bytes: Option<u64>,
    device: String,
    mount_state: Option<&'static str>,
    mount_point: Option<&'a str>,
    sync: SyncJson,
    verify: Option<VerifyJson>,
    replay: ReplayJson,
    is_serving: bool,
    is_device_on: bool,
    is_sync_on: bool,
    is_fetch_on: bool,
    error: Option<&'a str>,
    switches: SwitchesJson,
}

#[derive(Debug, Serialize)]
struct SyncJson {
    state: &'static str,
    done_bytes: u64,
    done_percent: f64,
    rate_bytes_per_sec: i64,
    consistent_from: Option<PositionJson>,
}

#[derive(Debug, Serialize)]
struct VerifyJson {
    done_bytes: u64,
    done_percent: f64,
}

#[derive(Debug, Serialize)]
struct ReplayJson {
    state: &'static str,
    log: Option<String>,
    log_size_bytes: Option<u64>,
    pos_bytes: u64,
    todo_bytes: i64,
    done_percent: f64,
    behind_bytes: u64,
    lag_secs: u64,
    delay_secs: Option<u64>,
    replay_rate_bytes_per_sec: i64,
    fetch_rate_bytes_per_sec: i64,
    known_end: Option<PositionJson>,
}

#[derive(Debug, Serialize)]
struct PositionJson {
    log: String,
    pos_bytes: u64,
}

#[derive(Debug, Serialize)]
struct SwitchesJson {
    attach: bool,
    connect: bool,
    sync: bool,
    allow_replay: bool,
}

impl<'a> NodeJson<'a> {
    pub(super) fn of(resource: &'a Resource, node: &'a NodeStatus) -> Self {
        Self {
            host: node.host.as_str(),
            is_local: node.is_local,
            role: node.role.as_str(),
            state: node.code().map_or("unknown", |code| code.as_str()),
            is_connected: node.is_connected(),
            conditions: node.conditions.iter().map(ConditionJson::of).collect(),
            member: node
                .member
                .as_ref()
                .map(|member| MemberJson::of(resource, node, member)),
        }
    }
}

impl<'a> ConditionJson<'a> {
    fn of(condition: &'a Condition) -> Self {
        Self {
            text: &condition.text,
            state: condition.code.as_str(),
        }
    }
}

impl<'a> MemberJson<'a> {
    fn of(resource: &'a Resource, node: &NodeStatus, member: &'a Member) -> Self {
        // Only of the own node it is known, and looked up for the screen only.
        let (mount_state, mount_point) = match &resource.mount {
            _ if !node.is_local || !resource.is_mount_known => (None, None),
            Mount::NoDevice => (Some("no device"), None),
            Mount::NotMounted => (Some("not mounted"), None),
            Mount::At(dir) => (Some("mounted"), Some(dir.as_str())),
        };
        let [attach, connect, sync, allow_replay] = member.switches;
        Self {
            alive: member.alive.into(),
            disk: member.disk.as_deref(),
            disk_size_bytes: member.act_size_bytes,
            device: format!("/dev/mars/{}", member.device),
            mount_state,
            mount_point,
            sync: SyncJson::of(&member.sync),
            verify: member.verify.map(|verify| VerifyJson {
                done_bytes: verify.done_bytes,
                done_percent: percent(verify.percent),
            }),
            replay: ReplayJson::of(&member.replay),
            is_serving: member.is_serving,
            is_device_on: member.device_on,
            is_sync_on: member.sync_on,
            is_fetch_on: member.fetch_on,
            error: member.error.as_deref(),
            switches: SwitchesJson {
                attach,
                connect,
                sync,
                allow_replay,
            },
        }
    }
}

impl SyncJson {
    fn of(sync: &SyncStatus) -> Self {
        let (state, until) = match &sync.state {
            Copy::Good => ("good", None),
            Copy::Incomplete => ("incomplete", None),
            Copy::NotConsistent { until, .. } => ("not consistent", Some(until)),
        };
        Self {
            state,
            done_bytes: sync.done_bytes,
            done_percent: percent(sync.percent),
            rate_bytes_per_sec: sync.rate,
            consistent_from: until.map(PositionJson::of),
        }
    }
}

impl ReplayJson {
    fn of(replay: &ReplayStatus) -> Self {
        let (state, done, end) = match &replay.state {
            Replay::Stopped(done) => ("stopped", *done, None),
            Replay::Running(done) => ("running", *done, None),
            Replay::Dirty(done) => ("dirty", *done, None),
            Replay::Behind { end } => ("behind", Percent::FULL, Some(end)),
            Replay::Wait => ("wait", Percent::FULL, None),
            Replay::Unknown => ("unknown", Percent::ZERO, None),
        };
        Self {
            state,
            log: replay.log.as_ref().map(ToString::to_string),
            log_size_bytes: replay.size_bytes,
            pos_bytes: replay.pos,
            todo_bytes: replay.todo_bytes,
            done_percent: percent(done),
            behind_bytes: replay.behind_bytes,
            lag_secs: replay.lag_secs,
            delay_secs: replay.delay_secs,
            replay_rate_bytes_per_sec: replay.replay_rate,
            fetch_rate_bytes_per_sec: replay.file_rate,
            known_end: end.map(PositionJson::of),
        }
    }
}

impl PositionJson {
    fn of(at: &ReplayPos) -> Self {
        Self {
            log: at.log.to_string(),
            pos_bytes: at.pos,
        }
    }
}

#[allow(clippy::cast_precision_loss)] // two digits behind the point
fn percent(percent: Percent) -> f64 {
    percent.hundredths() as f64 / 100.0
}
