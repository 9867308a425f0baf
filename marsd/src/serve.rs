//! Serves the streams that peers open: announcements, the tree, logs and sync data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mars_core::unlogged::REGION_BYTES;
use mars_core::{HostName, LogName, ResourceName};
use mars_tree::TreeDir;
use mars_tree::unlogged::UnloggedMap;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::brain::Event;
use crate::net::{
    Incoming, MirrorSource, NetContext, ServeFuture, Service, StreamRequest, watch_server,
};
use crate::transfer::Transfer;
use crate::work::sync_ranges::Ranges;
use crate::work::{Cancel, LogBoard, SyncSource, Throttled, check_record, serve_fetch, serve_sync};

/// Announcements that wait for one peer, at most.
const QUEUE: usize = 4096;

/// A disk that peers may sync from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path of the disk.
    pub disk: PathBuf,
    /// Size of the resource in bytes.
    pub size: u64,
    /// Whether it holds one state of the history.
    pub consistent: bool,
}

/// The disks that peers may sync from, kept up to date by the brain.
#[derive(Debug, Default)]
pub struct Sources(Mutex<BTreeMap<ResourceName, Source>>);

impl Sources {
    /// Tells about a disk.
    pub fn set(&self, res: &ResourceName, disk: PathBuf, size: u64, consistent: bool) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(
            res.clone(),
            Source {
                disk,
                size,
                consistent,
            },
        );
    }

    fn get(&self, res: &ResourceName) -> Option<Source> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(res)
            .cloned()
    }
}

/// The service of this node.
#[derive(Debug)]
pub struct Serving {
    /// The brain.
    pub events: UnboundedSender<Event>,
    /// What may be read of the logs.
    pub board: Arc<LogBoard>,
    /// What may be read of the disks.
    pub sources: Arc<Sources>,
    /// The tree, for rsync.
    pub mirror: MirrorSource,
    /// The tree, for paths of logs.
    pub dir: TreeDir,
    /// Limits of what is sent and read.
    pub transfer: Arc<Transfer>,
    /// How long peers may be silent.
    pub net: NetContext,
}

impl Service for Serving {
    fn serve(&self, peer: HostName, request: StreamRequest, stream: Incoming) -> ServeFuture {
        match request {
            StreamRequest::Watch => {
                let (tx, rx) = mpsc::channel(QUEUE);
                let _ = self.events.send(Event::Subscribe(peer, tx));
                let silence = self.net.silence();
                Box::pin(
                    async move { Ok(watch_server(stream.accept().await?, rx, silence).await?) },
                )
            }
            StreamRequest::Rsync => {
                let mirror = self.mirror.clone();
                let (events, began) = (self.events.clone(), Instant::now());
                Box::pin(async move {
                    let _ = events.send(Event::Mirroring(peer.clone(), began, false));
                    let served = mirror.serve(stream).await;
                    let _ = events.send(Event::Mirroring(peer, began, true));
                    Ok(served?)
                })
            }
            StreamRequest::Fetch {
                resource,
                log,
                from,
            } => self.serve_log(resource, log, from, stream),
            StreamRequest::Sync { resource } => self.serve_disk(resource, None, stream),
            StreamRequest::SyncGap { resource, gap } => {
                self.serve_disk(resource, Some(gap), stream)
            }
        }
    }
}

impl Serving {
    fn serve_log(
        &self,
        res: ResourceName,
        log: LogName,
        from: u64,
        stream: Incoming,
    ) -> ServeFuture {
        let path = self.dir.log_path(&res, &log);
        let state = self.board.subscribe(&res, &log);
        let transfer = Arc::clone(&self.transfer);
        let events = self.events.clone();
        Box::pin(async move {
            if let Some(why) = transfer.paused(&res) {
                return Ok(stream.refuse(&why).await?);
            }
            let Some(state) = state else {
                return Ok(stream
                    .refuse(&format!("{log} of resource {res} is not offered here"))
                    .await?);
            };
            if from < state.borrow().durable {
                look_for_damage(&events, (&res, &log), &path, from).await;
            }
            let stream = Throttled::new(stream.accept().await?, transfer.traffic(&res));
            let io = transfer.server_io(&res);
            tokio::select! {
                served = serve_fetch(stream, &path, from, state, io) => drop(served?),
                why = transfer.until_paused(&res) => tracing::debug!(resource = %res, "{why}"),
            }
            Ok(())
        })
    }

