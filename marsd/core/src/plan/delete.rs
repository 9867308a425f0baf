//! Deletion orders: what this node unlinks and acknowledges (`symlink-spec.md` section 7).

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::link::{LinkPath, ResourceLink};
use crate::name::{HostName, ResourceName};
use crate::position::LogName;
use crate::stamp::Stamp;
use crate::tree::{Link, Tree};

/// Root that deletion orders are written against, wherever the tree really lies.
pub const ORDER_ROOT: &str = "/mars/";

/// One thing to do for the orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteStep {
    /// Unlink a logfile.
    Log(ResourceName, LogName),
    /// Unlink a link.
    Link(LinkPath),
    /// Unlink an order that all have carried out.
    Retire(u64),
    /// Write `deleted-me`.
    Acknowledge(u64),
    /// Nothing is done and nothing acknowledged: why.
    Refused(u64, String),
}

/// The highest order given or acknowledged so far. A node begins with the acknowledgement `1`, which is none.
pub fn highest_order(tree: &Tree) -> u64 {
    tree.links
        .iter()
        .filter_map(|(path, link)| match path {
            LinkPath::DeleteOrder(number) => Some(*number),
            LinkPath::Deleted(_) if link.value != "1" => link.value.parse().ok(),
            _ => None,
        })
        .max()
        .unwrap_or(0)
}

/// Orders of `live` and `staged`, a peer's tree, that bear the same number but differ: two nodes that could not see each other
/// took it. Whichever wins, the number says nothing any more about who has seen what, so both are to be given again, with
/// another number and the stamp that they have.
pub fn colliding_orders(live: &Tree, staged: &Tree) -> Vec<(String, Stamp)> {
    let is_order = |path: &LinkPath| matches!(path, LinkPath::DeleteOrder(_));
    let given_again = |path: &LinkPath, order: &Link| {
        live.links
            .iter()
            .filter(|(other, _)| is_order(other) && *other > path)
            .any(|(_, other)| other.value == order.value && other.stamp >= order.stamp)
    };
    let mut lost = Vec::new();
    for (path, theirs) in staged.links.iter().filter(|(path, _)| is_order(path)) {
        let Some(ours) = live.links.get(path).filter(|o| o.value != theirs.value) else {
            continue;
        };
        for order in [ours, theirs] {
            if !given_again(path, order) {
                lost.push((order.value.clone(), order.stamp));
            }
        }
    }
    lost
}

/// Numbers that are left free before `count` such orders are given again: nodes that notice the same leave different room, so
/// that they do not meet again.
pub fn room_before(tree: &Tree, me: &HostName, count: usize) -> u64 {
    let rank = tree.hosts().filter(|host| *host < me).count();
    u64::try_from(rank * count).unwrap_or(0)
}

enum Target {
    Log(ResourceName, LogName),
    Link(LinkPath),
}

fn parse_target(value: &str) -> Option<Target> {
    let path = value.strip_prefix(ORDER_ROOT)?;
    if let Some(link) = LinkPath::parse(path) {
        return Some(Target::Link(link));
    }
    let (dir, name) = path.split_once('/')?;
    let res = ResourceName::new(dir.strip_prefix("resource-")?).ok()?;
    Some(Target::Log(res, LogName::parse(name).ok()?))
}

/// The steps of node `me` for all orders in the tree; `settled` are those that all nodes had ([`super::OrderBook`]).
///
/// A log that this node has not yet replayed is not deleted, whatever the order says; and a link that is newer than
/// the order is not: it was made again after it.
pub fn plan_delete(tree: &Tree, me: &HostName, settled: &BTreeSet<u64>) -> Vec<DeleteStep> {
    let orders: Vec<(u64, &Link)> = tree
        .links
        .range(LinkPath::DeleteOrder(0)..=LinkPath::DeleteOrder(u64::MAX))
        .filter_map(|(p, l)| match p {
            LinkPath::DeleteOrder(n) => Some((*n, l)),
            _ => None,
        })
        .collect();
    let seen = |host: &HostName| {
        tree.get(&LinkPath::Deleted(host.clone()))
            .and_then(|v| v.parse::<u64>().ok())
    };
    let border = tree
        .hosts()
        .map(|h| seen(h).unwrap_or(0))
        .min()
        .unwrap_or(0);
    let mine = seen(me).unwrap_or(0);
    let mut steps = Vec::new();
    let mut done = mine;
    let mut blocked = false;
    for (number, order) in orders {
        let may_go = number < border && settled.contains(&number);
        match step_of(tree, me, number, order, may_go) {
            Some(refused @ DeleteStep::Refused(..)) => {
                blocked = true;
                steps.push(refused);
            }
            Some(step) => steps.push(step),
            None => {}
        }
        if !blocked {
            done = done.max(number);
        }
    }
    if done > mine {
        steps.push(DeleteStep::Acknowledge(done));
    }
    steps
}

