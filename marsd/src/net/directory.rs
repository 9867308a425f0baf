//! Who belongs to the cluster: address and key of each node, as the tree says it now.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use mars_core::HostName;
use tokio::sync::watch;

use super::error::NetError;
use super::identity::PublicKey;

/// Port where a node listens unless its address says otherwise.
pub const DEFAULT_PORT: u16 = 7777;

/// What the tree says about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEntry {
    /// Value of `ips/ip-HOST`.
    pub address: String,
    /// Value of `ips/key-HOST`, if there is one.
    pub key: Option<String>,
}

type Entries = BTreeMap<HostName, PeerEntry>;

/// Shared map of all nodes; the brain replaces it whenever the tree changes. A connection whose peer is no longer
/// in it, or has another key now, is closed.
#[derive(Debug, Clone)]
pub struct Directory {
    entries: Arc<watch::Sender<Entries>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            entries: Arc::new(watch::Sender::new(BTreeMap::new())),
        }
    }
}

impl Directory {
    /// Replaces the whole content.
    pub fn replace(&self, entries: BTreeMap<HostName, PeerEntry>) {
        self.entries.send_if_modified(|old| {
            let changed = *old != entries;
            *old = entries;
            changed
        });
    }

    /// What is known about `host`.
    pub fn get(&self, host: &HostName) -> Option<PeerEntry> {
        self.entries.borrow().get(host).cloned()
    }

    /// The node that has this key; the first by name if several have it.
    pub fn host_of(&self, key: &PublicKey) -> Option<HostName> {
        let entries = self.entries.borrow();
        let mut found = entries.iter().filter(|(_, entry)| entry.has(key));
        found.next().map(|(host, _)| host.clone())
    }

    /// Has `host` this key?
    pub fn is(&self, host: &HostName, key: &PublicKey) -> bool {
        let entries = self.entries.borrow();
        entries.get(host).is_some_and(|entry| entry.has(key))
    }

    /// Address and key to dial `host`.
    ///
    /// # Errors
    /// Not in the directory, no key, or a value that cannot be read.
    pub fn target(&self, host: &HostName) -> Result<(Address, PublicKey), NetError> {
        let entry = self
            .get(host)
            .ok_or_else(|| NetError::UnknownPeer { peer: host.clone() })?;
        let address = Address::parse(&entry.address).map_err(|cause| NetError::PeerAddress {
            peer: host.clone(),
            value: entry.address.clone(),
            cause: cause.to_owned(),
        })?;
        let bad_key = |cause: &str| NetError::PeerKey {
            peer: host.clone(),
            cause: cause.to_owned(),
        };
        let text = entry.key.ok_or_else(|| bad_key("does not exist"))?;
        let key = PublicKey::parse(&text).ok_or_else(|| bad_key("is not 64 hex digits"))?;
        Ok((address, key))
    }

    pub(super) fn has_key(&self, key: &PublicKey) -> bool {
        self.host_of(key).is_some()
    }

    /// Waits until `host` has no longer this key; the reason as text.
    pub(super) async fn until_revoked(self, host: HostName, key: PublicKey) -> String {
        let mut changes = self.entries.subscribe();
        while self.is(&host, &key) {
            // The sender lives in `self`, so this cannot fail.
            drop(changes.changed().await);
        }
        let fingerprint = key.fingerprint();
        format!("ips/ip-{host} and ips/key-{host} no longer stand for the key {fingerprint}")
    }
}

impl PeerEntry {
    fn has(&self, key: &PublicKey) -> bool {
        self.key.as_deref().and_then(PublicKey::parse).as_ref() == Some(key)
    }
}

/// Where a node listens: value of `ips/ip-HOST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Numeric address or name.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Address {
    /// Reads `a.b.c.d[:port]`, `[v6]:port`, a bare IPv6 address, or `name[:port]`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or("']' is missing")?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| "no IPv6 address in the brackets")?;
            let port = match rest.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if rest.is_empty() => DEFAULT_PORT,
                None => return Err("only ':PORT' may follow the ']'"),
            };
            return Ok(Self::new(host, port));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self::new(text, DEFAULT_PORT));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, DEFAULT_PORT),
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(legal) {
            return Err("expected ADDRESS[:PORT], [IPV6]:PORT or NAME[:PORT]");
        }
        Ok(Self::new(host, port))
    }

    fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.host.parse(), Ok(IpAddr::V6(_))) {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("the port must be a number from 1 to 65535"),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_documented() {
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1:7777"),
            ("10.0.0.1:99", "10.0.0.1:99"),
            ("::1", "[::1]:7777"),
            ("[::1]", "[::1]:7777"),
            ("[fe80::2]:12", "[fe80::2]:12"),
            ("db-1.example.org:7", "db-1.example.org:7"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "", ":1", "a:b", "a:0", "a:70000", "[::1", "[x]:1", "[::1]7", "a b", "::g", "a/b",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_changed_key_revokes_and_other_changes_do_not() {
        let host = HostName::new("a").unwrap();
        let key = "ab".repeat(32);
        let entry = |address: &str, key: &str| {
            let key = Some(key.to_owned());
            BTreeMap::from([(
                host.clone(),
                PeerEntry {
                    address: address.into(),
                    key,
                },
            )])
        };
        let directory = Directory::default();
        directory.replace(entry("1.1.1.1", &key));
        let parsed = PublicKey::parse(&key).unwrap();
        let waiting = tokio::spawn(directory.clone().until_revoked(host.clone(), parsed));
        directory.replace(entry("2.2.2.2", &key));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        directory.replace(entry("2.2.2.2", &"cd".repeat(32)));
        assert!(waiting.await.unwrap().contains("abababababababab"));
        assert_eq!(directory.host_of(&parsed), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let host = HostName::new("a").unwrap();
        let directory = Directory::default();
        let error = directory.target(&host).unwrap_err().to_string();
        assert!(error.contains("ips/ip-a"), "{error}");
        let entry = PeerEntry {
            address: "1.1.1.1".into(),
            key: None,
        };
        directory.replace(BTreeMap::from([(host.clone(), entry)]));
        let error = directory.target(&host).unwrap_err().to_string();
        assert!(error.contains("ips/key-a does not exist"), "{error}");
    }
}
