//! Deletion orders: carried out, given, and given again where two nodes took one number (`symlink-spec.md` section 7).

use std::collections::BTreeMap;

use mars_core::plan::{DeleteStep, deleted_resources, highest_order, plan_delete, room_before};
use mars_core::{HostName, LinkPath, Stamp, Tree};
use mars_tree::wall_clock;
use tokio::time::Instant;

use super::Brain;

impl Brain {
    /// Gives orders with these targets, behind all that there are; each with a new stamp if it brings none.
    pub(super) fn give_orders(&mut self, targets: &[(String, Option<Stamp>)]) {
        self.give_orders_behind(targets, 0);
    }

    /// Gives orders again whose number another node has used too.
    pub(super) fn give_orders_again(&mut self, lost: Vec<(String, Stamp)>) {
        if lost.is_empty() {
            return;
        }
        let count = lost.len();
        tracing::info!(
            "{count} deletion orders bear numbers that another node has used too: they are given again"
        );
        let room = room_before(&self.tree, &self.me, count);
        let targets: Vec<_> = lost
            .into_iter()
            .map(|(t, stamp)| (t, Some(stamp)))
            .collect();
        self.give_orders_behind(&targets, room);
    }

    fn give_orders_behind(&mut self, targets: &[(String, Option<Stamp>)], room: u64) {
        if targets.is_empty() {
            return;
        }
        let lock = match self.dir.lock() {
            Ok(lock) => lock,
            Err(e) => return self.warn_once("lock", &e.to_string()),
        };
        let there = lock.dir().load_orders().tree;
        self.clock.observe(there.max_stamp());
        let highest = highest_order(&there).max(highest_order(&self.tree));
        for (number, (target, stamp)) in (highest + room + 1..).zip(targets) {
            let path = LinkPath::DeleteOrder(number);
            let stamp = stamp.unwrap_or_else(|| self.clock.tick(wall_clock()));
            match lock.dir().write_link(&path, target, stamp) {
                Ok(()) => self.note_link(path, target, stamp),
                Err(e) => return self.warn_once(&path.to_string(), &e.to_string()),
            }
        }
        self.orders_dirty = true;
    }

    /// Numbers of orders that a peer has and this node has not, or not so.
    pub(super) fn other_orders(&self, staged: &Tree) -> Vec<LinkPath> {
        let is_other = |path: &LinkPath, value: &str| {
            matches!(path, LinkPath::DeleteOrder(_)) && self.tree.get(path) != Some(value)
        };
        let links = staged.links.iter();
        links
            .filter(|(path, link)| is_other(path, &link.value))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Does what the orders want of this node.
    pub(super) fn run_orders(&mut self, now: Instant) {
        let heard: BTreeMap<HostName, u64> = self
            .peers
            .iter()
            .filter_map(|(host, peer)| Some((host.clone(), self.millis(peer.heard_since?))))
            .collect();
        let heard_since = |host: &HostName| heard.get(host).copied();
        let at = self.millis(now);
        let book = &mut self.order_book;
        let settled = book.settled(&self.tree, &self.me, heard_since, at);
        for step in plan_delete(&self.tree, &self.me, &settled) {
            match step {
                DeleteStep::Log(res, log) => {
                    tracing::info!(resource = %res, "{log} is deleted by order");
                    match self.dir.remove_log(&res, &log) {
                        Ok(()) => self.board.forget(&res, &log),
                        Err(e) => self.warn_once(&format!("resource-{res}/{log}"), &e.to_string()),
                    }
                    self.refresh_log(&res, &log);
                }
                DeleteStep::Link(path) => self.remove_ordered(&path),
                DeleteStep::Retire(number) => {
                    let path = LinkPath::DeleteOrder(number);
                    if let Err(e) = self.dir.remove(&path) {
                        self.warn_once(&path.to_string(), &e.to_string());
                    }
                    if let Some(order) = self.tree.links.remove(&path) {
                        self.order_book.retire(number, &order.value);
                    }
                }
                DeleteStep::Acknowledge(number) => {
                    self.set_link(LinkPath::Deleted(self.me.clone()), &format!("{number:09}"));
                }
                DeleteStep::Refused(number, why) => {
                    self.warn_once(&format!("deletion order {number}"), &why)
                }
            }
        }
        self.remove_deleted_resources();
    }

    /// Removes a link as it was when the order was judged; what marsadm has just written in its place stays.
    fn remove_ordered(&mut self, path: &LinkPath) {
        let Some(judged) = self.tree.links.get(path).map(|link| link.stamp) else {
            return;
        };
        let removed = self
            .dir
            .lock()
            .and_then(|lock| lock.remove_up_to(path, judged));
        match removed {
            Ok(false) => return,
            Ok(true) => {}
            Err(e) => self.warn_once(&path.to_string(), &e.to_string()),
        }
        self.tree.links.remove(path);
    }

    /// The directory of a resource whose deletion was ordered goes when none of its links is left.
    fn remove_deleted_resources(&mut self) {
        for res in deleted_resources(&self.tree) {
            match self.dir.remove_resource_dir(&res) {
                Ok(true) => {
                    tracing::info!(resource = %res, "the resource is deleted by order");
                    self.tree.dirs.retain(|dir| {
                        dir.split('/')
                            .next()
                            .and_then(|d| d.strip_prefix("resource-"))
                            != Some(res.as_str())
                    });
                    self.tree.logs.remove(&res);
                    self.withdraw_logs(&res);
                    self.resources.remove(&res);
                    self.dirty.remove(&res);
                }
                Ok(false) => self.warn_once(
                    &format!("resource-{res}"),
                    "holds files that are not of MARS and stays, though the resource was deleted",
                ),
                Err(e) => self.warn_once(&format!("resource-{res}"), &e.to_string()),
            }
        }
    }
}
