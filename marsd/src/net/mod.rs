//! Connections between nodes: TLS with pinned keys, streams, and the mirror of the tree (`symlink-spec.md` section 9).
//!
//! One TCP connection per direction carries many streams. The dialling side opens streams ([`PeerConn::open`]), the
//! listening side serves them ([`listen`], [`Service`]). Who is who is decided by [`Directory`] alone.

mod bridge;
mod client;
mod context;
mod directory;
mod error;
pub mod frame;
mod hello;
mod identity;
mod mirror;
mod mirror_source;
mod mux;
mod request;
mod server;
mod socket;
mod staged;
mod watch;

pub use bridge::bridge_main;
pub use client::{PeerConn, dial};
pub use context::NetContext;
pub use directory::{Address, DEFAULT_PORT, Directory, PeerEntry};
pub use error::NetError;
pub use hello::Protocol;
pub use identity::{Identity, PublicKey};
pub use mirror::{Mirror, mirror};
pub use mirror_source::MirrorSource;
pub use mux::Stream;
pub use request::{Announce, AnnouncedLink, StreamRequest};
pub use server::{Incoming, Listener, ServeFuture, Service, listen};
pub use socket::any_address;
pub use staged::load_staged;
pub use watch::{watch_client, watch_server};
