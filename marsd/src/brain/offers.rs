//! What peers may read of the logs of this node, and telling them.

use std::time::Duration;

use tokio::time::Instant;

use mars_core::plan::{LogOffer, is_whole, offers_of_files};
use mars_core::{HostName, LinkPath, ResourceName};
use tokio::sync::mpsc::Sender;

use super::Brain;
use super::res::{Res, Shim};
use crate::net::{Announce, AnnouncedLink};
use crate::work::LogState;

/// Time between two offers of one resource; who fetches follows the log without them.
const OFFER_INTERVAL: Duration = Duration::from_millis(100);

impl Brain {
    /// Puts on the board what may be read, and announces it if it changed.
    pub(super) fn offer_logs(&mut self, name: &ResourceName, now: Instant) {
        let Some(res) = self.resources.get(name) else {
            return;
        };
        let offers = self.current_offers(name, res);
        for offer in &offers {
            self.board.publish(
                name,
                &offer.log,
                LogState {
                    durable: offer.durable,
                    complete: offer.complete,
                },
            );
        }
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let same_logs = offers.len() == res.offered.len()
            && offers
                .iter()
                .zip(&res.offered)
                .all(|(a, b)| a.log == b.log && a.complete == b.complete);
        let due = res.offered_at.is_none_or(|at| now >= at + OFFER_INTERVAL);
        if offers == res.offered || (same_logs && !due) {
            return;
        }
        res.offered_at = Some(now);
        res.offered.clone_from(&offers);
        self.tell(&Announce::Logs {
            resource: name.clone(),
            logs: offers,
        });
    }

    /// Offers no log any more: this node is no member (any more).
    pub(super) fn withdraw_logs(&mut self, name: &ResourceName) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        let offered = std::mem::take(&mut res.offered);
        if offered.is_empty() {
            return;
        }
        for offer in &offered {
            self.board.forget(name, &offer.log);
        }
        self.tell(&Announce::Logs {
            resource: name.clone(),
            logs: Vec::new(),
        });
    }

    fn current_offers(&self, name: &ResourceName, res: &Res) -> Vec<LogOffer> {
        let view = self.tree.resource(name);
        let Some(pos) = &res.pos else {
            return Vec::new();
        };
        if let Shim::Up(up) = &res.shim {
            let newest = up.status.logs.last().map(|l| l.log.clone());
            let mut offers: Vec<LogOffer> = view
                .logs()
                .filter(|(log, _)| {
                    up.status
                        .logs
                        .first()
                        .is_none_or(|first| log.seq < first.log.seq)
                })
                .map(|(log, size)| LogOffer {
                    log: log.clone(),
                    durable: size,
                    complete: is_whole(view, log, size, &self.me),
                })
                .collect();
            offers.extend(up.status.logs.iter().map(|l| LogOffer {
                log: l.log.clone(),
                durable: l.durable,
                complete: Some(&l.log) != newest.as_ref() && l.durable == l.logged,
            }));
            return offers;
        }
        offers_of_files(view, pos, res.log_end, &self.me)
    }

    /// A peer that wants to be told of changes hears of all logs first.
    pub(super) fn apply_subscribe(&mut self, peer: HostName, tx: Sender<Announce>) {
        for (name, res) in &self.resources {
            let logs = self.current_offers(name, res);
            if tx
                .try_send(Announce::Logs {
                    resource: name.clone(),
                    logs,
                })
                .is_err()
            {
                tracing::warn!(peer = %peer, "does not take announcements");
                return;
            }
        }
        self.subscribers.push((peer, tx));
    }

    /// Announces what changed: by name, or with the values if it is nothing but progress.
    pub(super) fn send_announcements(&mut self) {
        let paths = std::mem::take(&mut self.announce);
        if paths.is_empty() {
            return;
        }
        let progress: Option<Vec<_>> = paths.iter().map(|path| self.progress(path)).collect();
        // Who stops waits until the peers have mirrored the last links.
        match progress.filter(|_| self.stopping.is_none()) {
            Some(links) => self.tell(&Announce::Progress { links }),
            None => {
                let paths = paths.into_iter().collect();
                self.tell(&Announce::Changed { paths });
            }
        }
    }

    fn progress(&self, path: &str) -> Option<AnnouncedLink> {
        let parsed = LinkPath::parse(path)?;
        let link = self.tree.links.get(&parsed)?;
        parsed.is_progress_of(&self.me).then(|| AnnouncedLink {
            path: path.into(),
            value: link.value.clone(),
            stamp: link.stamp,
        })
    }

    /// Who does not keep up is dropped; it connects again and mirrors the whole tree.
    fn tell(&mut self, what: &Announce) {
        self.subscribers
            .retain(|(peer, tx)| match tx.try_send(what.clone()) {
                Ok(()) => true,
                Err(e) => {
                    tracing::debug!(peer = %peer, "announcements end: {e}");
                    false
                }
            });
    }
}
