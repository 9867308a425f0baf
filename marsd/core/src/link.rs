//! The grammar of the tree: which paths are links of MARS, who owns them and what values they may hold
//! (`symlink-spec.md` sections 3 and 4).

use alloc::string::{String, ToString};
use core::fmt;

use crate::gap::{Gaps, SyncBase};
use crate::name::{HostName, ResourceName};
use crate::param::Param;
use crate::position::{ReplayPos, ValueError, split_serial};
use crate::verify::{VerifyAnswer, VerifyOrder};
use crate::version::VersionValue;

/// Value of `primary` when no node is primary.
pub const NO_PRIMARY: &str = "(none)";
/// Longest value accepted, in bytes.
pub const VALUE_MAX: usize = 1024;

/// A switch below `todo-HOST/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Switch {
    /// May the node do data I/O on the resource at all.
    Attach,
    /// May it fetch logs and sync data.
    Connect,
    /// May it sync.
    Sync,
    /// May it replay.
    AllowReplay,
}

impl Switch {
    /// All switches, in the order of `up`.
    pub const ALL: [Self; 4] = [Self::Attach, Self::Connect, Self::Sync, Self::AllowReplay];

    /// Name of the link.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Connect => "connect",
            Self::Sync => "sync",
            Self::AllowReplay => "allow-replay",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == name)
    }
}

/// A link below `actual-HOST/`: what really runs on that node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActualKey {
    /// 1 while the device exists.
    IsPrimary,
    /// 1 while `/dev/mars/NAME` is served.
    Device(ResourceName),
    /// 1 while a sync runs.
    CopySyncstatus(HostName),
    /// 1 while a log is fetched.
    LogfileUpdate,
    /// Bytes per second replayed.
    ReplayRate,
    /// Bytes per second of logs received.
    FileRate,
    /// Bytes per second synced.
    SyncRate,
    /// `HOST,%09d,MIN,LEN,SEC.%09lu`: position and write time of what was replayed last.
    Timestamp,
    /// Ours: why something of this resource is stopped on this node, or `none`.
    Error,
    /// Ours: the answer to an order to compare the disk.
    Verify,
}

impl ActualKey {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "is-primary" => Self::IsPrimary,
            "logfile-update" => Self::LogfileUpdate,
            "replay_rate" => Self::ReplayRate,
            "file_rate" => Self::FileRate,
            "sync_rate" => Self::SyncRate,
            "timestamp" => Self::Timestamp,
            "error" => Self::Error,
            "verify" => Self::Verify,
            _ => {
                if let Some(device) = name.strip_prefix("device-") {
                    Self::Device(ResourceName::new(device).ok()?)
                } else {
                    Self::CopySyncstatus(
                        HostName::new(name.strip_prefix("copy-syncstatus-")?).ok()?,
                    )
                }
            }
        })
    }
}

impl fmt::Display for ActualKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsPrimary => f.write_str("is-primary"),
            Self::Device(name) => write!(f, "device-{name}"),
            Self::CopySyncstatus(host) => write!(f, "copy-syncstatus-{host}"),
            Self::LogfileUpdate => f.write_str("logfile-update"),
            Self::ReplayRate => f.write_str("replay_rate"),
            Self::FileRate => f.write_str("file_rate"),
            Self::SyncRate => f.write_str("sync_rate"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Error => f.write_str("error"),
            Self::Verify => f.write_str("verify"),
        }
    }
}

