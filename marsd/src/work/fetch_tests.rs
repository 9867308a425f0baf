//! Fetch end to end over an in-memory stream: follows, stops at damage, never goes beyond what is durable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mars_core::log_format::Invalid;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::fetch_serve::{KIND_ALIVE, KIND_DATA, serve_with};
use super::frame::{FrameReader, write_frame};
use super::testkit::{TempLog, record_bytes};
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn state(durable: u64, complete: bool) -> LogState {
    LogState { durable, complete }
}

fn job(path: &Path, from: u64) -> FetchJob {
    FetchJob {
        path: path.to_path_buf(),
        from,
        peer: "peer-a".into(),
        silence: DEADLINE,
        cancel: Cancel::new(),
    }
}

struct Running {
    progress: watch::Receiver<FetchProgress>,
    client: JoinHandle<Result<FetchEnd, FetchError>>,
    server: JoinHandle<Result<ServeEnd, ServeError>>,
    cancel: Cancel,
}

fn start(source: &Path, copy: &Path, from: u64, state: watch::Receiver<LogState>) -> Running {
    let (near, far) = duplex(10_000);
    let source = source.to_path_buf();
    let server =
        tokio::spawn(
            async move { serve_fetch(far, &source, from, state, RateLimits::default()).await },
        );
    let (client, progress, cancel) = start_client(near, copy, from);
    Running {
        progress,
        client,
        server,
        cancel,
    }
}

type Client = JoinHandle<Result<FetchEnd, FetchError>>;

fn start_client(
    stream: DuplexStream,
    copy: &Path,
    from: u64,
) -> (Client, watch::Receiver<FetchProgress>, Cancel) {
    let (tx, progress) = watch::channel(FetchProgress::default());
    let job = job(copy, from);
    let cancel = job.cancel.clone();
    let client = tokio::spawn(async move { fetch(stream, job, &tx).await });
    (client, progress, cancel)
}

async fn until_valid(progress: &mut watch::Receiver<FetchProgress>, valid: u64) {
    let reached = progress.wait_for(|p| p.valid == valid);
    timeout(DEADLINE, reached).await.unwrap().unwrap();
}

async fn end<T>(task: JoinHandle<T>) -> T {
    timeout(DEADLINE, task).await.unwrap().unwrap()
}

fn copy_of(log: &TempLog) -> PathBuf {
    log.dir.path().join("copy")
}

#[tokio::test]
async fn a_growing_log_is_followed_and_never_overtakes_what_is_durable() {
    let mut log = TempLog::new();
    for n in 0..300u64 {
        log.append(n * 4096, &[3; 4096]);
    }
    let copy = copy_of(&log);
    let (publish, states) = watch::channel(state(2 * 4180, false));
    let mut run = start(&log.path, &copy, 0, states);
    for records in [2u64, 3, 100, 300] {
        publish.send_replace(state(records * 4180, false));
        until_valid(&mut run.progress, records * 4180).await;
        assert_eq!(std::fs::metadata(&copy).unwrap().len(), records * 4180);
    }
    publish.send_replace(state(300 * 4180, true));
    let done = end(run.client).await.unwrap();
    assert_eq!((done.complete, done.size), (true, 300 * 4180));
    assert_eq!(end(run.server).await.unwrap(), ServeEnd::Complete);
    assert!(run.progress.borrow().complete);
    assert_eq!(
        std::fs::read(&copy).unwrap(),
        std::fs::read(&log.path).unwrap()
    );
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn not_one_byte_behind_durable_is_sent() {
    let mut log = TempLog::new();
    log.append(0, &[1; 512]);
    log.append(512, &[2; 512]);
    let (near, far) = duplex(1 << 20);
    let (publish, states) = watch::channel(state(596, false));
    let path = log.path.clone();
    let short = Duration::from_millis(5);
    let server = tokio::spawn(async move {
        serve_with(far, &path, 0, states, RateLimits::default(), short).await
    });
    let mut reader = FrameReader::new(near);
    let first = timeout(DEADLINE, reader.next()).await.unwrap().unwrap();
    assert_eq!((first.kind, first.payload.len()), (KIND_DATA, 8 + 596));
    for _ in 0..3 {
        let idle = timeout(DEADLINE, reader.next()).await.unwrap().unwrap();
        assert_eq!(idle.kind, KIND_ALIVE);
    }
    drop(reader);
    assert_eq!(end(server).await.unwrap(), ServeEnd::PeerGone);
    drop(publish);
}

#[tokio::test]
async fn cancel_and_resume_give_the_same_log() {
    let mut log = TempLog::new();
    for n in 0..10u64 {
        log.append(n * 512, &[9; 512]);
    }
    let copy = copy_of(&log);
    let (publish, states) = watch::channel(state(4 * 596, false));
    let mut run = start(&log.path, &copy, 0, states);
    until_valid(&mut run.progress, 4 * 596).await;
    run.cancel.cancel();
    let stopped = end(run.client).await.unwrap();
    assert_eq!((stopped.complete, stopped.size), (false, 4 * 596));
    assert_eq!(end(run.server).await.unwrap(), ServeEnd::PeerGone);
    let mut torn = std::fs::OpenOptions::new()
        .append(true)
        .open(&copy)
        .unwrap();
    std::io::Write::write_all(&mut torn, &record_bytes(0, &[9; 512])[..77]).unwrap();
    let prepared = prepare_fetch(&copy, 596).unwrap();
    assert_eq!((prepared.from, prepared.dropped), (4 * 596, 77));
    publish.send_replace(state(10 * 596, true));
    let run = start(&log.path, &copy, prepared.from, publish.subscribe());
    assert!(end(run.client).await.unwrap().complete);
    assert_eq!(
        std::fs::read(&copy).unwrap(),
        std::fs::read(&log.path).unwrap()
    );
}

#[tokio::test]
async fn damage_stops_the_copy_at_the_last_good_record() {
    for flip in [0usize, 8, 9, 36, 60, 570] {
        let mut log = TempLog::new();
        log.append(0, &[1; 512]);
        log.append(512, &[2; 512]);
        let mut bad = record_bytes(1024, &[3; 512]);
        bad[flip] ^= 2;
        log.append_raw(&bad);
        log.append(1536, &[4; 512]);
        let copy = copy_of(&log);
        let (_publish, states) = watch::channel(state(log.len, true));
        let run = start(&log.path, &copy, 0, states);
        let error = end(run.client).await.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, FetchError::Invalid { pos: 1192, .. }),
            "{flip}: {text}"
        );
        assert!(text.contains("peer-a") && text.contains("copy"), "{text}");
        assert_eq!(run.progress.borrow().valid, 1192);
        let good = std::fs::read(&log.path).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), &good[..1192]);
        let _ = end(run.server).await;
    }
}