/// Resources that have a directory and no link, and whose deletion was ordered: an order names their `size`.
pub fn deleted_resources(tree: &Tree) -> Vec<ResourceName> {
    let targets = tree
        .links
        .range(LinkPath::DeleteOrder(0)..=LinkPath::DeleteOrder(u64::MAX))
        .filter_map(|(_, order)| match parse_target(&order.value) {
            Some(Target::Link(LinkPath::Resource(res, ResourceLink::Size))) => Some(res),
            _ => None,
        });
    targets
        .filter(|res| {
            tree.dirs.contains(&alloc::format!("resource-{res}"))
                && tree.resource(res).links().next().is_none()
        })
        .collect()
}

fn step_of(
    tree: &Tree,
    me: &HostName,
    number: u64,
    order: &Link,
    may_go: bool,
) -> Option<DeleteStep> {
    let retire = || may_go.then_some(DeleteStep::Retire(number));
    match parse_target(&order.value) {
        Some(Target::Log(res, log)) => {
            let view = tree.resource(&res);
            if view.log_size(&log).is_none() || is_deleted_since(tree, &res, order.stamp) {
                return retire();
            }
            let needed = view.replay(me).is_some_and(|pos| log.seq >= pos.log.seq);
            if needed {
                return Some(DeleteStep::Refused(
                    number,
                    alloc::format!("{log} of {res} is not yet replayed here"),
                ));
            }
            Some(DeleteStep::Log(res, log))
        }
        Some(Target::Link(link)) if tree.stamp(&link).is_some_and(|stamp| stamp <= order.stamp) => {
            Some(DeleteStep::Link(link))
        }
        Some(Target::Link(_)) => retire(),
        None => Some(DeleteStep::Refused(
            number,
            alloc::format!("'{}' is nothing that may be deleted", order.value),
        )),
    }
}