/// A link of a resource, without the resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceLink {
    /// Common size in bytes.
    Size,
    /// The primary, or `(none)`.
    Primary,
    /// Absolute path of the disk.
    Data(HostName),
    /// Name below `/dev/mars`.
    Device(HostName),
    /// Bytes synced.
    SyncStatus(HostName),
    /// `OK,BAD` counts of 4 KiB blocks compared by the sync.
    VerifyStatus(HostName),
    /// Ours: log position from which a finished sync is consistent, in the form of a replay link.
    SyncPos(HostName),
    /// Ours: what was synced when a gap in the logs was noticed.
    SyncBase(HostName),
    /// Ours: gaps in the logs that a node made by writing past them.
    Unlogged(HostName),
    /// Real size of the disk in bytes.
    ActSize(HostName),
    /// Peer to sync from.
    Connect(HostName),
    /// Position applied.
    Replay(HostName),
    /// Version chain.
    Version(u64, HostName),
    /// A switch of a node.
    Todo(HostName, Switch),
    /// Ours: the order to compare the disk of a node with that of a peer.
    Verify(HostName),
    /// A published fact of a node.
    Actual(HostName, ActualKey),
    /// Ours: a parameter of the resource, on one node or on all.
    Default(Option<HostName>, Param),
}

impl LinkPath {
    /// Whether this link of `me` tells how far something has come, and nothing else: it changes several times a second, and
    /// who sees it late is late and not wrong.
    pub fn is_progress_of(&self, me: &HostName) -> bool {
        match self {
            Self::Alive(host) | Self::RestSpace(host) => host == me,
            Self::Resource(_, link) => link.is_progress_of(me),
            _ => false,
        }
    }
}

impl ResourceLink {
    fn is_progress_of(&self, me: &HostName) -> bool {
        match self {
            Self::SyncStatus(host)
            | Self::VerifyStatus(host)
            | Self::Replay(host)
            | Self::Version(_, host) => host == me,
            Self::Actual(host, key) => {
                host == me
                    && matches!(
                        key,
                        ActualKey::LogfileUpdate
                            | ActualKey::ReplayRate
                            | ActualKey::FileRate
                            | ActualKey::SyncRate
                            | ActualKey::Timestamp
                    )
            }
            _ => false,
        }
    }

    fn parse(rest: &str) -> Option<Self> {
        if let Some((dir, name)) = rest.split_once('/') {
            if dir.starts_with("defaults") {
                let (host, param) = parse_default(dir, name)?;
                return param
                    .is_per_resource()
                    .then_some(Self::Default(host, param));
            }
            return if let Some(host) = dir.strip_prefix("todo-") {
                let host = HostName::new(host).ok()?;
                if name == "verify" {
                    return Some(Self::Verify(host));
                }
                Some(Self::Todo(host, Switch::parse(name)?))
            } else {
                let host = HostName::new(dir.strip_prefix("actual-")?).ok()?;
                Some(Self::Actual(host, ActualKey::parse(name)?))
            };
        }
        match rest {
            "size" => return Some(Self::Size),
            "primary" => return Some(Self::Primary),
            _ => {}
        }
        if let Some(serial) = rest.strip_prefix("version-") {
            let (seq, host) = split_serial(serial)?;
            return Some(Self::Version(seq, HostName::new(host).ok()?));
        }
        let (kind, host) = rest.split_once('-')?;
        let host = HostName::new(host).ok()?;
        Some(match kind {
            "data" => Self::Data(host),
            "device" => Self::Device(host),
            "syncstatus" => Self::SyncStatus(host),
            "verifystatus" => Self::VerifyStatus(host),
            "syncpos" => Self::SyncPos(host),
            "syncbase" => Self::SyncBase(host),
            "unlogged" => Self::Unlogged(host),
            "actsize" => Self::ActSize(host),
            "connect" => Self::Connect(host),
            "replay" => Self::Replay(host),
            _ => return None,
        })
    }
}

impl ResourceLink {
    /// The node whose membership the link belongs to; none for those of the resource itself.
    pub fn member(&self) -> Option<&HostName> {
        match self {
            Self::Size | Self::Primary => None,
            Self::Data(h)
            | Self::Device(h)
            | Self::SyncStatus(h)
            | Self::VerifyStatus(h)
            | Self::SyncPos(h)
            | Self::SyncBase(h)
            | Self::Unlogged(h)
            | Self::ActSize(h)
            | Self::Connect(h)
            | Self::Replay(h)
            | Self::Version(_, h)
            | Self::Todo(h, _)
            | Self::Verify(h)
            | Self::Actual(h, _) => Some(h),
            Self::Default(host, _) => host.as_ref(),
        }
    }
}

