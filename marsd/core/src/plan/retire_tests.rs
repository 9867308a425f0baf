//! Orders of nodes that do not see each other, views that are incomplete: each order is carried out by everybody, then goes.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use super::{
    DeleteStep, ORDER_ROOT, OrderBook, colliding_orders, highest_order, plan_delete, room_before,
};
use crate::link::LinkPath;
use crate::merge::merge;
use crate::name::HostName;
use crate::stamp::Stamp;
use crate::tree::Tree;

const NODES: usize = 3;
const TARGETS: usize = 12;
const MINUTE: u64 = 60_000;

/// Small generator of pseudo-random numbers (xorshift), so that a seed is a run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(n).unwrap()).unwrap()
    }
}

struct Node {
    me: HostName,
    tree: Tree,
    book: OrderBook,
}

fn path(text: &str) -> LinkPath {
    LinkPath::parse(text).unwrap()
}

impl Node {
    fn new(name: &str, targets: usize) -> Self {
        let mut tree = Tree::default();
        for n in 0..NODES {
            let put = |tree: &mut Tree, p: String, v: &str| {
                tree.put(path(&p), v, Stamp::new(1, 0)).unwrap();
            };
            put(&mut tree, alloc::format!("ips/ip-n{n}"), "10.0.0.1");
            put(&mut tree, alloc::format!("todo-global/deleted-n{n}"), "1");
        }
        for n in 0..targets {
            tree.put(target(n), "A", Stamp::new(1, 0)).unwrap();
        }
        Self {
            me: HostName::new(name).unwrap(),
            tree,
            book: OrderBook::default(),
        }
    }

    fn give(&mut self, first: u64, orders: &[(String, Stamp)]) {
        for (number, (value, stamp)) in (first..).zip(orders) {
            let order = LinkPath::DeleteOrder(number);
            self.tree.put(order, value, *stamp).unwrap();
        }
    }

    fn stage(&mut self, peer: &HostName, staged: &Tree, now: u64) {
        self.book.note_view(peer, staged, now);
        let lost = colliding_orders(&self.tree, staged);
        let news: Vec<_> = merge(&self.tree, staged, &self.me, peer)
            .into_iter()
            .filter(|(p, l)| !self.book.is_retired(p, &l.value))
            .map(|(p, l)| (p.clone(), l.clone()))
            .collect();
        self.tree.links.extend(news);
        let room = room_before(&self.tree, &self.me, lost.len());
        self.give(highest_order(&self.tree) + room + 1, &lost);
    }

    fn run(&mut self, now: u64, heard: Option<u64>, tick: &mut i64) {
        let settled = self.book.settled(&self.tree, &self.me, |_| heard, now);
        for step in plan_delete(&self.tree, &self.me, &settled) {
            match step {
                DeleteStep::Link(p) => drop(self.tree.links.remove(&p)),
                DeleteStep::Retire(number) => {
                    let order = self.tree.links.remove(&LinkPath::DeleteOrder(number));
                    self.book.retire(number, &order.unwrap().value);
                }
                DeleteStep::Acknowledge(number) => {
                    *tick += 1;
                    let ack = LinkPath::Deleted(self.me.clone());
                    let value = alloc::format!("{number:09}");
                    self.tree.put(ack, &value, Stamp::new(*tick, 0)).unwrap();
                }
                DeleteStep::Log(..) | DeleteStep::Refused(..) => unreachable!("{step:?}"),
            }
        }
    }
}

fn target(n: usize) -> LinkPath {
    path(&alloc::format!("resource-r/connect-x{n}"))
}

/// What one mirror of some paths brings: any part of the tree.
fn part(tree: &Tree, dice: &mut Dice) -> Tree {
    let percent = [100, 80, 30][dice.below(3)];
    let mut part = tree.clone();
    part.links.retain(|_, _| dice.below(100) < percent);
    part
}

/// A cluster in which time and cables are what the dice say.
struct Sim {
    nodes: Vec<Node>,
    cut: BTreeSet<(usize, usize)>,
    healed_at: u64,
    now: u64,
    tick: i64,
}

impl Sim {
    fn new() -> Self {
        let names = (0..NODES).map(|n| alloc::format!("n{n}"));
        Self {
            nodes: names.map(|name| Node::new(&name, TARGETS)).collect(),
            cut: BTreeSet::new(),
            healed_at: 0,
            now: 0,
            tick: 10,
        }
    }

    fn stage(&mut self, from: usize, to: usize, part: impl FnOnce(&Tree) -> Tree) {
        if from != to && !self.cut.contains(&(from.min(to), from.max(to))) {
            let (staged, peer) = (part(&self.nodes[from].tree), self.nodes[from].me.clone());
            self.nodes[to].stage(&peer, &staged, self.now);
        }
    }

    fn run(&mut self, node: usize) {
        let heard = self.cut.is_empty().then_some(self.healed_at);
        self.nodes[node].run(self.now, heard, &mut self.tick);
    }

    /// A minute in which all look at all that they can see.
    fn minute(&mut self) {
        for to in 0..NODES {
            for from in 0..NODES {
                self.stage(from, to, Tree::clone);
            }
            self.run(to);
        }
        self.now += MINUTE;
    }

    fn heal(&mut self) {
        if !self.cut.is_empty() {
            self.cut.clear();
            self.healed_at = self.now;
        }
    }

    fn give(&mut self, node: usize, targets: Range<usize>) {
        let stamp = Stamp::new(self.tick, 0);
        let orders: Vec<_> = targets
            .map(|n| (alloc::format!("{ORDER_ROOT}{}", target(n)), stamp))
            .collect();
        self.tick += 1;
        let node = &mut self.nodes[node];
        node.give(highest_order(&node.tree) + 1, &orders);
    }
}

fn run(seed: u64) {
    let dice = &mut Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut sim = Sim::new();
    let mut given = 0;
    for _ in 0..300 {
        let (a, b) = (dice.below(NODES), dice.below(NODES));
        match dice.below(12) {
            0 => {
                let until = (given + 1 + dice.below(3)).min(TARGETS);
                sim.give(a, given..until);
                given = until;
            }
            1 => drop(sim.cut.insert((a.min(b), a.max(b)))),
            2 => sim.heal(),
            3 => sim.minute(),
            4..=6 => sim.run(a),
            _ => sim.stage(a, b, |tree| part(tree, dice)),
        }
    }
    sim.heal();
    for _ in 0..40 {
        sim.minute();
    }
    for node in &sim.nodes {
        let left: Vec<_> = (0..given)
            .filter(|n| node.tree.links.contains_key(&target(*n)))
            .collect();
        assert_eq!(left, [], "seed {seed}: not deleted on {}", node.me);
        let is_order = |p: &&LinkPath| matches!(p, LinkPath::DeleteOrder(_));
        let orders: Vec<_> = node.tree.links.keys().filter(is_order).collect();
        let names: Vec<_> = orders.iter().map(ToString::to_string).collect();
        assert!(orders.len() <= 1, "seed {seed}: {} has {names:?}", node.me);
    }
}

#[test]
fn no_order_is_lost_and_none_stays_for_ever() {
    for seed in 1..=400 {
        run(seed);
    }
}

#[test]
fn a_removed_order_is_not_taken_again() {
    let mut book = OrderBook::default();
    let order = LinkPath::DeleteOrder(4);
    assert!(!book.is_retired(&order, "/mars/ips/ip-A"));
    book.retire(4, "/mars/ips/ip-A");
    assert!(book.is_retired(&order, "/mars/ips/ip-A"));
    assert!(!book.is_retired(&order, "/mars/ips/ip-B"));
}