    fn serve_disk(&self, res: ResourceName, gap: Option<u64>, stream: Incoming) -> ServeFuture {
        let dir = self.dir.resource_dir(&res);
        let source = self.sources.get(&res);
        let events = self.events.clone();
        let transfer = Arc::clone(&self.transfer);
        Box::pin(async move {
            if let Some(why) = transfer.paused(&res) {
                return Ok(stream.refuse(&why).await?);
            }
            let (traffic, io) = (transfer.traffic(&res), transfer.server_io(&res));
            let asked = res.clone();
            let Some(source) = source.filter(|s| s.consistent) else {
                return Ok(stream
                    .refuse(&format!("resource {res} has no consistent disk here"))
                    .await?);
            };
            let position = move || {
                let (events, res) = (events.clone(), res.clone());
                async move {
                    let (tx, rx) = oneshot::channel();
                    let _ = events.send(Event::EndPosition(res, tx));
                    rx.await
                        .map_err(|_| "the daemon ends".to_owned())
                        .and_then(|answer| answer)
                }
            };
            let size = source.size;
            let ranges = match gap {
                None => None,
                Some(gap) => Some(
                    tokio::task::spawn_blocking(move || load_ranges(&dir, gap, size))
                        .await
                        .unwrap_or_else(|e| Err(e.to_string())),
                ),
            };
            let cancel = Cancel::new();
            let job = SyncSource {
                disk_path: source.disk,
                size: source.size,
                ranges,
                io,
                cancel,
            };
            let stream = Throttled::new(stream.accept().await?, traffic);
            tokio::select! {
                served = serve_sync(stream, job, position) => drop(served?),
                why = transfer.until_paused(&asked) => tracing::debug!(resource = %asked, "{why}"),
            }
            Ok(())
        })
    }
}

/// Who could not use what it was sent asks again from there on: looks whether byte `from` of the file, where a whole record
/// should be, is at fault.
async fn look_for_damage(
    events: &UnboundedSender<Event>,
    (res, log): (&ResourceName, &LogName),
    path: &Path,
    from: u64,
) {
    let path = path.to_owned();
    let found = tokio::task::spawn_blocking(move || check_record(&path, from)).await;
    if let Ok(Ok(Some(cause))) = found {
        let why = cause.to_string();
        let _ = events.send(Event::Spoilt(res.clone(), log.clone(), from, why));
    }
}

/// What was written past the logs in a gap, as the map tells it, and what lies behind the end of the map.
fn load_ranges(dir: &Path, gap: u64, size: u64) -> Result<Ranges, String> {
    let map = UnloggedMap::load(dir)
        .map_err(|e| e.to_string())?
        .ok_or("there is no map of it")?;
    if !map.header().covers(gap) {
        return Err(format!("the map does not cover the gap {gap}"));
    }
    let mut ranges: Ranges = Vec::new();
    let behind = map.header().size_bytes.min(size);
    let behind = behind - behind % REGION_BYTES;
    let noted = map.regions().ranges();
    for (pos, len) in noted.into_iter().filter(|(pos, _)| *pos < behind) {
        ranges.push((pos, len.min(behind - pos)));
    }
    let last = map.regions().contains(behind / REGION_BYTES);
    if behind < size && (last || map.header().size_bytes < size) {
        ranges.push((behind, size - behind));
    }
    Ok(ranges)
}
