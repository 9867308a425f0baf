//! Sync over an in-memory stream, alone and together with writes at the source and replay at the target.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mars_core::{HostName, LogName, ReplayPos};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::watch;
use tokio::time::timeout;

use super::frame::{FrameReader, KIND_REFUSED, write_frame};
use super::sync_proto::*;
use super::testkit::TempLog;
use super::*;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn log_name() -> LogName {
    LogName::new(1, &HostName::new("a").unwrap())
}

/// Bytes that look different in every block and for every seed.
pub(crate) fn pattern(size: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = usize::try_from(size / 8).unwrap();
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..words).flat_map(|_| next()).collect()
}

pub(crate) struct Pair {
    _dir: tempfile::TempDir,
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) size: u64,
}

pub(crate) fn pair(source: &[u8], target: &[u8]) -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (s, t) = (path("source"), path("target"));
    std::fs::write(&s, source).unwrap();
    std::fs::write(&t, target).unwrap();
    let size = u64::try_from(source.len()).unwrap();
    Pair {
        _dir: dir,
        source: s,
        target: t,
        size,
    }
}

impl Pair {
    fn job(&self, start: u64) -> SyncJob {
        SyncJob {
            ranges_to: None,
            disk_path: self.target.clone(),
            size_bytes: self.size,
            start,
            peer: "peer-a".into(),
            ahead: 8,
            silence: DEADLINE,
            cancel: Cancel::new(),
        }
    }

    pub(crate) fn served(&self) -> SyncSource {
        SyncSource {
            ranges: None,
            disk_path: self.source.clone(),
            size: self.size,
            io: RateLimits::default(),
            cancel: Cancel::new(),
        }
    }

    pub(crate) fn equal(&self) -> bool {
        std::fs::read(&self.source).unwrap() == std::fs::read(&self.target).unwrap()
    }
}

type Synced = (
    Result<SyncEnd, SyncError>,
    SyncProgress,
    Result<ServeEnd, ServeError>,
);

async fn run_with<F, Fut>(job: SyncJob, source: SyncSource, position: F) -> Synced
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<ReplayPos, String>> + Send + 'static,
{
    let (near, far) = duplex(64 * 1024);
    let (tx, rx) = watch::channel(SyncProgress::default());
    let server = tokio::spawn(serve_sync(far, source, position));
    let end = timeout(DEADLINE, sync(near, job, &tx)).await.unwrap();
    let served = timeout(DEADLINE, server).await.unwrap().unwrap();
    let progress = *rx.borrow();
    (end, progress, served)
}

async fn run(job: SyncJob, source: SyncSource) -> Synced {
    run_with(job, source, || async {
        Ok(ReplayPos::new(log_name(), 4711))
    })
    .await
}

#[tokio::test]
async fn only_what_differs_is_sent() {
    let size = 3 * MIB + 5 * 512;
    let blocks = size.div_ceil(4096);
    let source = pattern(size, 1);
    let mut one_percent = source.clone();
    for block in (0..blocks).step_by(100) {
        one_percent[usize::try_from(block * 4096).unwrap()] ^= 1;
    }
    let last = one_percent.len() - 1;
    one_percent[last] ^= 1;
    let cases = [
        (source.clone(), 0),
        (one_percent, blocks.div_ceil(100) + 1),
        (pattern(size, 2), blocks),
    ];
    for (target, bad) in cases {
        let pair = pair(&source, &target);
        let (end, progress, served) = run(pair.job(0), pair.served()).await;
        let end = end.unwrap();
        assert_eq!(end.consistent_from, Some(ReplayPos::new(log_name(), 4711)));
        assert_eq!((end.synced, progress.synced), (size, size));
        assert_eq!(
            (progress.bad_blocks, progress.ok_blocks),
            (bad, blocks - bad)
        );
        assert!(progress.bytes_received <= bad * 4096 + 4 * 64);
        assert_eq!(served.unwrap(), ServeEnd::Complete);
        assert!(pair.equal());
    }
}

