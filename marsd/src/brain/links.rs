//! The brain's hand on the tree: own links out, changes of others in, everything that changed announced.

use std::fs;
use tokio::time::Instant;

use mars_core::link::Scope;
use mars_core::plan::colliding_orders;
use mars_core::tree::Problem;
use mars_core::{HostName, LinkPath, LogName, ResourceName, Stamp, Tree};
use mars_tree::wall_clock;

use super::Brain;

impl Brain {
    /// Sets an own link if its value changed.
    pub(super) fn set_link(&mut self, path: LinkPath, value: &str) {
        if self.tree.get(&path) != Some(value) {
            self.stamp_link(path, value);
        }
    }

    /// Sets an own link with a new stamp, whatever it was.
    pub(super) fn stamp_link(&mut self, path: LinkPath, value: &str) {
        if let Some(stamp) = self.tree.stamp(&path) {
            self.clock.observe(stamp);
        }
        let stamp = self.clock.tick(wall_clock());
        match self.dir.write_link(&path, value, stamp) {
            Ok(()) => self.note_link(path, value, stamp),
            Err(e) => self.warn_once(&path.to_string(), &e.to_string()),
        }
    }

    /// Takes a link into the snapshot; what this node may speak of is announced.
    pub(super) fn note_link(&mut self, path: LinkPath, value: &str, stamp: Stamp) {
        self.touch(&path);
        let speaks = match path.scope() {
            Scope::HostOnly(owner) => *owner == self.me,
            // A key that join-cluster has put here must reach the others before its node can.
            Scope::Owned(_) | Scope::Shared => true,
        };
        if speaks {
            self.announce.insert(path.to_string());
        }
        if let Err(problem) = self.tree.put(path, value, stamp) {
            self.warn_once(&problem.path, &problem.cause);
        }
    }

    /// Marks what depends on a link for the next planning.
    fn touch(&mut self, path: &LinkPath) {
        match path {
            LinkPath::Resource(res, _) => {
                self.tree.dirs.insert(format!("resource-{res}"));
                self.dirty.insert(res.clone());
            }
            LinkPath::Ip(_) | LinkPath::Key(_) => self.peers_dirty = true,
            LinkPath::DeleteOrder(_) | LinkPath::Deleted(_) => self.orders_dirty = true,
            _ => {}
        }
    }

    /// Paths that somebody on this machine changed.
    pub(super) fn apply_changed(&mut self, paths: &[String]) {
        for path in paths {
            if let Some(link) = LinkPath::parse(path) {
                self.refresh_link(link);
            } else if let Some((res, log)) = parse_log(path) {
                self.refresh_log(&res, &log);
            }
        }
    }

    pub(super) fn refresh_link(&mut self, path: LinkPath) {
        match self.dir.read_link(&path) {
            Ok(Some(link))
                if self.tree.stamp(&path) != Some(link.stamp)
                    || self.tree.get(&path) != Some(&link.value) =>
            {
                self.clock.observe(link.stamp);
                self.note_link(path, &link.value, link.stamp);
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                self.touch(&path);
                self.tree.links.remove(&path);
            }
            Err(e) => self.warn_once(&path.to_string(), &e.to_string()),
        }
    }

    /// Reads the size of a logfile again.
    pub(super) fn refresh_log(&mut self, res: &ResourceName, log: &LogName) {
        let size = fs::symlink_metadata(self.dir.log_path(res, log))
            .ok()
            .filter(fs::Metadata::is_file)
            .map(|m| m.len());
        let logs = self.tree.logs.entry(res.clone()).or_default();
        let was_there = match size {
            Some(size) => {
                logs.insert(log.clone(), size);
                false
            }
            None => logs.remove(log).is_some(),
        };
        if was_there {
            self.lose_log(res, log);
        }
        self.dirty.insert(res.clone());
    }

    /// Reads the whole tree: inotify is a hint, this is the truth.
    pub(super) fn reload(&mut self, now: Instant) {
        self.reloaded_at = now;
        let loaded = self.dir.load();
        for Problem { path, cause } in loaded.problems {
            self.warn_once(&path, &cause);
        }
        let new = loaded.tree;
        self.clock.observe(new.max_stamp());
        let changed: Vec<LinkPath> = new
            .links
            .iter()
            .filter(|(p, l)| self.tree.links.get(*p) != Some(*l))
            .map(|(p, _)| p.clone())
            .collect();
        let gone: Vec<LinkPath> = self
            .tree
            .links
            .keys()
            .filter(|p| !new.links.contains_key(*p))
            .cloned()
            .collect();
        self.tree.dirs = new.dirs;
        let logs = std::mem::replace(&mut self.tree.logs, new.logs);
        for (res, log) in logs.iter().flat_map(|(r, l)| l.keys().map(move |l| (r, l))) {
            if self.tree.resource(res).log_size(log).is_none() {
                self.lose_log(res, log);
            }
        }
        for path in gone {
            self.touch(&path);
            self.tree.links.remove(&path);
        }
        for path in changed {
            if let Some(link) = new.links.get(&path) {
                self.note_link(path, &link.value, link.stamp);
            }
        }
        let names: Vec<ResourceName> = self.tree.resources().collect();
        self.dirty.extend(names);
        self.orders_dirty = true;
        for res in self.resources.values_mut() {
            // Disks may have grown.
            res.seen.disk_bytes = None;
        }
    }

