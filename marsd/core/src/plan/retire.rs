//! When a deletion order may go: only if every node had it, not only one of its number (`symlink-spec.md` section 7).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use crate::link::LinkPath;
use crate::name::HostName;
use crate::tree::{Link, Tree};

/// Time in ms between the last proof that a node has an order and its removal, so that the others find it here too, and have
/// carried it out.
const HOLD: u64 = 30_000;
/// Time in ms after which an order counts as known to a node that was heard all the while, without proof: it may have
/// removed the order before this node looked.
const FALLBACK: u64 = 600_000;
/// Removed orders that are remembered, at most.
const MEMORY: usize = 10_000;

type Key = (u64, String);

#[derive(Debug, Clone)]
struct Entry {
    seen_at: u64,
    /// Nodes whose tree had the order.
    held_by: BTreeSet<HostName>,
    complete_at: Option<u64>,
}

/// What a daemon has seen of orders in the trees of its peers. An acknowledgement is a number and says nothing about an
/// order of that number that its writer has not met; the order itself in the tree of its writer does.
#[derive(Debug, Clone, Default)]
pub struct OrderBook {
    open: BTreeMap<Key, Entry>,
    retired: BTreeSet<Key>,
}

fn orders(tree: &Tree) -> impl Iterator<Item = (u64, &Link)> {
    let range = LinkPath::DeleteOrder(0)..=LinkPath::DeleteOrder(u64::MAX);
    tree.links.range(range).filter_map(|(p, l)| match p {
        LinkPath::DeleteOrder(number) => Some((*number, l)),
        _ => None,
    })
}

impl OrderBook {
    /// Notes the orders in a peer's tree, or a part of it, at `now` (ms of any steady clock).
    pub fn note_view(&mut self, peer: &HostName, staged: &Tree, now: u64) {
        for (number, order) in orders(staged) {
            let key = (number, order.value.clone());
            if !self.retired.contains(&key) {
                self.entry(key, now).held_by.insert(peer.clone());
            }
        }
    }

    fn entry(&mut self, key: Key, now: u64) -> &mut Entry {
        self.open.entry(key).or_insert_with(|| Entry {
            seen_at: now,
            held_by: BTreeSet::new(),
            complete_at: None,
        })
    }

    /// Numbers of the orders of `tree` that every other node of the cluster had long enough ago. `heard_since` tells since
    /// when (ms) the tree of a connected node is known without a break.
    pub fn settled(
        &mut self,
        tree: &Tree,
        me: &HostName,
        heard_since: impl Fn(&HostName) -> Option<u64>,
        now: u64,
    ) -> BTreeSet<u64> {
        let others = || tree.hosts().filter(|host| *host != me);
        let heard = |host| heard_since(host).is_some_and(|since| now >= since + FALLBACK);
        let all_heard = others().all(heard);
        let mut settled = BTreeSet::new();
        for (number, order) in orders(tree) {
            let entry = self.entry((number, order.value.clone()), now);
            if others().all(|host| entry.held_by.contains(host)) {
                entry.complete_at.get_or_insert(now);
            } else {
                entry.complete_at = None;
            }
            let proved = entry.complete_at.is_some_and(|at| now >= at + HOLD);
            if proved || (all_heard && now >= entry.seen_at + FALLBACK) {
                settled.insert(number);
            }
        }
        settled
    }

    /// Notes that an order was removed; a peer that still has it does not bring it back.
    pub fn retire(&mut self, number: u64, value: &str) {
        let key = (number, value.into());
        self.open.remove(&key);
        self.retired.insert(key);
        while self.retired.len() > MEMORY {
            self.retired.pop_first();
        }
    }

    /// Was this link an order that this node has removed?
    pub fn is_retired(&self, path: &LinkPath, value: &str) -> bool {
        matches!(path, LinkPath::DeleteOrder(number) if self.retired.contains(&(*number, value.into())))
    }
}