impl fmt::Display for ResourceLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size => f.write_str("size"),
            Self::Primary => f.write_str("primary"),
            Self::Data(h) => write!(f, "data-{h}"),
            Self::Device(h) => write!(f, "device-{h}"),
            Self::SyncStatus(h) => write!(f, "syncstatus-{h}"),
            Self::VerifyStatus(h) => write!(f, "verifystatus-{h}"),
            Self::SyncPos(h) => write!(f, "syncpos-{h}"),
            Self::SyncBase(h) => write!(f, "syncbase-{h}"),
            Self::Unlogged(h) => write!(f, "unlogged-{h}"),
            Self::ActSize(h) => write!(f, "actsize-{h}"),
            Self::Connect(h) => write!(f, "connect-{h}"),
            Self::Replay(h) => write!(f, "replay-{h}"),
            Self::Version(seq, h) => write!(f, "version-{seq:09}-{h}"),
            Self::Todo(h, switch) => write!(f, "todo-{h}/{}", switch.as_str()),
            Self::Verify(h) => write!(f, "todo-{h}/verify"),
            Self::Actual(h, key) => write!(f, "actual-{h}/{key}"),
            Self::Default(host, param) => write_default(f, host.as_ref(), *param),
        }
    }
}

/// A link of the tree, by its path relative to the root of the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkPath {
    /// `ips/ip-HOST`: address of a node.
    Ip(HostName),
    /// Ours: `ips/key-HOST`: public key of a node.
    Key(HostName),
    /// `alive-HOST`: sign of life.
    Alive(HostName),
    /// `exhausted-HOST`: 1 below the free space limit.
    Exhausted(HostName),
    /// `jammed-HOST`: 1 when logging had to stop for lack of space.
    Jammed(HostName),
    /// `rest-space-HOST`: KiB left above the limit.
    RestSpace(HostName),
    /// `todo-global/delete-%09d`: a deletion order.
    DeleteOrder(u64),
    /// `todo-global/deleted-HOST`: highest order seen by a node.
    Deleted(HostName),
    /// Ours: `defaults/NAME` or `defaults-HOST/NAME`: a parameter of all nodes or of one.
    Default(Option<HostName>, Param),
    /// `resource-R/...`.
    Resource(ResourceName, ResourceLink),
}

