//! Making room: which logs to rotate and which to order deleted before `/mars` runs full (`symlink-spec.md` section 8.6).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::ORDER_ROOT;
use crate::link::{ActualKey, LinkPath, ResourceLink};
use crate::name::{HostName, ResourceName};
use crate::position::LogName;
use crate::resource::ResourceView;
use crate::tree::Tree;

/// A shorter log is not worth a rotation, in bytes.
const ROTATE_MIN_BYTES: u64 = 16 << 20;

/// A step that makes room, or lets one be made later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpaceStep {
    /// Make this empty log: the shim goes on to it.
    Rotate(ResourceName, LogName),
    /// Write a deletion order with this target.
    Order(String),
}

/// When logs are rotated and deleted without an order of the administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Nothing is deleted as long as more than this is left: `logdel_auto_gb`.
    pub delete_below_bytes: u64,
    /// A log of this length is rotated, whatever is left: `logrot_auto_gb`; 0 = off.
    pub rotate_at_bytes: u64,
}

/// What node `me` does about its resources with `rest_bytes` left above the limit of free space, under the limits of each
/// resource.
///
/// Only the primary of a resource acts. Logs that nobody needs go when what all of them occupy has grown larger than
/// what is left, and what is left is below the limit.
pub fn plan_space(
    tree: &Tree,
    me: &HostName,
    rest_bytes: u64,
    limits: impl Fn(&ResourceName) -> SpaceLimits,
) -> Vec<SpaceStep> {
    let ordered: Vec<&str> = tree
        .links
        .range(LinkPath::DeleteOrder(0)..=LinkPath::DeleteOrder(u64::MAX))
        .map(|(_, order)| order.value.as_str())
        .collect();
    let mut steps = Vec::new();
    for name in tree.resources() {
        let view = tree.resource(&name);
        if !view.is_designated_primary(me) || !view.actual(me, ActualKey::IsPrimary) {
            continue;
        }
        let limits = limits(&name);
        if let Some(next) = rotation(view, me, rest_bytes, limits.rotate_at_bytes) {
            steps.push(SpaceStep::Rotate(name.clone(), next));
        }
        let occupied: u64 = view.logs().map(|(_, size)| size).sum();
        if occupied < rest_bytes || rest_bytes > limits.delete_below_bytes {
            continue;
        }
        let orders = deletable(view)
            .map(|log| format!("{ORDER_ROOT}resource-{name}/{log}"))
            .filter(|target| !ordered.contains(&target.as_str()));
        steps.extend(orders.map(SpaceStep::Order));
    }
    steps
}

/// The log to begin, if the present one is the newest and longer than what is left or than it may be.
fn rotation(
    view: ResourceView<'_>,
    me: &HostName,
    rest_bytes: u64,
    rotate_at_bytes: u64,
) -> Option<LogName> {
    let at = view.replay(me)?;
    let (newest, _) = view.logs().last()?;
    let dirty = u64::try_from(at.dirty_len).unwrap_or(0);
    let len = at.pos.saturating_add(dirty);
    let is_long = rotate_at_bytes > 0 && len >= rotate_at_bytes;
    let is_due = is_long || len >= ROTATE_MIN_BYTES.max(rest_bytes);
    let is_own = *newest == at.log && newest.host == *me;
    // Where writes went past the logs no log of that number may ever stand: the next one begins when logging does.
    let is_passed = view.gaps_of(me).contains(newest.seq + 1);
    (is_own && is_due && !is_passed).then(|| LogName::new(newest.seq + 1, me))
}

/// Logs that every member has applied, with one and the same history.
fn deletable(view: ResourceView<'_>) -> impl Iterator<Item = &LogName> {
    // Who is not yet past the end of its sync has an older replay position still.
    let needed = view
        .members()
        .into_iter()
        .map(|host| view.replay(host).map_or(0, |at| at.log.seq))
        .min()
        .unwrap_or(0);
    view.logs()
        .map(|(log, _)| log)
        .filter(move |log| log.seq < needed && agreed(view, log))
}