/// Was the deletion of a resource ordered at `stamp` or later? Then logs of that name are those of a new one.
fn is_deleted_since(tree: &Tree, res: &ResourceName, stamp: Stamp) -> bool {
    let size = LinkPath::res(res, ResourceLink::Size);
    tree.links
        .range(LinkPath::DeleteOrder(0)..=LinkPath::DeleteOrder(u64::MAX))
        .filter(|(_, order)| order.stamp >= stamp)
        .any(|(_, order)| {
            matches!(parse_target(&order.value), Some(Target::Link(link)) if link == size)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn tree(replay_seq: u64) -> (Tree, HostName) {
        let me = HostName::new("A").unwrap();
        let mut tree = Tree::default();
        let mut put = |p: &str, v: &str| {
            tree.put(LinkPath::parse(p).unwrap(), v, Stamp::default())
                .unwrap()
        };
        put("ips/ip-A", "10.0.0.1");
        put("todo-global/deleted-A", "1");
        put(
            "todo-global/delete-000000002",
            "/mars/resource-r/log-000000001-A",
        );
        put(
            "resource-r/replay-A",
            &alloc::format!("log-{replay_seq:09}-A,0,0"),
        );
        let res = ResourceName::new("r").unwrap();
        tree.logs
            .entry(res)
            .or_default()
            .insert(LogName::new(1, &me), 10);
        (tree, me)
    }

    fn all() -> BTreeSet<u64> {
        (0..10).collect()
    }

    #[test]
    fn a_replayed_log_goes_and_the_order_is_acknowledged() {
        let (tree, me) = tree(2);
        let steps = plan_delete(&tree, &me, &all());
        assert!(
            matches!(
                &steps[..],
                [DeleteStep::Log(..), DeleteStep::Acknowledge(2)]
            ),
            "{steps:?}"
        );
    }

    #[test]
    fn a_needed_log_stays_and_nothing_is_acknowledged() {
        let (tree, me) = tree(1);
        let steps = plan_delete(&tree, &me, &all());
        assert!(
            matches!(&steps[..], [DeleteStep::Refused(2, _)]),
            "{steps:?}"
        );
    }

    #[test]
    fn an_order_retires_when_all_have_acknowledged_a_higher_one() {
        let (mut tree, me) = tree(2);
        tree.logs.clear();
        tree.put(
            LinkPath::parse("todo-global/deleted-A").unwrap(),
            "3",
            Stamp::default(),
        )
        .unwrap();
        assert_eq!(plan_delete(&tree, &me, &all()), [DeleteStep::Retire(2)]);
        assert_eq!(plan_delete(&tree, &me, &BTreeSet::new()), []);
        tree.put(
            LinkPath::parse("ips/ip-B").unwrap(),
            "10.0.0.2",
            Stamp::default(),
        )
        .unwrap();
        assert_eq!(plan_delete(&tree, &me, &all()), []);
    }

    #[test]
    fn a_link_made_again_after_the_order_stays() {
        let (mut tree, me) = tree(2);
        let link = LinkPath::parse("resource-r/connect-B").unwrap();
        let order = LinkPath::parse("todo-global/delete-000000003").unwrap();
        tree.put(order, "/mars/resource-r/connect-B", Stamp::new(5, 0))
            .unwrap();
        for (secs, goes) in [(4, true), (5, true), (6, false)] {
            tree.put(link.clone(), "A", Stamp::new(secs, 0)).unwrap();
            let steps = plan_delete(&tree, &me, &all());
            let step = DeleteStep::Link(link.clone());
            assert_eq!(steps.contains(&step), goes, "{secs}: {steps:?}");
        }
    }

    #[test]
    fn a_directory_goes_only_by_order_and_without_links() {
        let (mut tree, me) = tree(2);
        let order = LinkPath::parse("todo-global/delete-000000004").unwrap();
        tree.dirs.insert("resource-r".into());
        tree.links
            .retain(|p, _| !p.to_string().starts_with("resource-r/"));
        assert_eq!(deleted_resources(&tree), [], "no order");
        tree.put(order, "/mars/resource-r/size", Stamp::new(5, 0))
            .unwrap();
        assert_eq!(deleted_resources(&tree), [ResourceName::new("r").unwrap()]);
        let again = LinkPath::parse("resource-r/size").unwrap();
        tree.put(again, "4096", Stamp::new(6, 0)).unwrap();
        assert_eq!(deleted_resources(&tree), [], "made again");
        assert!(
            !plan_delete(&tree, &me, &all())
                .iter()
                .any(|s| matches!(s, DeleteStep::Link(LinkPath::Resource(..))))
        );
    }

    #[test]
    fn an_order_that_lost_its_number_is_given_again_once() {
        let orders = |list: &[(u64, &str, i64)]| {
            let mut tree = Tree::default();
            for (number, target, secs) in list {
                let value = alloc::format!("/mars/resource-r/{target}");
                tree.put(LinkPath::DeleteOrder(*number), &value, Stamp::new(*secs, 0))
                    .unwrap();
            }
            tree
        };
        let ours = (4, "connect-A", 10);
        let again = |target: &str, secs| {
            let value = alloc::format!("/mars/resource-r/{target}");
            (value, Stamp::new(secs, 0))
        };
        for secs in [9, 11] {
            let staged = orders(&[(4, "connect-B", secs), (5, "connect-C", 9)]);
            let both = [again("connect-A", 10), again("connect-B", secs)];
            assert_eq!(colliding_orders(&orders(&[ours]), &staged), both);
            let once = orders(&[ours, (7, "connect-A", 10)]);
            assert_eq!(colliding_orders(&once, &staged), [again("connect-B", secs)]);
            let twice = orders(&[ours, (7, "connect-A", 10), (8, "connect-B", secs)]);
            assert_eq!(colliding_orders(&twice, &staged), []);
        }
        let same = orders(&[(4, "connect-A", 11)]);
        assert_eq!(colliding_orders(&orders(&[ours]), &same), []);
        assert_eq!(highest_order(&orders(&[ours, (6, "connect-D", 1)])), 6);
    }

    #[test]
    fn the_logs_of_a_new_resource_are_none_of_an_old_order() {
        let (mut tree, me) = tree(2);
        let goes = |tree: &Tree| {
            let steps = plan_delete(tree, &me, &all());
            steps.iter().any(|s| matches!(s, DeleteStep::Log(..)))
        };
        let order = LinkPath::DeleteOrder(2);
        tree.links.get_mut(&order).unwrap().stamp = Stamp::new(5, 0);
        assert!(goes(&tree));
        for (secs, kept) in [(4, false), (6, true)] {
            let gone = LinkPath::DeleteOrder(3);
            tree.put(gone, "/mars/resource-r/size", Stamp::new(secs, 0))
                .unwrap();
            assert_eq!(goes(&tree), !kept, "{secs}");
        }
    }

    #[test]
    fn hostile_targets_are_refused() {
        for bad in [
            "/etc/passwd",
            "/mars/../etc/passwd",
            "/mars/log.txt",
            "/mars/.key-A",
        ] {
            assert!(parse_target(bad).is_none(), "{bad}");
        }
    }
}