    /// Merges what was mirrored from a peer.
    pub(super) fn apply_staged(
        &mut self,
        peer: &HostName,
        staged: &Tree,
        problems: Vec<Problem>,
        now: Instant,
    ) {
        let _about = tracing::error_span!("staged", %peer).entered();
        for Problem { path, cause } in problems {
            self.warn_once(&format!("{path} from {peer}"), &cause);
        }
        let at = self.millis(now);
        self.order_book.note_view(peer, staged, at);
        let news: Vec<(LinkPath, String, Stamp)> =
            mars_core::merge::merge(&self.tree, staged, &self.me, peer)
                .into_iter()
                .filter(|(p, l)| !self.order_book.is_retired(p, &l.value))
                .map(|(p, l)| (p.clone(), l.value.clone(), l.stamp))
                .collect();
        let orders = self.other_orders(staged);
        if news.is_empty() && orders.is_empty() {
            return;
        }
        let lock = match self.dir.lock() {
            Ok(lock) => lock,
            Err(e) => return self.warn_once("lock", &e.to_string()),
        };
        // A command may have given one that this daemon has not heard of.
        for path in orders {
            self.refresh_link(path);
        }
        let lost = colliding_orders(&self.tree, staged);
        let tomorrow = wall_clock().secs.saturating_add(24 * 60 * 60);
        for (path, value, stamp) in news {
            if stamp.secs > tomorrow {
                // Every new link bears such a stamp: that is said once.
                let text = "more than a day ahead: is the clock of that node right?";
                self.warn_once(&stamps_of(&path, peer), text);
            }
            self.clock.observe(stamp);
            let link = mars_core::Link { value, stamp };
            match lock.write_newer(&path, &link) {
                Ok(true) => {
                    self.touch(&path);
                    self.tree.links.insert(path, link);
                }
                // The change on the way from inotify is newer still.
                Ok(false) => self.refresh_link(path),
                Err(e) => self.warn_once(&path.to_string(), &e.to_string()),
            }
        }
        drop(lock);
        self.give_orders_again(lost);
    }

    /// Warns about a path, once for each different cause.
    pub(super) fn warn_once(&mut self, path: &str, cause: &str) {
        if self.warned.get(path).map(String::as_str) != Some(cause) {
            let resource = resource_of(path).map(tracing::field::display);
            tracing::warn!(resource, "{path}: {cause}");
            self.warned.insert(path.into(), cause.into());
        }
    }
}

/// What is warned about if stamps of `peer` are wrong: once for each resource, and once for all other links.
fn stamps_of(path: &LinkPath, peer: &HostName) -> String {
    match path {
        LinkPath::Resource(res, _) => format!("resource-{res}/ from {peer}: its stamps"),
        _ => format!("links from {peer}: their stamps"),
    }
}

/// The resource that a path of the tree belongs to.
fn resource_of(path: &str) -> Option<&str> {
    path.strip_prefix("resource-")?.split('/').next()
}

fn parse_log(path: &str) -> Option<(ResourceName, LogName)> {
    let (dir, name) = path.split_once('/')?;
    Some((
        ResourceName::new(dir.strip_prefix("resource-")?).ok()?,
        LogName::parse(name).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_told_once_for_each_peer_and_resource() {
        let [b, c] = ["B", "C"].map(|name| HostName::new(name).unwrap());
        let place = |path: &str, peer| stamps_of(&LinkPath::parse(path).unwrap(), peer);
        let first = place("resource-r1/actual-B/error", &b);
        assert_eq!(first, place("resource-r1/replay-B", &b));
        assert_ne!(first, place("resource-r2/replay-B", &b));
        assert_ne!(first, place("resource-r1/replay-C", &c));
        assert_eq!(resource_of(&first), Some("r1"));
        assert_eq!(place("alive-B", &b), place("rest-space-B", &b));
        assert_eq!(resource_of(&place("alive-B", &b)), None);
    }
}
