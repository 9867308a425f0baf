//! Nodes for the tests: a context with a fresh key, a run directory, a tree, and a listener on a random port.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mars_core::HostName;
use marsd::net::{
    Directory, Identity, Incoming, Listener, MirrorSource, NetContext, PeerConn, PeerEntry,
    ServeFuture, Service, StreamRequest, dial, frame, listen,
};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

/// Fails instead of hanging.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => panic!("too slow: {what}"),
    }
}

pub(crate) struct Node {
    pub(crate) name: HostName,
    pub(crate) context: NetContext,
    pub(crate) directory: Directory,
    pub(crate) home: TempDir,
    pub(crate) listener: Option<Listener>,
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let home = TempDir::new().unwrap();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let directory = Directory::default();
        let context = NetContext::new(
            host(name),
            Identity::from_pkcs8(pkcs8.as_ref()).unwrap(),
            directory.clone(),
            &home.path().join("run"),
            env!("CARGO_BIN_EXE_marsd").into(),
        )
        .unwrap();
        std::fs::create_dir(home.path().join("mars")).unwrap();
        Self {
            name: host(name),
            context,
            directory,
            home,
            listener: None,
        }
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.home.path().join("mars")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.tree().join(".peers/x")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.home.path().join("run")
    }

    pub(crate) async fn listen(&mut self) {
        self.serve(Arc::new(Bench::new(&self.run_dir(), &self.tree())))
            .await;
    }

    pub(crate) async fn serve(&mut self, service: Arc<dyn Service>) {
        self.listener = Some(
            listen(
                &self.context,
                SocketAddr::from(([127, 0, 0, 1], 0)),
                service,
            )
            .await
            .unwrap(),
        );
    }

    pub(crate) fn address(&self) -> String {
        let address = self.listener.as_ref().map(Listener::local_addr);
        address.map_or_else(|| "127.0.0.1:9".to_owned(), |a| a.to_string())
    }

    pub(crate) fn entry(&self) -> PeerEntry {
        PeerEntry {
            address: self.address(),
            key: Some(self.context.identity().public().to_string()),
        }
    }

    pub(crate) fn fingerprint(&self) -> String {
        self.context.identity().public().fingerprint()
    }

    pub(crate) fn knows(&self, others: &[&Self]) {
        let entries: BTreeMap<_, _> = others.iter().map(|o| (o.name.clone(), o.entry())).collect();
        self.directory.replace(entries);
    }
}

/// `a` and `b`, who know each other; `b` listens; and a connection from `a` to `b`.
pub(crate) async fn pair() -> (Node, Node, PeerConn) {
    let (a, mut b) = (Node::new("a"), Node::new("b"));
    b.listen().await;
    a.knows(&[&b]);
    b.knows(&[&a]);
    let conn = within("dial", dial(&a.context, &b.name)).await.unwrap();
    (a, b, conn)
}

/// Serves what the tests need: the tree; sync streams echo frames; a fetch sends `from` bytes as fast as it can and
/// then resets the stream, refuses log 2, panics on log 3, and never says a word about log 4.
pub(crate) struct Bench {
    source: MirrorSource,
}

impl Bench {
    pub(crate) fn new(run_dir: &Path, tree: &Path) -> Self {
        Self {
            source: MirrorSource::new(run_dir, tree).unwrap(),
        }
    }
}

impl Service for Bench {
    fn serve(&self, _peer: HostName, request: StreamRequest, stream: Incoming) -> ServeFuture {
        let source = self.source.clone();
        Box::pin(async move {
            match request {
                StreamRequest::Rsync => source.serve(stream).await?,
                StreamRequest::Sync { .. } | StreamRequest::SyncGap { .. } => {
                    let mut stream = stream.accept().await?;
                    while let Some(frame) = frame::read_frame(&mut stream, 1 << 16).await? {
                        frame::write_frame(&mut stream, &frame, 1 << 16).await?;
                    }
                    stream.shutdown().await?;
                }
                StreamRequest::Fetch { log, .. } if log.seq == 2 => {
                    stream.refuse("there is no log 2").await?;
                }
                StreamRequest::Fetch { log, .. } if log.seq == 3 => panic!("served badly"),
                StreamRequest::Fetch { log, .. } if log.seq == 4 => {
                    let mut stream = stream.accept().await?;
                    stream.read_u8().await?;
                }
                StreamRequest::Fetch { from, .. } => {
                    let mut stream = stream.accept().await?;
                    let block = vec![7; 64 * 1024];
                    let mut left = from;
                    while left > 0 {
                        let len = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                        stream.write_all(&block[..len]).await?;
                        left -= len as u64;
                    }
                }
                StreamRequest::Watch => {
                    let stream = stream.accept().await?;
                    let (_keep, source) = tokio::sync::mpsc::channel(1);
                    marsd::net::watch_server(stream, source, Duration::from_secs(30)).await?;
                }
            }
            Ok(())
        })
    }
}
