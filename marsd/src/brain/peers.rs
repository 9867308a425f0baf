//! One task per peer keeps a connection to it: watches, mirrors its tree, and tells the brain.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mars_core::plan::LogOffer;
use mars_core::{HostName, LinkPath, ResourceName, Tree};
use tokio::sync::mpsc::{self, Receiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::Instrument;

use super::space::{FULL_KIB, free_kib};
use super::{Brain, Event};
use crate::net::{
    Announce, AnnouncedLink, Mirror, NetContext, PeerConn, PeerEntry, dial, load_staged, mirror,
    watch_client,
};

/// Time between two mirrors of the whole tree of a peer.
const WHOLE_INTERVAL: Duration = Duration::from_secs(60);
/// First and longest pause before a peer is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// Announcements that wait for one peer, at most.
const QUEUE: usize = 1024;
/// More changed paths than this are fetched by mirroring everything.
const PATHS_MAX: usize = 500;

/// A peer as the brain sees it.
#[derive(Debug)]
pub(super) struct Peer {
    task: JoinHandle<()>,
    pub(super) conn: Option<PeerConn>,
    /// When its tree was first mirrored since it is connected.
    pub(super) heard_since: Option<Instant>,
    pub(super) offers: BTreeMap<ResourceName, Vec<LogOffer>>,
    last_error: String,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Brain {
    /// Follows `ips/`: who is in the tree is a peer.
    pub(super) fn update_peers(&mut self) {
        let entries: BTreeMap<HostName, PeerEntry> = self
            .tree
            .hosts()
            .map(|host| {
                let value = |path| self.tree.get(&path).map(ToOwned::to_owned);
                let address = value(LinkPath::Ip(host.clone())).unwrap_or_default();
                (
                    host.clone(),
                    PeerEntry {
                        address,
                        key: value(LinkPath::Key(host.clone())),
                    },
                )
            })
            .collect();
        self.peers.retain(|host, _| entries.contains_key(host));
        let hosts: Vec<HostName> = entries
            .keys()
            .filter(|host| **host != self.me)
            .cloned()
            .collect();
        self.net.directory().replace(entries);
        for host in hosts {
            if !self.peers.contains_key(&host) {
                let work = keep_connected(PeerTask {
                    net: self.net.clone(),
                    peer: host.clone(),
                    root: self.dir.root().to_path_buf(),
                    staging: self.dir.root().join(".staging").join(host.as_str()),
                    events: self.events.clone(),
                });
                let about = tracing::error_span!("peer", peer = %host);
                let task = tokio::spawn(work.instrument(about));
                let peer = Peer {
                    task,
                    conn: None,
                    heard_since: None,
                    offers: BTreeMap::new(),
                    last_error: String::new(),
                };
                self.peers.insert(host, peer);
            }
        }
    }

    pub(super) fn apply_peer_up(&mut self, host: &HostName, conn: PeerConn) {
        let Some(peer) = self.peers.get_mut(host) else {
            return;
        };
        tracing::info!(peer = %host, "connected");
        peer.conn = Some(conn);
        peer.heard_since = None;
        peer.last_error.clear();
        self.dirty.extend(self.resources.keys().cloned());
    }

    pub(super) fn apply_peer_down(&mut self, host: &HostName, why: &str) {
        let Some(peer) = self.peers.get_mut(host) else {
            return;
        };
        peer.conn = None;
        peer.heard_since = None;
        peer.offers.clear();
        if peer.last_error != why {
            tracing::warn!(peer = %host, "{why}");
            why.clone_into(&mut peer.last_error);
        }
        self.dirty.extend(self.resources.keys().cloned());
    }

    pub(super) fn apply_more_offers(
        &mut self,
        host: &HostName,
        res: ResourceName,
        logs: Vec<LogOffer>,
    ) {
        let Some(peer) = self.peers.get_mut(host) else {
            return;
        };
        peer.offers.entry(res.clone()).or_default().extend(logs);
        self.dirty.insert(res);
    }

    pub(super) fn apply_offers(&mut self, host: &HostName, res: ResourceName, logs: Vec<LogOffer>) {
        let Some(peer) = self.peers.get_mut(host) else {
            return;
        };
        peer.offers.insert(res.clone(), logs);
        self.dirty.insert(res);
    }
}

struct PeerTask {
    net: NetContext,
    peer: HostName,
    root: PathBuf,
    staging: PathBuf,
    events: UnboundedSender<Event>,
}

async fn keep_connected(task: PeerTask) {
    let mut pause = REDIAL.0;
    loop {
        let why = match dial(&task.net, &task.peer).await {
            Ok(conn) => {
                let why = task.follow(&conn).await;
                conn.close("the watch ended");
                // Without room nothing can be mirrored, however often it is tried.
                if !task.is_full() {
                    pause = REDIAL.0;
                }
                why
            }
            Err(e) => e.to_string(),
        };
        if task
            .events
            .send(Event::PeerDown(task.peer.clone(), why))
            .is_err()
        {
            return;
        }
        rest(pause, || task.is_full()).await;
        pause = (pause * 2).min(REDIAL.1);
    }
}

/// Pauses; if there is no room, only as long as that is so.
async fn rest(pause: Duration, is_full: impl Fn() -> bool) {
    let until = Instant::now() + pause;
    let was_full = is_full();
    while Instant::now() < until {
        sleep_until(until.min(Instant::now() + REDIAL.0)).await;
        if was_full && !is_full() {
            return;
        }
    }
}

impl PeerTask {
    /// Whether `/mars` has no room.
    fn is_full(&self) -> bool {
        free_kib(&self.root).is_ok_and(|free| free <= FULL_KIB)
    }

    /// Follows one connection until it breaks; returns why.
    async fn follow(&self, conn: &PeerConn) -> String {
        let (sink, mut announced) = mpsc::channel(QUEUE);
        let watched = conn.clone();
        let watcher = async move { watch_client(&watched, sink).await };
        let watcher = tokio::spawn(watcher.in_current_span());
        if self
            .events
            .send(Event::PeerUp(self.peer.clone(), conn.clone()))
            .is_err()
        {
            return String::new();
        }
        let ended = self.mirror_all(conn, &mut announced).await;
        watcher.abort();
        match (ended, watcher.await) {
            (Err(why), _) => why,
            (Ok(()), Ok(Err(e))) => e.to_string(),
            (Ok(()), _) => conn.closed().await.to_string(),
        }
    }

    /// `Ok` when no more announcements come.
    async fn mirror_all(
        &self,
        conn: &PeerConn,
        announced: &mut Receiver<Announce>,
    ) -> Result<(), String> {
        let mut what = Mirror::Whole;
        let mut whole_at = Instant::now();
        loop {
            self.mirror_once(conn, &what).await?;
            if matches!(what, Mirror::Whole) {
                whole_at = Instant::now();
            }
            what = loop {
                match timeout_at(whole_at + WHOLE_INTERVAL, announced.recv()).await {
                    Err(_) => break Mirror::Whole,
                    Ok(None) => return Ok(()),
                    Ok(Some(first)) => {
                        if let Some(paths) = self.collect(first, announced) {
                            break if paths.len() > PATHS_MAX {
                                Mirror::Whole
                            } else {
                                Mirror::Paths(paths)
                            };
                        }
                    }
                }
            };
        }
    }

    /// Takes all announcements that are there; the changed paths, if any. Progress is told at once, unless it came after
    /// changes: then it is mirrored with them.
    fn collect(&self, first: Announce, announced: &mut Receiver<Announce>) -> Option<Vec<String>> {
        let mut changed: Vec<String> = Vec::new();
        let mut next = Some(first);
        while let Some(announce) = next {
            match announce {
                Announce::Changed { paths } => changed.extend(paths),
                Announce::Progress { links } if changed.is_empty() => self.tell_progress(links),
                Announce::Progress { links } => changed.extend(links.into_iter().map(|l| l.path)),
                Announce::Logs { resource, logs } => {
                    let _ = self
                        .events
                        .send(Event::Offers(self.peer.clone(), resource, logs));
                }
                Announce::MoreLogs { resource, logs } => {
                    let _ = self
                        .events
                        .send(Event::MoreOffers(self.peer.clone(), resource, logs));
                }
                Announce::Heartbeat | Announce::Unknown => {}
            }
            next = announced.try_recv().ok();
        }
        // What the grammar does not know is of no use here.
        changed.retain(|path| LinkPath::parse(path).is_some());
        changed.sort();
        changed.dedup();
        (!changed.is_empty()).then_some(changed)
    }

    fn tell_progress(&self, links: Vec<AnnouncedLink>) {
        let (mut tree, mut problems) = (Tree::default(), Vec::new());
        for AnnouncedLink { path, value, stamp } in links {
            // As with mirrored links: what the grammar does not know is of no use, and no progress of the peer is none of it.
            let Some(link) = LinkPath::parse(&path).filter(|l| l.is_progress_of(&self.peer)) else {
                continue;
            };
            problems.extend(tree.put(link, &value, stamp).err());
        }
        let event = Event::Staged(self.peer.clone(), tree, problems);
        // Without a brain there is nobody to tell.
        drop(self.events.send(event));
    }

    async fn mirror_once(&self, conn: &PeerConn, what: &Mirror) -> Result<(), String> {
        mirror(conn, &self.staging, what)
            .await
            .map_err(|e| e.to_string())?;
        let (staging, what) = (self.staging.clone(), what.clone());
        let loaded = tokio::task::spawn_blocking(move || load_staged(&staging, &what));
        let loaded = loaded.await.map_err(|e| e.to_string())?;
        let _ = self.events.send(Event::Staged(
            self.peer.clone(),
            loaded.tree,
            loaded.problems,
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_without_room_ends_when_there_is_room() {
        let passed = async |pause, is_full: &dyn Fn() -> bool| {
            let began = Instant::now();
            rest(pause, is_full).await;
            began.elapsed()
        };
        let (first, longest) = REDIAL;
        assert!(passed(longest, &|| false).await >= longest);
        assert!(passed(longest, &|| true).await >= longest);
        let looks = Cell::new(0);
        let for_two_looks = || {
            looks.set(looks.get() + 1);
            looks.get() <= 2
        };
        let waited = passed(longest, &for_two_looks).await;
        assert!(waited >= first * 2 && waited < longest, "{waited:?}");
    }
}
