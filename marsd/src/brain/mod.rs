//! The one task that owns the state: waits for an event, applies it synchronously, plans, and acts on the difference.

mod damage;
mod drive;
mod event;
mod gap;
mod links;
mod offers;
mod orders;
mod params;
mod peers;
mod res;
mod retry;
mod shim_events;
mod space;
mod spawn;
mod stop;
mod verify;
mod verify_run;
mod work_events;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use mars_core::plan::OrderBook;
use mars_core::{HostName, Lamport, LinkPath, ResourceName, Switch, Tree};
use mars_tree::TreeDir;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::net::{Announce, NetContext};
use crate::params::Params;
use crate::serve::Sources;
use crate::shims::ShimContext;
use crate::supervisor::{self, Watchdog};
use crate::transfer::Transfer;
use crate::work::LogBoard;

pub use event::{Event, ShimEvent, VerifyAsk, VerifyGrant, WorkEvent};
use params::NodeMeters;
use peers::Peer;
use res::{Res, Shim};
use stop::Stopping;

/// Time between two ticks.
pub const TICK: Duration = Duration::from_millis(100);
/// Time between two signs of life.
const ALIVE: Duration = Duration::from_secs(5);
/// Time between two readings of the whole tree.
const RESCAN: Duration = Duration::from_secs(10);
/// How long a new daemon waits for what the other nodes say before it begins to log as primary.
const HEAR_LATE: Duration = Duration::from_secs(5);
/// How long the start may take until the devices of this node are served; then it counts as done all the same.
const READY_LATE: Duration = Duration::from_secs(10);
/// Events applied before the next planning, at most.
const BATCH: usize = 256;

/// What the brain is made of.
#[derive(Debug)]
pub struct Setup {
    /// Own name.
    pub me: HostName,
    /// The tree.
    pub dir: TreeDir,
    /// Directory of the devices, normally `/dev/mars`.
    pub device_dir: PathBuf,
    /// How shims are started.
    pub shims: ShimContext,
    /// Connections to peers.
    pub net: NetContext,
    /// What peers may read of the logs.
    pub board: Arc<LogBoard>,
    /// Disks that peers may sync from.
    pub sources: Arc<Sources>,
    /// The parameters.
    pub params: Params,
    /// What they limit.
    pub transfer: Arc<Transfer>,
    /// Where events come in, for the workers.
    pub events: UnboundedSender<Event>,
}

/// What is known of the room in `/mars`.
#[derive(Debug, Clone, Copy, Default)]
struct Space {
    /// Below the limit.
    exhausted: bool,
    /// Nothing is left.
    full: bool,
}

/// The state of the daemon; all of it can be found again from the tree and the shims.
pub struct Brain {
    me: HostName,
    dir: TreeDir,
    device_dir: PathBuf,
    shims: ShimContext,
    net: NetContext,
    board: Arc<LogBoard>,
    sources: Arc<Sources>,
    params: Params,
    /// Paths of parameters that were warned about in the last round.
    params_told: Vec<String>,
    transfer: Arc<Transfer>,
    meters: NodeMeters,
    events: UnboundedSender<Event>,
    tree: Tree,
    clock: Lamport,
    resources: BTreeMap<ResourceName, Res>,
    peers: BTreeMap<HostName, Peer>,
    subscribers: Vec<(HostName, mpsc::Sender<Announce>)>,
    announce: BTreeSet<String>,
    dirty: BTreeSet<ResourceName>,
    peers_dirty: bool,
    orders_dirty: bool,
    order_book: OrderBook,
    warned: HashMap<String, String>,
    stopping: Option<Stopping>,
    /// Peers whose tree was not yet read since the start, and until when that is waited for.
    unheard: Option<(BTreeSet<HostName>, Instant)>,
    watchdog: Watchdog,
    /// Until when the devices of this node may hold up readiness; `None` once it was told.
    unready: Option<Instant>,
    space: Space,
    alive_at: Option<Instant>,
    reloaded_at: Instant,
    ticks: u64,
    started_at: Instant,
}

impl Brain {
    /// A brain that has read the tree and asks for the shims that already run.
    pub fn new(setup: Setup, now: Instant) -> Self {
        let Setup {
            me,
            dir,
            device_dir,
            shims,
            net,
            board,
            sources,
            params,
            transfer,
            events,
        } = setup;
        let mut brain = Self {
            me,
            dir,
            device_dir,
            shims,
            net,
            board,
            sources,
            params,
            params_told: Vec::new(),
            transfer,
            meters: NodeMeters::default(),
            events,
            tree: Tree::default(),
            clock: Lamport::default(),
            resources: BTreeMap::new(),
            peers: BTreeMap::new(),
            subscribers: Vec::new(),
            announce: BTreeSet::new(),
            dirty: BTreeSet::new(),
            peers_dirty: true,
            orders_dirty: true,
            order_book: OrderBook::default(),
            warned: HashMap::new(),
            stopping: None,
            unheard: None,
            watchdog: Watchdog::from_env(),
            unready: Some(now + READY_LATE),
            space: Space::default(),
            alive_at: None,
            reloaded_at: now,
            ticks: 0,
            started_at: now,
        };
        brain.reload(now);
        brain.check_params(now);
        let peers = brain.tree.hosts().filter(|host| **host != brain.me);
        brain.unheard = Some((peers.cloned().collect(), now + HEAR_LATE));
        brain.adopt_shims();
        brain
    }

