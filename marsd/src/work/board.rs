//! The log board: which logfiles of this node may be read by peers, and how far.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mars_core::{LogName, ResourceName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How far a logfile may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogState {
    /// Bytes that are on stable storage here and end at a record boundary. No byte behind them may leave the node.
    pub durable: u64,
    /// Nothing will ever be added.
    pub complete: bool,
}

/// One logfile that peers may fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The logfile.
    pub log: LogName,
    /// How far it may be read.
    pub state: LogState,
}

type Key = (ResourceName, LogName);

#[derive(Debug)]
struct Inner {
    logs: Mutex<BTreeMap<Key, watch::Sender<LogState>>>,
    changes: watch::Sender<u64>,
}

/// Shared table of the states of all logfiles; cheap to clone.
///
/// The brain publishes: the durable position of its own active logs as the shim reports it, the file size of closed
/// logs, and the valid end of logs that are being fetched.
#[derive(Debug, Clone)]
pub struct LogBoard {
    inner: Arc<Inner>,
}

impl Default for LogBoard {
    fn default() -> Self {
        Self::new()
    }
}

impl LogBoard {
    /// An empty board.
    pub fn new() -> Self {
        let inner = Inner {
            logs: Mutex::new(BTreeMap::new()),
            changes: watch::Sender::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// States what may be read of `log`; readers that wait are woken. Stating the same again changes nothing.
    pub fn publish(&self, resource: &ResourceName, log: &LogName, state: LogState) {
        let key = (resource.clone(), log.clone());
        let changed = {
            let mut logs = self.lock();
            match logs.get(&key) {
                Some(old) => old.send_if_modified(|s| std::mem::replace(s, state) != state),
                None => {
                    logs.insert(key, watch::Sender::new(state));
                    true
                }
            }
        };
        if changed {
            self.announce();
        }
    }

    /// The logfile is gone: readers of it are told so and end.
    pub fn forget(&self, resource: &ResourceName, log: &LogName) {
        let removed = self.lock().remove(&(resource.clone(), log.clone()));
        if removed.is_some() {
            self.announce();
        }
    }

    /// Follows the state of one logfile; `None` if it is not offered.
    pub fn subscribe(
        &self,
        resource: &ResourceName,
        log: &LogName,
    ) -> Option<watch::Receiver<LogState>> {
        let key = (resource.clone(), log.clone());
        self.lock().get(&key).map(watch::Sender::subscribe)
    }

    /// Follows changes of anything on the board: the value counts them.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// All logfiles of `resource`, ascending.
    pub fn offers(&self, resource: &ResourceName) -> Vec<Offer> {
        let logs = self.lock();
        let of_resource = logs.iter().filter(|((res, _), _)| res == resource);
        of_resource
            .map(|((_, log), state)| Offer {
                log: log.clone(),
                state: *state.borrow(),
            })
            .collect()
    }

    /// All resources that have a logfile on the board.
    pub fn resources(&self) -> Vec<ResourceName> {
        let logs = self.lock();
        let mut names: Vec<_> = logs.keys().map(|(res, _)| res.clone()).collect();
        names.dedup();
        names
    }

    fn announce(&self) {
        self.inner.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    // Every change is a single map operation, so the table is whole even if a holder of the lock panicked.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, watch::Sender<LogState>>> {
        self.inner
            .logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mars_core::HostName;

    fn state(durable: u64, complete: bool) -> LogState {
        LogState { durable, complete }
    }

    #[test]
    fn readers_see_what_is_published_until_it_is_forgotten() {
        let board = LogBoard::new();
        let (res, other) = (
            ResourceName::new("r").unwrap(),
            ResourceName::new("s").unwrap(),
        );
        let log = LogName::new(1, &HostName::new("a").unwrap());
        assert!(board.subscribe(&res, &log).is_none());
        let changes = board.changed();
        board.publish(&res, &log, state(84, false));
        assert!(changes.has_changed().unwrap());
        let mut rx = board.subscribe(&res, &log).unwrap();
        assert_eq!(*rx.borrow_and_update(), state(84, false));
        board.publish(&res, &log, state(84, false));
        assert!(!rx.has_changed().unwrap());
        board.publish(&res, &log, state(168, true));
        assert_eq!(*rx.borrow_and_update(), state(168, true));
        assert_eq!(board.offers(&res).len(), 1);
        assert!(board.offers(&other).is_empty());
        assert_eq!(board.resources(), std::slice::from_ref(&res));
        board.forget(&res, &log);
        assert!(rx.has_changed().is_err());
        assert!(board.offers(&res).is_empty());
    }
}