/// Who may publish a link to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Host-context: only the named node sends it (`symlink-spec.md` section 4).
    HostOnly(&'a HostName),
    /// Written by the named node, handed on by all.
    Owned(&'a HostName),
    /// Written by anybody, handed on by all.
    Shared,
}

impl LinkPath {
    /// A link of resource `res`.
    pub fn res(res: &ResourceName, link: ResourceLink) -> Self {
        Self::Resource(res.clone(), link)
    }

    /// Reads a path relative to the root of the tree; `None` if no such link exists in MARS.
    pub fn parse(path: &str) -> Option<Self> {
        if let Some((dir, rest)) = path.split_once('/') {
            if let Some(name) = dir.strip_prefix("resource-") {
                let link = ResourceLink::parse(rest)?;
                return Some(Self::Resource(ResourceName::new(name).ok()?, link));
            }
            if dir.starts_with("defaults") {
                let (host, param) = parse_default(dir, rest)?;
                return Some(Self::Default(host, param));
            }
            return match dir {
                "ips" => {
                    if let Some(host) = rest.strip_prefix("ip-") {
                        Some(Self::Ip(HostName::new(host).ok()?))
                    } else {
                        Some(Self::Key(HostName::new(rest.strip_prefix("key-")?).ok()?))
                    }
                }
                "todo-global" => {
                    if let Some(host) = rest.strip_prefix("deleted-") {
                        return Some(Self::Deleted(HostName::new(host).ok()?));
                    }
                    let digits = rest.strip_prefix("delete-")?;
                    let plain = (9..=18).contains(&digits.len())
                        && digits.bytes().all(|b| b.is_ascii_digit());
                    plain
                        .then(|| digits.parse().ok().map(Self::DeleteOrder))
                        .flatten()
                }
                _ => None,
            };
        }
        for (prefix, make) in [
            ("alive-", Self::Alive as fn(HostName) -> Self),
            ("exhausted-", Self::Exhausted),
            ("jammed-", Self::Jammed),
            ("rest-space-", Self::RestSpace),
        ] {
            if let Some(host) = path.strip_prefix(prefix) {
                return HostName::new(host).ok().map(make);
            }
        }
        None
    }

    /// Who may publish this link.
    pub fn scope(&self) -> Scope<'_> {
        use ResourceLink as R;
        match self {
            Self::Ip(_) | Self::DeleteOrder(_) | Self::Default(..) => Scope::Shared,
            Self::Key(h)
            | Self::Alive(h)
            | Self::Exhausted(h)
            | Self::Jammed(h)
            | Self::RestSpace(h)
            | Self::Deleted(h) => Scope::Owned(h),
            Self::Resource(_, link) => match link {
                R::Size
                | R::Primary
                | R::Connect(_)
                | R::Todo(..)
                | R::Verify(_)
                | R::Default(..) => Scope::Shared,
                R::Version(_, h) | R::Actual(h, _) | R::Unlogged(h) => Scope::Owned(h),
                R::Data(h)
                | R::Device(h)
                | R::SyncStatus(h)
                | R::VerifyStatus(h)
                | R::SyncPos(h)
                | R::SyncBase(h)
                | R::ActSize(h)
                | R::Replay(h) => Scope::HostOnly(h),
            },
        }
    }

    /// Checks a value against the grammar of this link.
    pub fn check_value(&self, value: &str) -> Result<(), ValueError> {
        use ResourceLink as R;
        if value.is_empty() || value.len() > VALUE_MAX || value.contains(['\n', '\0']) {
            return Err(ValueError::new(value, "one line of 1 to 1024 bytes"));
        }
        match self {
            Self::Alive(_) | Self::Exhausted(_) | Self::Jammed(_) => parse_switch(value).map(drop),
            Self::RestSpace(_) => parse_number::<i64>(value, "a number of KiB").map(drop),
            Self::Deleted(_) => parse_number::<u64>(value, "a number").map(drop),
            Self::DeleteOrder(_) => check_path(value),
            Self::Ip(_) => Ok(()),
            Self::Key(_) => check_key(value),
            Self::Default(_, param) => check_setting(*param, value),
            Self::Resource(_, link) => match link {
                R::Size | R::SyncStatus(_) | R::ActSize(_) => parse_bytes(value).map(drop),
                R::Primary => parse_primary(value).map(drop),
                R::Data(_) => check_path(value),
                R::Device(_) => name_value(ResourceName::new(value), value),
                R::VerifyStatus(_) => {
                    let mut parts = value.split(',');
                    match (
                        parts.next().map(parse_bytes),
                        parts.next().map(parse_bytes),
                        parts.next(),
                    ) {
                        (Some(Ok(_)), Some(Ok(_)), None) => Ok(()),
                        _ => Err(ValueError::new(value, "OK,BAD counts")),
                    }
                }
                R::Connect(_) => name_value(HostName::new(value), value),
                R::Replay(_) | R::SyncPos(_) => ReplayPos::parse(value).map(drop),
                R::Version(..) => VersionValue::parse(value).map(drop),
                R::SyncBase(_) => SyncBase::parse(value).map(drop),
                R::Unlogged(_) => Gaps::parse(value).map(drop),
                R::Todo(..) => parse_switch(value).map(drop),
                R::Verify(_) => VerifyOrder::parse(value).map(drop),
                R::Default(_, param) => check_setting(*param, value),
                R::Actual(_, key) => match key {
                    ActualKey::Timestamp | ActualKey::Error => Ok(()),
                    ActualKey::Verify => VerifyAnswer::parse(value).map(drop),
                    ActualKey::ReplayRate | ActualKey::FileRate | ActualKey::SyncRate => {
                        parse_number::<i64>(value, "bytes per second").map(drop)
                    }
                    _ => parse_switch(value).map(drop),
                },
            },
        }
    }
}