    /// Runs until the end that [`Event::Stop`] begins is reached.
    pub async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        loop {
            let Some(event) = events.recv().await else {
                return;
            };
            let now = Instant::now();
            let mut next = Some(event);
            for _ in 0..BATCH {
                let Some(event) = next else { break };
                self.apply(event, now);
                next = events.try_recv().ok();
            }
            if let Some(event) = next {
                self.apply(event, now);
            }
            self.settle(now);
            self.watchdog.beat(now);
            self.report_ready(now);
            if self.is_stopped(now) {
                return self.say_stopped();
            }
        }
    }

    /// Tells the service manager when all devices that this node should serve are served, or late.
    fn report_ready(&mut self, now: Instant) {
        let Some(late) = self.unready else { return };
        let served = |name: &ResourceName| {
            let shim = self.resources.get(name).map(|res| &res.shim);
            matches!(shim, Some(Shim::Up(up)) if up.status.device.is_some())
        };
        let mine: Vec<ResourceName> = self
            .tree
            .resources()
            .filter(|name| {
                let view = self.tree.resource(name);
                view.is_designated_primary(&self.me) && view.switch(&self.me, Switch::Attach)
            })
            .collect();
        let count = mine.iter().filter(|name| served(name)).count();
        if count < mine.len() && now < late {
            return;
        }
        supervisor::tell_ready(&format!("{count} of {} devices are served", mine.len()));
        self.unready = None;
    }

    fn apply(&mut self, event: Event, now: Instant) {
        match event {
            Event::Changed(paths) => self.apply_changed(&paths),
            Event::Lost => self.reload(now),
            Event::Tick => self.apply_tick(now),
            Event::Stop => self.begin_stop(now),
            Event::Mirroring(peer, began, ended) => {
                self.apply_mirroring(&peer, began, ended, now);
            }
            Event::PeerUp(peer, conn) => self.apply_peer_up(&peer, conn),
            Event::PeerDown(peer, why) => self.apply_peer_down(&peer, &why),
            Event::Offers(peer, res, logs) => self.apply_offers(&peer, res, logs),
            Event::MoreOffers(peer, res, logs) => self.apply_more_offers(&peer, res, logs),
            Event::Staged(peer, tree, problems) => {
                self.apply_staged(&peer, &tree, problems, now);
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.heard_since.get_or_insert(now);
                }
                if let Some((peers, _)) = &mut self.unheard {
                    peers.remove(&peer);
                }
            }
            Event::Subscribe(peer, tx) => self.apply_subscribe(peer, tx),
            Event::Spoilt(res, log, at, why) => self.note_spoilt(&res, &log, at, &why),
            Event::EndPosition(res, answer) => self.apply_end_position(&res, answer),
            Event::Shim(res, generation, event) => self.apply_shim(res, generation, event, now),
            Event::Work(res, run, event) => self.apply_work(res, run, event, now),
        }
    }

    /// Milliseconds since the daemon's start, for the planners.
    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started_at);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn apply_tick(&mut self, now: Instant) {
        self.ticks += 1;
        if now >= self.reloaded_at + RESCAN {
            self.reload(now);
        }
        if self.stopping.is_none() && self.alive_at.is_none_or(|at| now >= at + ALIVE) {
            self.alive_at = Some(now);
            self.stamp_link(LinkPath::Alive(self.me.clone()), "1");
            self.check_space();
            self.orders_dirty = true;
        }
        let heard = |(peers, late): &mut (BTreeSet<_>, _)| peers.is_empty() || now >= *late;
        if self.unheard.take_if(heard).is_some() {
            self.dirty.extend(self.resources.keys().cloned());
        }
        if self.ticks.is_multiple_of(10) {
            self.check_params(now);
        }
        if self.ticks.is_multiple_of(10) && self.stopping.is_none() {
            self.make_room();
        }
        // Throttled links and retries.
        if self.ticks.is_multiple_of(3) {
            let names: Vec<ResourceName> = self.resources.keys().cloned().collect();
            self.dirty.extend(names);
        }
    }

    /// Brings what runs in line with what should run.
    fn settle(&mut self, now: Instant) {
        if std::mem::take(&mut self.peers_dirty) {
            self.update_peers();
        }
        if std::mem::take(&mut self.orders_dirty) {
            self.run_orders(now);
        }
        for _ in 0..4 {
            // Steps that are done at once (a switch of logs) ask for another look.
            let dirty = std::mem::take(&mut self.dirty);
            if dirty.is_empty() {
                break;
            }
            for res in dirty {
                self.drive(&res, now);
            }
        }
        self.send_announcements();
    }
}
