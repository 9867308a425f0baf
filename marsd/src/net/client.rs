//! The dialling side: a connection to a peer, on which streams are opened.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mars_core::HostName;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use yamux::Mode;

use super::context::NetContext;
use super::directory::Address;
use super::error::NetError;
use super::frame::{FrameError, expect_json, write_json};
use super::hello::{self, Hello, HelloError};
use super::identity::PublicKey;
use super::mux::{self, Handle, STREAMS_USED, Stream};
use super::request::{Reply, StreamRequest};
use super::socket;

const CONNECT_SECS: u64 = 10;
const HANDSHAKE_SECS: u64 = 10;
const OPEN_SECS: u64 = 10;

/// An open connection to a peer; cheap to clone. It is closed when the last clone and the last stream are gone.
#[derive(Debug, Clone)]
pub struct PeerConn {
    handle: Arc<Handle>,
    slots: Arc<Semaphore>,
    context: NetContext,
}

/// Connects to `peer` and makes sure that it is `peer`. Takes at most 20 s.
///
/// # Errors
/// Not in the directory, not reachable, another key, refused by the peer, no common version.
pub async fn dial(context: &NetContext, peer: &HostName) -> Result<PeerConn, NetError> {
    let (target, key) = context.directory().target(peer)?;
    let late = |operation: &str, secs| NetError::Timeout {
        peer: peer.clone(),
        operation: format!("{operation} {target}"),
        secs,
    };
    let connected = timeout(
        Duration::from_secs(CONNECT_SECS),
        socket::connect(&target, context.silence()),
    )
    .await;
    let tcp = connected
        .map_err(|_| late("connecting to", CONNECT_SECS))?
        .map_err(|cause| NetError::Connect {
            peer: peer.clone(),
            address: target.to_string(),
            cause,
        })?;
    let shaking = handshake(context, tcp, peer, &target, key);
    let tls = timeout(Duration::from_secs(HANDSHAKE_SECS), shaking)
        .await
        .map_err(|_| late("handshake with", HANDSHAKE_SECS))??;
    let revoked = context.directory().clone().until_revoked(peer.clone(), key);
    // The listening side opens no streams: what arrives is dropped with the receiver.
    let (handle, _) = mux::start(tls, Mode::Client, peer.clone(), target.to_string(), revoked);
    Ok(PeerConn {
        handle,
        slots: Arc::new(Semaphore::new(STREAMS_USED)),
        context: context.clone(),
    })
}

async fn handshake(
    context: &NetContext,
    tcp: TcpStream,
    peer: &HostName,
    target: &Address,
    expected: PublicKey,
) -> Result<TlsStream<TcpStream>, NetError> {
    let address = || target.to_string();
    let failed = |cause: String| NetError::Handshake {
        peer: peer.clone(),
        address: address(),
        cause,
    };
    let (config, shown) = context.identity().client_config(expected)?;
    // No name is sent or checked: the key says it all.
    let name = ServerName::try_from("mars").map_err(|e| failed(e.to_string()))?;
    let mut tls = match TlsConnector::from(config).connect(name, tcp).await {
        Ok(tls) => tls,
        Err(e) => {
            return Err(match shown.get() {
                Some(shown) if *shown != expected => NetError::WrongKey {
                    peer: peer.clone(),
                    address: address(),
                    expected,
                    shown: *shown,
                },
                _ => failed(e.to_string()),
            });
        }
    };
    let own = Hello::new(context.me(), context.protocol());
    let refused = |cause: String| NetError::Refused {
        peer: peer.clone(),
        address: address(),
        cause,
    };
    match hello::dialling(&mut tls, &own, peer).await {
        Ok(_) => Ok(tls),
        Err(HelloError::Disagree(reason)) => Err(refused(reason)),
        Err(HelloError::Frame(FrameError::Io(e))) if is_alert(&e) => {
            let (me, own) = (context.me(), context.identity().public().fingerprint());
            Err(refused(format!(
                "it does not know the key {own} of {me} (is ips/key-{me} in the tree of {peer} the same?): {e}"
            )))
        }
        Err(HelloError::Frame(e)) => Err(failed(e.to_string())),
    }
}

fn is_alert(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

impl PeerConn {
    /// The node at the other end.
    pub fn peer(&self) -> &HostName {
        self.handle.peer()
    }

    /// The context it was dialled with.
    pub fn context(&self) -> &NetContext {
        &self.context
    }

    /// Opens a stream and waits, at most 10 s, until the peer serves it.
    ///
    /// # Errors
    /// Refused, with the reason that the peer gives; too slow; or the connection ended.
    pub async fn open(&self, request: &StreamRequest) -> Result<Stream, NetError> {
        let opening = self.open_now(request);
        match timeout(Duration::from_secs(OPEN_SECS), opening).await {
            Ok(opened) => opened,
            Err(_) => Err(NetError::Timeout {
                peer: self.peer().clone(),
                operation: format!("asking for {request}"),
                secs: OPEN_SECS,
            }),
        }
    }

    async fn open_now(&self, request: &StreamRequest) -> Result<Stream, NetError> {
        let slots = Arc::clone(&self.slots);
        let Ok(slot) = slots.acquire_owned().await else {
            return Err(self.closed().await);
        };
        let mut stream = self.handle.open(slot).await?;
        let failed = |cause| NetError::Stream {
            operation: "cannot open a stream to",
            peer: self.peer().clone(),
            cause,
        };
        write_json(&mut stream, request).await.map_err(failed)?;
        let reply: Reply = expect_json(&mut stream).await.map_err(failed)?;
        match reply.refused {
            None => Ok(stream),
            Some(cause) => {
                // It is refused either way.
                drop(stream.shutdown().await);
                Err(NetError::StreamRefused {
                    peer: self.peer().clone(),
                    request: request.to_string(),
                    cause,
                })
            }
        }
    }

    /// Waits for the end of the connection and tells why.
    pub async fn closed(&self) -> NetError {
        self.handle.closed().await
    }

    /// Ends the connection; all its streams fail with `reason`.
    pub fn close(&self, reason: &str) {
        self.handle.close(reason);
    }
}
