//! State of one node for one resource: all that its block on the screen shows (`symlink-spec.md` section 11.2).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::link::{ActualKey, LinkPath, ResourceLink, Switch};
use crate::name::HostName;
use crate::resource::ResourceView;
use crate::tree::Tree;
use crate::verify::VerifyState;

use super::alive::Alive;
use super::code::Code;
use super::percent::Percent;
use super::replay::{Replay, ReplayStatus};
use super::sync::{Copy, SyncStatus};
use super::{Context, is_full};

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Named by `primary`.
    Primary,
    /// Joined, and not primary.
    Secondary,
    /// Not a member.
    NotJoined,
}

impl Role {
    /// The word, as documented.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "Primary",
            Self::Secondary => "Secondary",
            Self::NotJoined => "not joined",
        }
    }
}

/// One thing that is so, and what it says about the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What stands in the brackets.
    pub text: String,
    /// The state that it reports.
    pub code: Code,
    /// It is the delay of replay: whoever sets own limits for that leaves this one out.
    pub is_delay: bool,
}

/// State of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub host: HostName,
    /// Whether it is the one that asks.
    pub is_local: bool,
    /// Its role.
    pub role: Role,
    /// All there is to say; `None` if it has not joined.
    pub member: Option<Member>,
    /// What is so, in the documented order.
    pub conditions: Vec<Condition>,
}

/// State of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Sign of life.
    pub alive: Alive,
    /// Path of the disk, if it is published.
    pub disk: Option<String>,
    /// Name below `/dev/mars`.
    pub device: String,
    /// Real size of the disk in bytes.
    pub act_size_bytes: Option<u64>,
    /// The copy.
    pub sync: SyncStatus,
    /// The logs.
    pub replay: ReplayStatus,
    /// Whether it serves the device or may still log.
    pub is_serving: bool,
    /// Whether the device is on.
    pub device_on: bool,
    /// Whether a sync runs.
    pub sync_on: bool,
    /// Whether logs are fetched.
    pub fetch_on: bool,
    /// A comparison of the disk that runs there.
    pub verify: Option<VerifyProgress>,
    /// Why something stands still there.
    pub error: Option<String>,
    /// Switches in the order of [`Switch::ALL`].
    pub switches: [bool; 4],
}

/// How far a comparison of the disk is (`symlink-spec.md` section 8.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Bytes compared so far.
    pub done_bytes: u64,
    /// The same of the size of the resource.
    pub percent: Percent,
}

impl VerifyProgress {
    /// That of `host`, if one runs.
    fn of(view: &ResourceView<'_>, host: &HostName) -> Option<Self> {
        let VerifyState::Running(done_bytes) = view.verify_answer(host)?.state else {
            return None;
        };
        Some(Self {
            done_bytes,
            percent: Percent::of(done_bytes, view.size_bytes().unwrap_or(0)),
        })
    }
}

impl NodeStatus {
    /// State of `host`.
    pub fn of(tree: &Tree, view: &ResourceView<'_>, host: &HostName, ctx: &Context<'_>) -> Self {
        let mut node = Self {
            host: host.clone(),
            is_local: host == ctx.me,
            role: role(view, host),
            member: None,
            conditions: Vec::new(),
        };
        node.add_space(tree, ctx);
        if let Some(device) = view.device(host) {
            let member = Member::of(tree, view, host, device, ctx);
            node.add("joined", Code::UpToDate);
            node.add_member(&member);
            node.member = Some(member);
        } else {
            node.add("not joined", Code::UpToDate);
        }
        node
    }

    /// The worst state that any condition reports; `None` (unknown) if the node has not joined.
    pub fn code(&self) -> Option<Code> {
        self.member.as_ref()?;
        self.conditions.iter().map(|c| c.code).max()
    }

    /// Like [`NodeStatus::code`], but however long the delay of replay is.
    pub fn code_without_delay(&self) -> Option<Code> {
        self.member.as_ref()?;
        let others = self.conditions.iter().filter(|c| !c.is_delay);
        others.map(|c| c.code).max()
    }

    /// Whether all switches are on; a node that has not joined is not connected.
    pub fn is_connected(&self) -> bool {
        self.member
            .as_ref()
            .is_some_and(|m| m.switches == [true; 4])
    }

    fn add(&mut self, text: impl Into<String>, code: Code) {
        self.conditions.push(Condition {
            text: text.into(),
            code,
            is_delay: false,
        });
    }

