//! What can go wrong between two nodes, told with the peer, its address and the cause.

use std::io;
use std::path::PathBuf;

use mars_core::HostName;

use super::frame::FrameError;
use super::identity::PublicKey;

/// Why something between this node and a peer failed. Nothing here concerns other peers or other streams.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The directory has no such node.
    #[error(
        "{peer} is not in the tree: there is no link ips/ip-{peer}; has it joined the cluster?"
    )]
    UnknownPeer {
        /// The node asked for.
        peer: HostName,
    },
    /// The node has no usable key.
    #[error("the key of {peer} is unusable: ips/key-{peer} {cause}; run join-cluster again")]
    PeerKey {
        /// The node asked for.
        peer: HostName,
        /// What is wrong with the link.
        cause: String,
    },
    /// The value of `ips/ip-HOST` is no address.
    #[error("the address of {peer} is unusable: ips/ip-{peer} -> '{value}': {cause}")]
    PeerAddress {
        /// The node asked for.
        peer: HostName,
        /// Value of the link.
        value: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The own private key is unusable.
    #[error("the private key of this node is unusable: {cause}")]
    OwnKey {
        /// What the TLS library says.
        cause: String,
    },
    /// TLS could not be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No connection.
    #[error("cannot connect to {peer} at {address}: {cause}")]
    Connect {
        /// The node dialled.
        peer: HostName,
        /// Where.
        address: String,
        /// What the system says.
        cause: io::Error,
    },
    /// The port cannot be opened.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Where.
        address: String,
        /// What the system says.
        cause: io::Error,
    },
    /// The node there is not the one expected.
    #[error(
        "{peer} at {address} shows key {} but ips/key-{peer} says {}: not the same node, or its key was made anew; \
         run join-cluster on it again if that is intended", .shown.fingerprint(), .expected.fingerprint()
    )]
    WrongKey {
        /// The node dialled.
        peer: HostName,
        /// Where.
        address: String,
        /// Key in the directory.
        expected: PublicKey,
        /// Key shown.
        shown: PublicKey,
    },
    /// The peer does not want us.
    #[error("{peer} at {address} refused this node: {cause}")]
    Refused {
        /// The node dialled.
        peer: HostName,
        /// Where.
        address: String,
        /// What it says.
        cause: String,
    },
    /// A client was turned away.
    #[error("client at {address} turned away: {cause}")]
    Client {
        /// Where it comes from.
        address: String,
        /// Why.
        cause: String,
    },
    /// TLS or hello failed.
    #[error("handshake with {peer} at {address} failed: {cause}")]
    Handshake {
        /// The node dialled.
        peer: HostName,
        /// Where.
        address: String,
        /// What happened.
        cause: String,
    },
    /// Something took too long.
    #[error("{peer}: no answer within {secs} s to: {operation}")]
    Timeout {
        /// The peer.
        peer: HostName,
        /// What was waited for.
        operation: String,
        /// How long, in seconds.
        secs: u64,
    },
    /// The connection is gone.
    #[error("connection with {peer} at {address} ended: {cause}")]
    Closed {
        /// The peer.
        peer: HostName,
        /// Where.
        address: String,
        /// Why.
        cause: String,
    },
    /// The peer does not serve this stream.
    #[error("{peer} refused {request}: {cause}")]
    StreamRefused {
        /// The peer.
        peer: HostName,
        /// What was asked for.
        request: String,
        /// What it says.
        cause: String,
    },
    /// Reading or writing a stream failed.
    #[error("{operation} {peer}: {cause}")]
    Stream {
        /// What was tried.
        operation: &'static str,
        /// The peer.
        peer: HostName,
        /// What happened.
        cause: FrameError,
    },
    /// Mirroring the tree failed.
    #[error("cannot mirror the tree of {peer}: {cause}")]
    Mirror {
        /// The peer.
        peer: HostName,
        /// What rsync or the system says.
        cause: String,
    },
    /// Serving the own tree failed.
    #[error("cannot serve the tree to {peer}: {cause}")]
    MirrorSource {
        /// The peer.
        peer: HostName,
        /// What rsync or the system says.
        cause: String,
    },
    /// A path of a peer does not belong into a tree.
    #[error("'{path}' is not a path inside a tree")]
    BadPath {
        /// What was asked for.
        path: String,
    },
    /// A local file or directory is in the way.
    #[error("cannot {operation} {}: {cause}", .path.display())]
    Local {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}
