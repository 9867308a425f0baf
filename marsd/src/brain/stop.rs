//! The orderly end: workers end, devices that nobody uses are given up, and the peers take what is known at the end
//! (`symlink-spec.md` section 8.10).

use std::collections::BTreeMap;
use std::time::Duration;

use mars_core::{HostName, LinkPath, ResourceName};
use tokio::time::Instant;

use super::Brain;
use super::res::{Res, Shim};
use crate::supervisor;

/// How long workers may take to end, and devices to be written back.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long peers may take to mirror the last links.
const TAKEN_LATE: Duration = Duration::from_secs(2);
/// Shortest time between two mirrors of a peer that knows of more changes.
const TAKING_PAUSE: Duration = Duration::from_millis(100);

/// The end of the daemon has begun.
#[derive(Debug)]
pub(super) struct Stopping {
    until: Instant,
    /// Since when, and by which peers, the last links are still to be taken; `None` before they are written.
    untaken: Option<(Instant, BTreeMap<HostName, Taking>)>,
}

/// How far a peer is with the last links. The first mirror that begins after they were announced may be due to an older
/// announcement; when it has ended the peer knows of the last one, and a second mirror has all of them.
#[derive(Debug, Default)]
struct Taking {
    first_ended: bool,
    /// Then there will be no second one: the first had all.
    quiet_at: Option<Instant>,
}

impl Brain {
    /// Begins the end; a second time it ends at once.
    pub(super) fn begin_stop(&mut self, now: Instant) {
        let until = match &self.stopping {
            Some(_) => now,
            None => now + PATIENCE,
        };
        tracing::info!("stopping");
        supervisor::tell_stopping();
        self.stopping = Some(Stopping {
            until,
            untaken: None,
        });
        self.stamp_link(LinkPath::Alive(self.me.clone()), "0");
        self.dirty.extend(self.resources.keys().cloned());
    }

    /// A peer has begun or ended to mirror the tree.
    pub(super) fn apply_mirroring(
        &mut self,
        peer: &HostName,
        began: Instant,
        ended: bool,
        now: Instant,
    ) {
        let Some((since, peers)) = self.stopping.as_mut().and_then(|s| s.untaken.as_mut()) else {
            return;
        };
        let Some(taking) = peers.get_mut(peer).filter(|_| began >= *since) else {
            return;
        };
        taking.quiet_at = None;
        if ended && taking.first_ended {
            peers.remove(peer);
        } else if ended {
            taking.first_ended = true;
            taking.quiet_at = Some(now + TAKING_PAUSE.max(now - began));
        }
    }

    /// Whether the end is reached.
    pub(super) fn is_stopped(&mut self, now: Instant) -> bool {
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        let late = now >= stopping.until;
        if let Some((since, peers)) = &mut stopping.untaken {
            peers.retain(|_, taking| taking.quiet_at.is_none_or(|at| now < at));
            return late || peers.is_empty() || now >= *since + TAKEN_LATE;
        }
        let busy =
            |(name, res): (&ResourceName, &Res)| res.busy_with().map(|what| (name.clone(), what));
        let busy: Vec<_> = self.resources.iter().filter_map(busy).collect();
        if !busy.is_empty() && !late {
            return false;
        }
        for (name, what) in busy {
            tracing::warn!(resource = %name, "{what} has not ended in time");
        }
        let names: Vec<ResourceName> = self.resources.keys().cloned().collect();
        for name in names {
            self.publish_now(&name);
        }
        self.send_announcements();
        let peers = self.subscribers.iter();
        let peers = peers.map(|(peer, _)| (peer.clone(), Taking::default()));
        // What begins from now on sees the last links.
        let untaken = Some((Instant::now(), peers.collect()));
        if let Some(stopping) = &mut self.stopping {
            stopping.untaken = untaken;
        }
        late
    }

    /// Says what goes on without the daemon.
    pub(super) fn say_stopped(&self) {
        let serves = |res: &&Res| matches!(res.shim, Shim::Up(_));
        let count = self.resources.values().filter(serves).count();
        tracing::info!("stopped; {count} devices are served on by their shims");
    }
}

impl Res {
    /// What of this resource must end before the daemon does.
    fn busy_with(&self) -> Option<&'static str> {
        match &self.shim {
            Shim::Up(up) if !up.kept => return Some("the shim"),
            // It holds the device of a killed shim: without a successor that would fail.
            Shim::Down(..) | Shim::Starting(_) => return Some("the start of the shim"),
            Shim::Up(_) | Shim::Off => {}
        }
        if self.replay.is_some() {
            Some("replay")
        } else if self.fetch.is_some() {
            Some("fetch")
        } else if self.sync.is_some() {
            Some("sync")
        } else {
            self.verify.runs().then_some("verify")
        }
    }
}
