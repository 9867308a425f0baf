//! The listening side: accepts peers of the directory and hands their streams to a [`Service`], each in its own task.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mars_core::HostName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{Instrument, Span, debug, error_span, field, warn};
use yamux::Mode;

use super::context::NetContext;
use super::error::NetError;
use super::frame::{FrameError, expect_json, write_json};
use super::hello::{self, Hello};
use super::identity::PublicKey;
use super::mux::{self, Stream};
use super::request::{Reply, StreamRequest};
use super::socket;

const HANDSHAKE: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(10);
/// Clients that may be in their handshake at the same time.
const HANDSHAKES_MAX: usize = 256;
/// Connections of one peer: more than one only while an old one is not yet known to be dead.
const PER_PEER_MAX: usize = 8;
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What serving a stream comes to; an error ends only that stream and is logged.
pub type ServeFuture =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send>>;

/// Serves the streams that peers open.
pub trait Service: Send + Sync + 'static {
    /// Serves one stream in a task of its own: first [`Incoming::accept`] or [`Incoming::refuse`]. The task is aborted
    /// when the connection ends. If the peer goes away silently, only reading or writing tells.
    fn serve(&self, peer: HostName, request: StreamRequest, stream: Incoming) -> ServeFuture;
}

/// A stream that waits for the answer whether it is served; dropped without an answer it is reset.
#[derive(Debug)]
pub struct Incoming {
    stream: Stream,
}

impl Incoming {
    /// The stream will be served.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn accept(self) -> Result<Stream, NetError> {
        self.answer(None).await
    }

    /// The stream will not be served; `reason` reaches the peer.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn refuse(self, reason: &str) -> Result<(), NetError> {
        let mut stream = self.answer(Some(reason.to_owned())).await?;
        // The reason is sent; that is all there is.
        drop(stream.shutdown().await);
        Ok(())
    }

    async fn answer(mut self, refused: Option<String>) -> Result<Stream, NetError> {
        match write_json(&mut self.stream, &Reply { refused }).await {
            Ok(()) => Ok(self.stream),
            Err(cause) => Err(NetError::Stream {
                operation: "cannot answer",
                peer: self.stream.peer().clone(),
                cause,
            }),
        }
    }
}

/// A running listener; dropping it ends it with all its connections.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listener {
    /// Where it really listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens on `address` ([`super::any_address`] for all interfaces) and serves whoever is in the directory.
///
/// # Errors
/// The port is taken or not allowed.
pub async fn listen(
    context: &NetContext,
    address: SocketAddr,
    service: Arc<dyn Service>,
) -> Result<Listener, NetError> {
    let tcp = socket::bind(address).await?;
    let address = tcp.local_addr().map_err(|cause| NetError::Listen {
        address: address.to_string(),
        cause,
    })?;
    let server = Arc::new(Server {
        context: context.clone(),
        service,
        peers: Mutex::default(),
    });
    let task = tokio::spawn(server.accept_all(tcp));
    Ok(Listener { address, task })
}

struct Server {
    context: NetContext,
    service: Arc<dyn Service>,
    /// Connections per peer.
    peers: Mutex<HashMap<HostName, usize>>,
}