/// Whether all version links of a log are equal.
fn agreed(view: ResourceView<'_>, log: &LogName) -> bool {
    let mut values = view.links().filter_map(|(link, value)| match link {
        ResourceLink::Version(seq, _) if *seq == log.seq => Some(value),
        _ => None,
    });
    let first = values.next();
    values.all(|value| Some(value) == first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;
    use alloc::string::ToString;

    fn host() -> HostName {
        HostName::new("A").unwrap()
    }

    fn tree(links: &[(&str, &str)], logs: &[(&str, u64)]) -> Tree {
        let mut tree = Tree::default();
        let name = ResourceName::new("r").unwrap();
        tree.dirs.insert("resource-r".into());
        let common = [
            ("resource-r/size", "4096"),
            ("resource-r/primary", "A"),
            ("resource-r/device-A", "r"),
            ("resource-r/device-B", "r"),
            ("resource-r/actual-A/is-primary", "1"),
            ("resource-r/syncstatus-A", "4096"),
            ("resource-r/syncstatus-B", "4096"),
        ];
        for (path, value) in common.iter().chain(links) {
            tree.put(LinkPath::parse(path).unwrap(), value, Stamp::new(1, 0))
                .unwrap();
        }
        let logs = logs
            .iter()
            .map(|(log, size)| (LogName::parse(log).unwrap(), *size))
            .collect();
        tree.logs.insert(name, logs);
        tree
    }

    const MIB: u64 = 1 << 20;

    /// Without limits of the administrator.
    const FREE: SpaceLimits = SpaceLimits {
        delete_below_bytes: u64::MAX,
        rotate_at_bytes: 0,
    };

    fn run(tree: &Tree, me: &HostName, rest_bytes: u64) -> Vec<SpaceStep> {
        plan_space(tree, me, rest_bytes, |_| FREE)
    }

    #[test]
    fn a_log_at_its_limit_is_rotated_however_much_is_left() {
        let at = ("resource-r/replay-A", "log-000000001-A,31457280,1048576");
        let one = tree(&[at], &[("log-000000001-A", 33 * MIB)]);
        let plan = |rotate_at_bytes| {
            let limits = SpaceLimits {
                rotate_at_bytes,
                ..FREE
            };
            plan_space(&one, &host(), u64::MAX, |_| limits)
        };
        let name = ResourceName::new("r").unwrap();
        let rotate = SpaceStep::Rotate(name, LogName::new(2, &host()));
        assert_eq!(plan(31 * MIB), [rotate]);
        assert_eq!(plan(31 * MIB + 1), []);
        assert_eq!(plan(0), []);
    }

    #[test]
    fn nothing_is_deleted_above_the_limit_and_everything_unneeded_where_nothing_is_left() {
        let a = ("resource-r/replay-A", "log-000000002-A,0,0");
        let b = ("resource-r/replay-B", "log-000000002-A,0,0");
        let logs = [("log-000000001-A", 31 * MIB), ("log-000000002-A", 0)];
        let tree = tree(&[a, b], &logs);
        let orders = |rest: u64, delete_below_bytes: u64| {
            let limits = SpaceLimits {
                delete_below_bytes,
                ..FREE
            };
            plan_space(&tree, &host(), rest, |_| limits).len()
        };
        assert_eq!(orders(20 * MIB, 20 * MIB), 1);
        assert_eq!(orders(20 * MIB, 20 * MIB - 1), 0);
        assert_eq!(orders(20 * MIB, 0), 0);
        assert_eq!(orders(0, 0), 1);
        // Plenty is left in comparison with what they occupy.
        assert_eq!(orders(32 * MIB, u64::MAX), 0);
    }

    #[test]
    fn a_log_longer_than_what_is_left_is_rotated_once() {
        let at = ("resource-r/replay-A", "log-000000001-A,31457280,1048576");
        let one = tree(&[at], &[("log-000000001-A", 33 * MIB)]);
        let next = LogName::new(2, &host());
        let rotate = SpaceStep::Rotate(ResourceName::new("r").unwrap(), next);
        assert_eq!(run(&one, &host(), 31 * MIB), [rotate]);
        assert_eq!(run(&one, &host(), 64 * MIB), []);
        let two = tree(
            &[at],
            &[("log-000000001-A", 31 * MIB), ("log-000000002-A", 0)],
        );
        assert_eq!(run(&two, &host(), 10 * MIB), []);
    }

    #[test]
    fn no_log_is_begun_in_place_of_a_gap() {
        let at = ("resource-r/replay-A", "log-000000001-A,31457280,0");
        let gap = ("resource-r/unlogged-A", "000000002");
        let log = [("log-000000001-A", 30 * MIB)];
        assert_eq!(run(&tree(&[at], &log), &host(), MIB).len(), 1);
        assert_eq!(run(&tree(&[at, gap], &log), &host(), MIB), []);
    }

    #[test]
    fn only_what_all_have_applied_with_one_history_is_ordered_once() {
        let a = ("resource-r/replay-A", "log-000000002-A,0,0");
        let behind = ("resource-r/replay-B", "log-000000001-A,5,0");
        let level = ("resource-r/replay-B", "log-000000002-A,0,0");
        let logs = [("log-000000001-A", 31 * MIB), ("log-000000002-A", 0)];
        let target = "/mars/resource-r/log-000000001-A".to_string();
        let order = [SpaceStep::Order(target)];
        assert_eq!(run(&tree(&[a, level], &logs), &host(), MIB), order);
        assert_eq!(run(&tree(&[a, level], &logs), &host(), 64 * MIB), []);
        assert_eq!(run(&tree(&[a, behind], &logs), &host(), MIB), []);
        assert_eq!(run(&tree(&[a], &logs), &host(), MIB), []);
        let digest = |d: &str| d.repeat(32) + ",A,5,0";
        let (one, two) = (digest("1"), digest("2"));
        let split = [
            ("resource-r/version-000000001-A", one.as_str()),
            ("resource-r/version-000000001-B", two.as_str()),
        ];
        let split = tree(&[&[a, level], &split[..]].concat(), &logs);
        assert_eq!(run(&split, &host(), MIB), []);
        let given = (
            "todo-global/delete-000000001",
            "/mars/resource-r/log-000000001-A",
        );
        assert_eq!(run(&tree(&[a, level, given], &logs), &host(), MIB), []);
    }
}