impl fmt::Display for LinkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(h) => write!(f, "ips/ip-{h}"),
            Self::Key(h) => write!(f, "ips/key-{h}"),
            Self::Alive(h) => write!(f, "alive-{h}"),
            Self::Exhausted(h) => write!(f, "exhausted-{h}"),
            Self::Jammed(h) => write!(f, "jammed-{h}"),
            Self::RestSpace(h) => write!(f, "rest-space-{h}"),
            Self::DeleteOrder(n) => write!(f, "todo-global/delete-{n:09}"),
            Self::Deleted(h) => write!(f, "todo-global/deleted-{h}"),
            Self::Default(host, param) => write_default(f, host.as_ref(), *param),
            Self::Resource(r, link) => write!(f, "resource-{r}/{link}"),
        }
    }
}

impl From<&LinkPath> for String {
    fn from(path: &LinkPath) -> Self {
        path.to_string()
    }
}

/// Reads `0` or `1`.
pub fn parse_switch(value: &str) -> Result<bool, ValueError> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(ValueError::new(value, "0 or 1")),
    }
}

/// Reads a count of bytes.
pub fn parse_bytes(value: &str) -> Result<u64, ValueError> {
    parse_number(value, "a number of bytes")
}

/// Reads the value of `primary`: a host, or `None` for `(none)`.
pub fn parse_primary(value: &str) -> Result<Option<HostName>, ValueError> {
    if value == NO_PRIMARY {
        return Ok(None);
    }
    HostName::new(value)
        .map(Some)
        .map_err(|_| ValueError::new(value, "a host name or (none)"))
}

fn parse_number<T: core::str::FromStr>(
    value: &str,
    expected: &'static str,
) -> Result<T, ValueError> {
    value.parse().map_err(|_| ValueError::new(value, expected))
}

/// Takes `defaults/NAME` or `defaults-HOST/NAME` apart.
fn parse_default(dir: &str, name: &str) -> Option<(Option<HostName>, Param)> {
    let host = match dir.strip_prefix("defaults")? {
        "" => None,
        rest => Some(HostName::new(rest.strip_prefix('-')?).ok()?),
    };
    Some((host, Param::parse_name(name)?))
}

fn write_default(f: &mut fmt::Formatter<'_>, host: Option<&HostName>, param: Param) -> fmt::Result {
    match host {
        None => write!(f, "defaults/{}", param.name()),
        Some(host) => write!(f, "defaults-{host}/{}", param.name()),
    }
}

fn check_setting(param: Param, value: &str) -> Result<(), ValueError> {
    let plain = value.bytes().all(|b| b.is_ascii_alphanumeric());
    match param.parse_setting(value) {
        Ok(_) if plain => Ok(()),
        _ => Err(ValueError::new(value, param.range())),
    }
}

fn check_path(value: &str) -> Result<(), ValueError> {
    let good = value.starts_with('/') && !value.split('/').any(|part| part == "..");
    if good {
        Ok(())
    } else {
        Err(ValueError::new(value, "an absolute path without '..'"))
    }
}

fn check_key(value: &str) -> Result<(), ValueError> {
    let good = value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit());
    if good {
        Ok(())
    } else {
        Err(ValueError::new(
            value,
            "64 hex digits of an Ed25519 public key",
        ))
    }
}

fn name_value<T, E>(name: Result<T, E>, value: &str) -> Result<(), ValueError> {
    name.map(drop)
        .map_err(|_| ValueError::new(value, "a legal name"))
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