impl Server {
    async fn accept_all(self: Arc<Self>, tcp: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = tcp.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((socket, from)) => match Arc::clone(&handshakes).try_acquire_owned() {
                    Ok(permit) => {
                        connections.spawn(Arc::clone(&self).serve(socket, from, permit));
                    }
                    Err(_) => debug!(%from, "too many clients at once, one is dropped"),
                },
                Err(error) => {
                    warn!(%error, "cannot accept a connection, trying again");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        from: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let address = SocketAddr::new(from.ip().to_canonical(), from.port()).to_string();
        let shaken = timeout(HANDSHAKE, self.handshake(socket, &address)).await;
        drop(permit);
        match shaken {
            Ok(Ok(client)) => self.serve_peer(client).await,
            Ok(Err(error)) => warn!("{error}"),
            Err(_) => debug!(%address, "client turned away: no handshake in time"),
        }
    }

    async fn handshake(
        self: &Arc<Self>,
        socket: TcpStream,
        address: &str,
    ) -> Result<Client, NetError> {
        let away = |cause: String| NetError::Client {
            address: address.to_owned(),
            cause,
        };
        socket::tune(&socket, self.context.silence()).map_err(|e| away(e.to_string()))?;
        let directory = self.context.directory();
        let (config, shown) = self.context.identity().server_config(directory)?;
        let accepted = TlsAcceptor::from(config).accept(socket).await;
        let mut tls = accepted.map_err(|e| {
            away(match shown.get() {
                Some(key) if !directory.has_key(key) => {
                    format!(
                        "its key {} is in no ips/key-* of the tree",
                        key.fingerprint()
                    )
                }
                _ => e.to_string(),
            })
        })?;
        let key = *shown
            .get()
            .ok_or_else(|| away("it has shown no key".into()))?;
        let own = Hello::new(self.context.me(), self.context.protocol());
        let mut counted = None;
        let is_welcome = |host: &HostName| {
            if !directory.is(host, &key) {
                let fingerprint = key.fingerprint();
                return Err(format!(
                    "it says it is {host}, but ips/key-{host} is not its key {fingerprint}"
                ));
            }
            counted = Counted::new(self, host);
            match counted {
                Some(_) => Ok(()),
                None => Err(format!("{host} has {PER_PEER_MAX} connections already")),
            }
        };
        let peer = hello::listening(&mut tls, &own, is_welcome).await;
        let peer = peer.map_err(|e| away(e.to_string()))?;
        Ok(Client {
            tls,
            peer,
            key,
            address: address.to_owned(),
            _counted: counted,
        })
    }

    async fn serve_peer(self: Arc<Self>, client: Client) {
        let Client {
            tls,
            peer,
            key,
            address,
            _counted,
        } = client;
        let revoked = self
            .context
            .directory()
            .clone()
            .until_revoked(peer.clone(), key);
        let (handle, mut inbound) = mux::start(tls, Mode::Server, peer, address, revoked);
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Some(stream) = inbound.recv() => {
                    let stream = Stream::new(stream, Arc::clone(&handle), None);
                    let about = error_span!("stream", peer = %stream.peer(), resource = field::Empty);
                    let work = serve_stream(Arc::clone(&self.service), stream);
                    tasks.spawn(work.instrument(about));
                }
                Some(_) = tasks.join_next() => {}
                reason = handle.closed() => {
                    debug!("{reason}");
                    return;
                }
            }
        }
    }
}

/// A client that is what it says.
struct Client {
    tls: TlsStream<TcpStream>,
    peer: HostName,
    key: PublicKey,
    address: String,
    _counted: Option<Counted>,
}

/// Counts a connection of a peer as long as it lives.
struct Counted {
    server: Arc<Server>,
    peer: HostName,
}

impl Counted {
    fn new(server: &Arc<Server>, peer: &HostName) -> Option<Self> {
        let mut peers = server.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(peer.clone()).or_default();
        if *count >= PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Self {
            server: Arc::clone(server),
            peer: peer.clone(),
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut peers = self
            .server
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

async fn serve_stream(service: Arc<dyn Service>, mut stream: Stream) {
    let peer = stream.peer().clone();
    let asked: Result<serde_json::Value, FrameError> =
        match timeout(REQUEST, expect_json(&mut stream)).await {
            Ok(asked) => asked,
            Err(_) => return debug!("a stream without a request is dropped"),
        };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return warn!("a stream with a damaged request is dropped: {error}"),
    };
    let served = match serde_json::from_value::<StreamRequest>(asked) {
        Ok(request) => {
            if let Some(resource) = request.resource() {
                Span::current().record("resource", field::display(resource));
            }
            service
                .serve(peer.clone(), request, Incoming { stream })
                .await
        }
        Err(error) => {
            let version = env!("CARGO_PKG_VERSION");
            let why = format!("marsd {version} does not know this kind of stream: {error}");
            Incoming { stream }.refuse(&why).await.map_err(Into::into)
        }
    };
    if let Err(error) = served {
        warn!("a stream ended: {error}");
    }
}