#[tokio::test]
async fn zeros_and_torn_ends_of_a_source_are_errors() {
    for (tail, is_protocol) in [
        (vec![0; 100], false),
        (record_bytes(0, &[5; 512])[..99].to_vec(), true),
    ] {
        let mut log = TempLog::new();
        log.append(0, &[1; 512]);
        log.append_raw(&tail);
        let (_publish, states) = watch::channel(state(log.len, true));
        let run = start(&log.path, &copy_of(&log), 0, states);
        match end(run.client).await.unwrap_err() {
            FetchError::Protocol { .. } => assert!(is_protocol),
            FetchError::Invalid { pos, cause, .. } => {
                assert_eq!((pos, cause, is_protocol), (596, Invalid::StartMagic, false));
            }
            other => panic!("{other}"),
        }
        assert_eq!(run.progress.borrow().valid, 596);
    }
}

#[tokio::test]
async fn a_copy_longer_than_the_complete_source_is_refused_in_words() {
    let mut log = TempLog::new();
    log.append(0, &[1; 512]);
    let copy = copy_of(&log);
    std::fs::write(&copy, vec![0; 600]).unwrap();
    let (_publish, states) = watch::channel(state(596, true));
    let run = start(&log.path, &copy, 600, states);
    let text = end(run.client).await.unwrap_err().to_string();
    assert!(
        text.contains("your copy is longer than mine: 600 > 596 bytes"),
        "{text}"
    );
    assert!(matches!(
        end(run.server).await,
        Err(ServeError::Refused { .. })
    ));
}

#[tokio::test]
async fn a_forgotten_or_unreadable_log_ends_with_a_reason() {
    let log = TempLog::new();
    let (publish, states) = watch::channel(state(0, false));
    let run = start(&log.path, &copy_of(&log), 0, states);
    drop(publish);
    let text = end(run.client).await.unwrap_err().to_string();
    assert!(text.contains("not offered any more"), "{text}");
    let (_publish, states) = watch::channel(state(9, false));
    let run = start(&log.path, &copy_of(&log), 0, states);
    let text = end(run.client).await.unwrap_err().to_string();
    assert!(text.contains("cannot read"), "{text}");
    let (_near, far) = duplex(100);
    let size = fetch(
        far,
        job(&log.path, 7),
        &watch::channel(FetchProgress::default()).0,
    )
    .await;
    assert!(matches!(
        size,
        Err(FetchError::Size {
            size: 0,
            from: 7,
            ..
        })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up() {
    let log = TempLog::new();
    let (_near, far) = duplex(100);
    let (client, _, _) = start_client(far, &copy_of(&log), 0);
    let error = client.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("nothing was heard"), "{error}");
}

#[tokio::test]
async fn misplaced_data_is_a_protocol_error() {
    let log = TempLog::new();
    let (mut near, far) = duplex(1000);
    let (client, _, _) = start_client(far, &copy_of(&log), 0);
    write_frame(&mut near, KIND_DATA, &[&4u64.to_le_bytes(), b"x"])
        .await
        .unwrap();
    let error = end(client).await.unwrap_err();
    assert!(matches!(error, FetchError::Protocol { .. }), "{error}");
}

/// Feeds hostile bytes to a client; whatever happens, the copy holds whole valid records only.
async fn feed(frames: Vec<(u8, Vec<u8>)>, garbage: Vec<u8>) {
    let log = TempLog::new();
    let copy = copy_of(&log);
    let (mut near, far) = duplex(1 << 20);
    let (client, progress, _) = start_client(far, &copy, 0);
    for (kind, payload) in frames {
        if write_frame(&mut near, kind, &[&payload]).await.is_err() {
            break;
        }
    }
    let _ = near.write_all(&garbage).await;
    let _ = near.shutdown().await;
    let mut sink = Vec::new();
    let _ = near.read_to_end(&mut sink).await;
    let _ = end(client).await;
    let scan = scan_valid_end(&copy, 0).unwrap();
    assert_eq!((scan.end, scan.invalid), (scan.size, None));
    assert_eq!(progress.borrow().valid, scan.end);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_frames_never_panic_and_never_reach_the_file(
        kinds in prop::collection::vec((1u8..6, 0u64..2000, 0usize..700, any::<u8>()), 0..6),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let frames = kinds.into_iter().map(|(kind, pos, len, fill)| {
            let mut payload = if fill < 128 { 0u64 } else { pos }.to_le_bytes().to_vec();
            payload.extend(record_bytes(pos, &[fill; 512]).into_iter().take(len));
            (kind, payload)
        });
        let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        rt.block_on(feed(frames.collect(), garbage));
    }
}
