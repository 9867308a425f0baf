//! What can be said about the state of a resource on each of its nodes, from the tree alone (`symlink-spec.md`
//! section 11).

mod alive;
mod code;
mod history;
mod node;
mod percent;
mod replay;
mod sync;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use crate::link::{ActualKey, LinkPath, ResourceLink};
use crate::name::{HostName, ResourceName};
use crate::position::ReplayPos;
use crate::resource::ResourceView;
use crate::stamp::Stamp;
use crate::tree::Tree;

pub use alive::{ALIVE_SECS, Alive};
pub use code::Code;
pub use history::{LogHistory, Source, Verdict, history};
pub use node::{Condition, Member, NodeStatus, Role, VerifyProgress};
pub use percent::Percent;
pub use replay::{Replay, ReplayStatus};
pub use sync::{Copy, SyncStatus};

/// Who asks, when, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The node that asks: sizes of logfiles are those of its files.
    pub me: &'a HostName,
    /// Time of asking.
    pub now: Stamp,
    /// Whether its own marsd runs, as far as it knows.
    pub own_alive: Alive,
    /// Full disks of other nodes count against the own one.
    pub with_system: bool,
    /// Only the own node is looked at.
    pub local_only: bool,
    /// The history of the logs is wanted.
    pub with_history: bool,
}

/// State of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Its name.
    pub name: ResourceName,
    /// Its common size in bytes.
    pub size_bytes: Option<u64>,
    /// `None`: unknown; `Some(None)`: no node is primary.
    pub primary: Option<Option<HostName>>,
    /// The own node first, then the other members, if the own node is one.
    pub nodes: Vec<NodeStatus>,
    /// The logs that are here, lowest first; empty unless asked for.
    pub history: Vec<LogHistory>,
}

impl ResourceStatus {
    /// State of resource `name`.
    pub fn of(tree: &Tree, name: &ResourceName, ctx: &Context<'_>) -> Self {
        let view = tree.resource(name);
        let local = NodeStatus::of(tree, &view, ctx.me, ctx);
        let mut nodes = Vec::new();
        if local.member.is_some() && !ctx.local_only {
            nodes = view
                .members()
                .into_iter()
                .filter(|host| *host != ctx.me)
                .map(|host| NodeStatus::of(tree, &view, host, ctx))
                .collect();
        }
        nodes.insert(0, local);
        let history = if ctx.with_history {
            history(tree, &view, ctx.me, member_count(&nodes))
        } else {
            Vec::new()
        };
        Self {
            name: name.clone(),
            size_bytes: view.size_bytes(),
            primary: view.primary(),
            nodes,
            history,
        }
    }

    /// The own node.
    pub fn local(&self) -> Option<&NodeStatus> {
        self.nodes.iter().find(|n| n.is_local)
    }

    /// Number of nodes shown that have joined.
    pub fn member_count(&self) -> usize {
        member_count(&self.nodes)
    }
}

fn member_count(nodes: &[NodeStatus]) -> usize {
    nodes.iter().filter(|n| n.member.is_some()).count()
}

/// Free space left of a node in KiB, if it has run full.
pub fn full_rest_kib(tree: &Tree, host: &HostName) -> Option<i64> {
    let value = tree.get(&LinkPath::RestSpace(host.clone()))?;
    value.parse().ok().filter(|rest| *rest < 1)
}

fn is_full(tree: &Tree, host: &HostName) -> bool {
    full_rest_kib(tree, host).is_some()
}

/// The end of all logs as far as it is published: that of the primary, or of anybody where there is none.
pub fn known_end(view: &ResourceView<'_>) -> Option<ReplayPos> {
    if let Some(Some(primary)) = view.primary()
        && let Some(at) = view.replay(&primary)
    {
        return Some(end_of(&at));
    }
    view.replays()
        .into_iter()
        .map(|(_, at)| end_of(&at))
        .max_by_key(ReplayPos::order)
}

/// The end of what a replay link knows of its log.
fn end_of(at: &ReplayPos) -> ReplayPos {
    let more = u64::try_from(at.dirty_len).unwrap_or(0);
    ReplayPos::new(at.log.clone(), at.pos.saturating_add(more))
}

fn rate(view: &ResourceView<'_>, host: &HostName, key: ActualKey) -> i64 {
    view.get(ResourceLink::Actual(host.clone(), key))
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}
