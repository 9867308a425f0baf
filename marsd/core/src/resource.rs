//! Typed reading of one resource out of a snapshot (`symlink-spec.md` section 4).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::gap::{Gaps, SyncBase};
use crate::link::{
    ActualKey, LinkPath, ResourceLink, Switch, parse_bytes, parse_primary, parse_switch,
};
use crate::name::{HostName, ResourceName};
use crate::position::{LogName, ReplayPos};
use crate::stamp::Stamp;
use crate::tree::Tree;
use crate::verify::{VerifyAnswer, VerifyOrder};
use crate::version::VersionValue;

/// One resource of a [`Tree`].
#[derive(Debug, Clone, Copy)]
pub struct ResourceView<'a> {
    tree: &'a Tree,
    name: &'a ResourceName,
}

impl<'a> ResourceView<'a> {
    pub(crate) fn new(tree: &'a Tree, name: &'a ResourceName) -> Self {
        Self { tree, name }
    }

    /// Name of the resource.
    pub fn name(&self) -> &'a ResourceName {
        self.name
    }

    /// Raw value of one of its links.
    pub fn get(&self, link: ResourceLink) -> Option<&'a str> {
        self.tree.get(&LinkPath::res(self.name, link))
    }

    /// Common size in bytes.
    pub fn size_bytes(&self) -> Option<u64> {
        self.get(ResourceLink::Size)
            .and_then(|v| parse_bytes(v).ok())
    }

    /// `None`: no such link; `Some(None)`: `(none)`.
    pub fn primary(&self) -> Option<Option<HostName>> {
        self.get(ResourceLink::Primary)
            .and_then(|v| parse_primary(v).ok())
    }

    /// Whether the primary link names `host`.
    pub fn is_designated_primary(&self, host: &HostName) -> bool {
        self.get(ResourceLink::Primary) == Some(host.as_str())
    }

    /// Path of the disk of `host`.
    pub fn data(&self, host: &HostName) -> Option<&'a str> {
        self.get(ResourceLink::Data(host.clone()))
    }

    /// Name below `/dev/mars` on `host`.
    pub fn device(&self, host: &HostName) -> Option<&'a str> {
        self.get(ResourceLink::Device(host.clone()))
    }

    /// Bytes synced on `host`.
    pub fn sync_status(&self, host: &HostName) -> Option<u64> {
        self.get(ResourceLink::SyncStatus(host.clone()))
            .and_then(|v| parse_bytes(v).ok())
    }

    /// Position from which the finished sync of `host` is consistent.
    pub fn sync_pos(&self, host: &HostName) -> Option<ReplayPos> {
        self.get(ResourceLink::SyncPos(host.clone()))
            .and_then(|v| ReplayPos::parse(v).ok())
    }

    /// What `host` had synced when it noticed the gap before it.
    pub fn sync_base(&self, host: &HostName) -> Option<SyncBase> {
        self.get(ResourceLink::SyncBase(host.clone()))
            .and_then(|v| SyncBase::parse(v).ok().flatten())
    }

    /// Gaps in the logs that `host` made.
    pub fn gaps_of(&self, host: &HostName) -> Gaps {
        self.get(ResourceLink::Unlogged(host.clone()))
            .and_then(|v| Gaps::parse(v).ok())
            .unwrap_or_default()
    }

    /// The nodes that made gaps, and these.
    pub fn all_gaps(&self) -> impl Iterator<Item = (&'a HostName, Gaps)> + use<'a> {
        self.links().filter_map(|(link, value)| match link {
            ResourceLink::Unlogged(host) => Some((host, Gaps::parse(value).ok()?)),
            _ => None,
        })
    }

    /// Stamp of the list of gaps of `host`.
    pub fn gaps_stamp(&self, host: &HostName) -> Option<Stamp> {
        self.stamp(ResourceLink::Unlogged(host.clone()))
    }

    /// Stamp of the link that names the primary.
    pub fn primary_stamp(&self) -> Option<Stamp> {
        self.stamp(ResourceLink::Primary)
    }

    pub(crate) fn stamp(&self, link: ResourceLink) -> Option<Stamp> {
        self.tree.stamp(&LinkPath::res(self.name, link))
    }

    /// Real size of the disk of `host`.
    pub fn act_size(&self, host: &HostName) -> Option<u64> {
        self.get(ResourceLink::ActSize(host.clone()))
            .and_then(|v| parse_bytes(v).ok())
    }

    /// Peer that `host` syncs from.
    pub fn connect(&self, host: &HostName) -> Option<HostName> {
        self.get(ResourceLink::Connect(host.clone()))
            .and_then(|v| HostName::new(v).ok())
    }

    /// Position applied on `host`.
    pub fn replay(&self, host: &HostName) -> Option<ReplayPos> {
        self.get(ResourceLink::Replay(host.clone()))
            .and_then(|v| ReplayPos::parse(v).ok())
    }

    /// Raw version value of `host` for log `seq`.
    pub fn version_raw(&self, seq: u64, host: &HostName) -> Option<&'a str> {
        self.get(ResourceLink::Version(seq, host.clone()))
    }

    /// Version value of `host` for log `seq`.
    pub fn version(&self, seq: u64, host: &HostName) -> Option<VersionValue> {
        self.version_raw(seq, host)
            .and_then(|v| VersionValue::parse(v).ok())
    }

    /// A switch of `host`; absent is off.
    pub fn switch(&self, host: &HostName, switch: Switch) -> bool {
        self.get(ResourceLink::Todo(host.clone(), switch))
            .is_some_and(|v| parse_switch(v) == Ok(true))
    }

    /// Whether a published fact of `host` is 1.
    pub fn actual(&self, host: &HostName, key: ActualKey) -> bool {
        self.get(ResourceLink::Actual(host.clone(), key)) == Some("1")
    }

    /// The last order to compare the disk of `host`.
    pub fn verify_order(&self, host: &HostName) -> Option<VerifyOrder> {
        self.get(ResourceLink::Verify(host.clone()))
            .and_then(|v| VerifyOrder::parse(v).ok())
    }

    /// The last answer of `host` to such an order.
    pub fn verify_answer(&self, host: &HostName) -> Option<VerifyAnswer> {
        self.get(ResourceLink::Actual(host.clone(), ActualKey::Verify))
            .and_then(|v| VerifyAnswer::parse(v).ok())
    }

    /// Whether `host` had to stop logging for lack of space: its writes bypass the log.
    pub fn is_jammed(&self, host: &HostName) -> bool {
        self.tree.get(&LinkPath::Jammed(host.clone())) == Some("1")
    }

    /// All links of the resource.
    pub fn links(&self) -> impl Iterator<Item = (&'a ResourceLink, &'a str)> + use<'a> {
        let name = self.name;
        // `Size` is the first variant: the range begins at the first link of this resource.
        let from = LinkPath::Resource(name.clone(), ResourceLink::Size);
        self.tree
            .links
            .range(from..)
            .map_while(move |(p, l)| match p {
                LinkPath::Resource(r, link) if r == name => Some((link, l.value.as_str())),
                _ => None,
            })
    }

    /// Nodes that have joined (`symlink-spec.md` section 4.2): one link that only a member has is enough, since the disk
    /// of a node may be a regular file there, which is not published, and links arrive one after the other.
    pub fn members(&self) -> BTreeSet<&'a HostName> {
        self.links()
            .filter_map(|(l, _)| match l {
                ResourceLink::Data(h)
                | ResourceLink::Device(h)
                | ResourceLink::Replay(h)
                | ResourceLink::SyncStatus(h) => Some(h),
                _ => None,
            })
            .collect()
    }

    /// Replay positions of all nodes that have one.
    pub fn replays(&self) -> Vec<(&'a HostName, ReplayPos)> {
        self.links()
            .filter_map(|(l, v)| match l {
                ResourceLink::Replay(h) => ReplayPos::parse(v).ok().map(|p| (h, p)),
                _ => None,
            })
            .collect()
    }

    /// Local logfiles in ascending order, with their sizes in bytes.
    pub fn logs(&self) -> impl Iterator<Item = (&'a LogName, u64)> + use<'a> {
        let name = self.name;
        self.tree
            .logs
            .get(name)
            .into_iter()
            .flatten()
            .map(|(log, size)| (log, *size))
    }

    /// Size in bytes of a local logfile.
    pub fn log_size(&self, log: &LogName) -> Option<u64> {
        self.tree.logs.get(self.name)?.get(log).copied()
    }
}