    fn add_space(&mut self, tree: &Tree, ctx: &Context<'_>) {
        if is_full(tree, &self.host) {
            self.add("System: Mars-Disk full, MARS stopping", Code::Failed);
        }
        if self.is_local && ctx.with_system && other_is_full(tree, &self.host) {
            self.add("System: Remote-Mars-Disk full", Code::Failed);
        }
    }

    fn add_member(&mut self, member: &Member) {
        match member.alive {
            Alive::Yes => self.add("alive", Code::UpToDate),
            _ => self.add("not alive", Code::Failed),
        }
        match &member.sync.state {
            Copy::Incomplete => self.add(
                format!("not in sync ({}%)", member.sync.percent),
                Code::InvaliDate,
            ),
            Copy::NotConsistent { until, .. } => self.add(
                format!("not consistent until {},{}", until.log, until.pos),
                Code::InvaliDate,
            ),
            Copy::Good => self.add("synced", Code::UpToDate),
        }
        self.add_replay(&member.replay);
        if member.error.is_some() {
            self.add("error", Code::Failed);
        }
        for (switch, on) in Switch::ALL.into_iter().zip(member.switches) {
            let (text, code) = switch_text(switch, on);
            self.add(text, code);
        }
    }

    fn add_replay(&mut self, replay: &ReplayStatus) {
        if let Some(secs) = replay.delay_secs {
            let code = match secs {
                0 => Code::UpToDate,
                1..60 => Code::UpDateIng,
                _ => Code::OutDate,
            };
            self.conditions.push(Condition {
                text: format!("Delay {secs} sec"),
                code,
                is_delay: true,
            });
        }
        let (text, code) = match replay.state {
            Replay::Stopped(_) | Replay::Unknown => ("replay stopped", Code::OutDate),
            Replay::Running(_) => ("replay running1", Code::UpDateIng),
            Replay::Dirty(_) => ("replay running2", Code::UpDateIng),
            Replay::Behind { .. } => ("replay wait", Code::UpDateIng),
            Replay::Wait => ("replay wait", Code::UpToDate),
        };
        self.add(text, code);
    }
}

impl Member {
    fn of(
        tree: &Tree,
        view: &ResourceView<'_>,
        host: &HostName,
        device: &str,
        ctx: &Context<'_>,
    ) -> Self {
        Self {
            alive: if host == ctx.me {
                ctx.own_alive
            } else {
                Alive::of(tree, host, ctx.now)
            },
            disk: view.data(host).map(str::to_string),
            device: device.to_string(),
            act_size_bytes: view.act_size(host),
            sync: SyncStatus::of(view, host),
            replay: ReplayStatus::of(tree, view, host, ctx),
            is_serving: view.actual(host, ActualKey::IsPrimary),
            device_on: crate::name::ResourceName::new(device)
                .is_ok_and(|name| view.actual(host, ActualKey::Device(name))),
            sync_on: view.actual(host, ActualKey::CopySyncstatus(host.clone())),
            fetch_on: view.actual(host, ActualKey::LogfileUpdate),
            verify: VerifyProgress::of(view, host),
            error: view
                .get(ResourceLink::Actual(host.clone(), ActualKey::Error))
                .filter(|text| *text != "none")
                .map(str::to_string),
            switches: Switch::ALL.map(|switch| view.switch(host, switch)),
        }
    }
}

fn role(view: &ResourceView<'_>, host: &HostName) -> Role {
    if view.device(host).is_none() {
        Role::NotJoined
    } else if view.is_designated_primary(host) {
        Role::Primary
    } else {
        Role::Secondary
    }
}

fn other_is_full(tree: &Tree, host: &HostName) -> bool {
    // Root-level links stand before all orders and resources.
    tree.links
        .range(..LinkPath::DeleteOrder(0))
        .any(|(p, _)| matches!(p, LinkPath::RestSpace(h) if h != host && is_full(tree, h)))
}

fn switch_text(switch: Switch, on: bool) -> (&'static str, Code) {
    let (on_text, off_text) = match switch {
        Switch::Attach => ("attached", "attach off"),
        Switch::Connect => ("connected", "connect off"),
        Switch::Sync => ("synced", "sync off"),
        Switch::AllowReplay => ("replayed", "replay off"),
    };
    if on {
        (on_text, Code::UpToDate)
    } else {
        (off_text, Code::SwitchOff)
    }
}