#[tokio::test]
async fn a_cancelled_sync_resumes_behind_what_it_reported() {
    let size = 6 * MIB;
    let pair = pair(&pattern(size, 1), &pattern(size, 2));
    let (near, far) = duplex(64 * 1024);
    let (tx, mut rx) = watch::channel(SyncProgress::default());
    let job = pair.job(0);
    let cancel = job.cancel.clone();
    let position = || async { Err("never asked".to_string()) };
    let source = SyncSource {
        // The second window has to wait for an hour.
        io: RateLimits::new([Arc::new(RateLimit::new(1))]),
        ..pair.served()
    };
    let server = tokio::spawn(serve_sync(far, source, position));
    let client = tokio::spawn(async move { sync(near, job, &tx).await });
    timeout(DEADLINE, rx.wait_for(|p| p.synced == MIB))
        .await
        .unwrap()
        .unwrap();
    cancel.cancel();
    let end = timeout(DEADLINE, client).await.unwrap().unwrap().unwrap();
    assert_eq!((end.synced, end.consistent_from), (MIB, None));
    assert_eq!(
        timeout(DEADLINE, server).await.unwrap().unwrap().unwrap(),
        ServeEnd::PeerGone
    );
    let (source, target) = (
        std::fs::read(&pair.source).unwrap(),
        std::fs::read(&pair.target).unwrap(),
    );
    assert!(source[..1 << 20] == target[..1 << 20] && source[1 << 20..] != target[1 << 20..]);

    let (end, progress, _) = run(pair.job(end.synced), pair.served()).await;
    assert_eq!(end.unwrap().synced, size);
    assert_eq!(progress.bad_blocks, 5 * 256);
    assert!(pair.equal());
}

#[tokio::test]
async fn a_start_inside_a_window_and_at_the_end_are_fine() {
    let size = 2 * MIB;
    let pair = pair(&pattern(size, 1), &pattern(size, 2));
    let (end, progress, _) = run(pair.job(MIB + 512), pair.served()).await;
    assert_eq!((end.unwrap().synced, progress.bad_blocks), (size, 256));
    let (end, progress, _) = run(pair.job(size), pair.served()).await;
    assert!(end.unwrap().consistent_from.is_some());
    assert_eq!(progress.bytes_received, 0);
}

#[tokio::test]
async fn every_refusal_says_why() {
    let pair = pair(&pattern(MIB, 1), &pattern(MIB, 2));
    let text = |s: Synced| s.0.unwrap_err().to_string();
    let other_size = SyncSource {
        size: MIB - 512,
        ..pair.served()
    };
    let seen = text(run(pair.job(0), other_size).await);
    assert!(
        seen.contains("1048064") && seen.contains("1048576") && seen.contains("peer-a"),
        "{seen}"
    );
    let gone = SyncSource {
        disk_path: "/nonexistent".into(),
        ..pair.served()
    };
    let seen = text(run(pair.job(0), gone).await);
    assert!(seen.contains("/nonexistent"), "{seen}");
    OpenOptions::new()
        .write(true)
        .open(&pair.source)
        .unwrap()
        .set_len(MIB / 2)
        .unwrap();
    let seen = text(run(pair.job(0), pair.served()).await);
    assert!(seen.contains("524288"), "{seen}");
    OpenOptions::new()
        .write(true)
        .open(&pair.source)
        .unwrap()
        .set_len(MIB)
        .unwrap();
    let no_end = || async { Err("the shim does not answer".to_string()) };
    let (end, progress, _) = run_with(pair.job(0), pair.served(), no_end).await;
    let seen = end.unwrap_err().to_string();
    assert!(seen.contains("the shim does not answer"), "{seen}");
    assert_eq!(progress.synced, MIB);
    let short = SyncJob {
        size_bytes: 2 * MIB,
        ..pair.job(0)
    };
    let (near, _far) = duplex(100);
    let error = sync(near, short, &watch::channel(SyncProgress::default()).0).await;
    assert!(matches!(error, Err(SyncError::Disk { .. })));
}

/// A primary: every write goes to the log first and to the disk some writes later, in another order.
pub(crate) struct Primary {
    pub(crate) log: Arc<Mutex<TempLog>>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Primary {
    pub(crate) fn start(disk: &Path, size: u64, seed: u64) -> Self {
        let log = Arc::new(Mutex::new(TempLog::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let file = OpenOptions::new().write(true).open(disk).unwrap();
        let (shared, stopped) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let noise = pattern(MIB, seed);
            let mut dirty: Vec<(u64, Vec<u8>)> = Vec::new();
            for n in 0u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let pick = |at: u64| {
                    let at = usize::try_from((n * 24 + at) % (MIB - 8)).unwrap();
                    u64::from_le_bytes(noise[at..at + 8].try_into().unwrap())
                };
                let len = (pick(0) % 8 + 1) * 512;
                let pos = pick(8) % ((size - len) / 512 + 1) * 512;
                let data = pattern(len, pick(16) ^ n);
                shared.lock().unwrap().append(pos, &data);
                dirty.retain(|(p, d)| p + d.len() as u64 <= pos || *p >= pos + len);
                dirty.push((pos, data));
                if dirty.len() > 32 {
                    let (pos, data) = dirty.swap_remove(usize::try_from(pick(4) % 32).unwrap());
                    file.write_all_at(&data, pos).unwrap();
                }
            }
        });
        Self { log, stop, thread }
    }

    pub(crate) fn stop(self) -> Arc<Mutex<TempLog>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.log
    }
}

