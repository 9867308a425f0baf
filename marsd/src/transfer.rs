//! The limits of data transfer that the brain sets and every stream of logs and disk data obeys, with their counters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mars_core::ResourceName;
use tokio::sync::watch;

use crate::work::{RateLimit, RateLimits, Traffic};

/// Limits of one kind of transfer each, in bytes per second; 0 = off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// In each direction.
    pub network: u64,
    /// Read for peers.
    pub server_io: u64,
}

/// Three limits, for a node or for a resource.
#[derive(Debug, Clone)]
struct Set {
    sent: Arc<RateLimit>,
    received: Arc<RateLimit>,
    server_io: Arc<RateLimit>,
}

impl Default for Set {
    fn default() -> Self {
        let off = || Arc::new(RateLimit::new(0));
        Self {
            sent: off(),
            received: off(),
            server_io: off(),
        }
    }
}

impl Set {
    fn set(&self, rates: Rates) {
        self.sent.set(rates.network);
        self.received.set(rates.network);
        self.server_io.set(rates.server_io);
    }
}

/// Bytes transferred since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Sent to peers.
    pub sent: u64,
    /// Received from them.
    pub received: u64,
    /// Read for them.
    pub server_io: u64,
}

#[derive(Debug, Default)]
struct OfResource {
    limits: Set,
    /// Why nothing may be transferred now.
    paused: watch::Sender<Option<String>>,
}

/// The limits of this node, and those of each resource on it.
#[derive(Debug, Default)]
pub struct Transfer {
    node: Set,
    resources: Mutex<BTreeMap<ResourceName, Arc<OfResource>>>,
}

impl Transfer {
    /// Sets the limits of the node.
    pub fn set_node(&self, rates: Rates) {
        self.node.set(rates);
    }

    /// Sets the limits of one resource, which hold beside those of the node, and whether its data may travel at all.
    pub fn set_resource(&self, res: &ResourceName, rates: Rates, paused: Option<&str>) {
        let of = self.of(res);
        of.limits.set(rates);
        of.paused.send_if_modified(|old| {
            let is_new = old.as_deref() != paused;
            *old = paused.map(ToOwned::to_owned);
            is_new
        });
    }

    /// What the node has transferred.
    pub fn moved(&self) -> Moved {
        Moved {
            sent: self.node.sent.moved(),
            received: self.node.received.moved(),
            server_io: self.node.server_io.moved(),
        }
    }

    /// The limits of a stream of a resource.
    pub fn traffic(&self, res: &ResourceName) -> Traffic {
        let own = &self.of(res).limits;
        Traffic {
            sent: RateLimits::new([self.node.sent.clone(), own.sent.clone()]),
            received: RateLimits::new([self.node.received.clone(), own.received.clone()]),
        }
    }

    /// The limits of what is read for peers of a resource.
    pub fn server_io(&self, res: &ResourceName) -> RateLimits {
        let own = self.of(res).limits.server_io.clone();
        RateLimits::new([self.node.server_io.clone(), own])
    }

    /// Why no data of a resource may travel now.
    pub fn paused(&self, res: &ResourceName) -> Option<String> {
        self.of(res).paused.borrow().clone()
    }

    /// Waits until no data of a resource may travel any more, and tells why.
    pub async fn until_paused(&self, res: &ResourceName) -> String {
        let of = self.of(res);
        let mut seen = of.paused.subscribe();
        let why = seen.wait_for(Option::is_some).await.ok();
        let why = why.and_then(|why| why.clone());
        // It is always there: `of` holds the sender.
        why.unwrap_or_default()
    }

    fn of(&self, res: &ResourceName) -> Arc<OfResource> {
        let mut map = self
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(map.entry(res.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn node_and_resource_limit_and_a_pause_is_heard_of() {
        let transfer = Transfer::default();
        let (r, s) = (
            ResourceName::new("r").unwrap(),
            ResourceName::new("s").unwrap(),
        );
        let rates = |network| Rates {
            network,
            server_io: 0,
        };
        transfer.set_node(rates(1_000_000));
        transfer.set_resource(&r, rates(100_000), None);
        assert_eq!(transfer.traffic(&r).sent.portion(), 5_000);
        assert_eq!(transfer.traffic(&s).sent.portion(), 50_000);
        transfer.traffic(&r).sent.book(10);
        transfer.traffic(&s).received.book(20);
        transfer.server_io(&s).book_turn(30);
        let moved = transfer.moved();
        assert_eq!((moved.sent, moved.received, moved.server_io), (10, 20, 30));

        assert_eq!(transfer.paused(&r), None);
        transfer.set_resource(&r, rates(0), Some("busy"));
        assert_eq!(transfer.until_paused(&r).await, "busy");
        assert_eq!(transfer.paused(&s), None);
    }
}