/// The state of the primary's device at log position `end`.
pub(crate) fn device_at(base: &[u8], log: &[u8], end: u64) -> Vec<u8> {
    let mut device = base.to_vec();
    let log = &log[..usize::try_from(end).unwrap()];
    let walked = check::walk(log, |record, payload| {
        let at = usize::try_from(record.pos).unwrap();
        device[at..at + payload.len()].copy_from_slice(&log[payload]);
    });
    assert_eq!(walked.len, log.len());
    device
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_from_a_disk_in_use_and_replay_to_e_give_the_device_at_e() {
    let mut mixed = 0;
    for seed in 1..4 {
        let size = 4 * MIB + 1536;
        let base = pattern(size, seed);
        let pair = pair(&base, &pattern(size, 99));
        let primary = Primary::start(&pair.source, size, seed);
        let log = Arc::clone(&primary.log);
        let position =
            move || async move { Ok(ReplayPos::new(log_name(), log.lock().unwrap().len)) };
        // Writes must be going on before, while and after the blocks are read.
        while primary.log.lock().unwrap().len < 100_000 {
            std::thread::yield_now();
        }
        let (end, _, _) = run_with(pair.job(0), pair.served(), position).await;
        let e = end.unwrap().consistent_from.unwrap();
        let log = primary.stop();
        let log = log.lock().unwrap();
        assert!(e.pos > 100_000 && log.len >= e.pos);
        let want = device_at(&base, &std::fs::read(&log.path).unwrap(), e.pos);
        mixed += u32::from(std::fs::read(&pair.target).unwrap() != want);
        let job = ReplayJob {
            log_path: log.path.clone(),
            log: log_name(),
            disk_path: pair.target.clone(),
            disk_size: size,
            from: 0,
            until: ReplayUntil::Fixed(e.pos),
            batch: BATCH,
        };
        let replayed = replay(job, ReplayControl::default(), |_| ()).unwrap();
        assert_eq!(replayed.pos, e.pos);
        assert!(std::fs::read(&pair.target).unwrap() == want, "seed {seed}");
    }
    // Without replay the copy is a mixture: otherwise this test would show nothing.
    assert!(mixed > 0);
}

/// Sends hostile frames to one side, which must end with an error, not with a panic.
async fn feed(mut stream: tokio::io::DuplexStream, frames: Vec<(u8, Vec<u8>)>) {
    for (kind, payload) in frames {
        if write_frame(&mut stream, kind, &[&payload]).await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
    let mut sink = Vec::new();
    let _ = stream.read_to_end(&mut sink).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn hostile_frames_never_panic(
        frames in prop::collection::vec((0u8..8, prop::collection::vec(any::<u8>(), 0..60)), 0..5), begin: bool
    ) {
        let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        rt.block_on(async {
            let pair = pair(&pattern(8192, 1), &pattern(8192, 2));
            let before = std::fs::read(&pair.target).unwrap();
            let (near, far) = duplex(1 << 16);
            let (tx, _rx) = watch::channel(SyncProgress::default());
            let (end, ()) = tokio::join!(sync(far, pair.job(0), &tx), feed(near, frames.clone()));
            assert!(end.is_err());
            assert!(std::fs::read(&pair.target).unwrap() == before);

            let mut all = frames;
            if begin {
                all.insert(0, (KIND_BEGIN, 8192u64.to_le_bytes().to_vec()));
            }
            let (near, far) = duplex(1 << 16);
            let position = || async { Ok(ReplayPos::new(log_name(), 0)) };
            let (_, ()) = tokio::join!(serve_sync(far, pair.served(), position), feed(near, all));
        });
    }
}

#[tokio::test]
async fn a_wrong_request_is_answered_with_a_reason() {
    let pair = pair(&pattern(8192, 1), &pattern(8192, 2));
    let (mut near, far) = duplex(1 << 16);
    let position = || async { Ok(ReplayPos::new(log_name(), 0)) };
    let server = tokio::spawn(serve_sync(far, pair.served(), position));
    write_frame(&mut near, KIND_BEGIN, &[&8192u64.to_le_bytes()])
        .await
        .unwrap();
    write_frame(&mut near, KIND_WINDOW, &[&4096u64.to_le_bytes()])
        .await
        .unwrap();
    let mut reader = FrameReader::new(near);
    let answer = timeout(DEADLINE, reader.next()).await.unwrap().unwrap();
    assert_eq!(answer.kind, KIND_REFUSED);
    assert!(
        answer.text().contains("without a length"),
        "{}",
        answer.text()
    );
    let served = timeout(DEADLINE, server).await.unwrap().unwrap();
    assert!(matches!(served, Err(ServeError::Protocol { .. })));
}
