//! Comparing disks over an in-memory stream, with a writer at the source and replay at the target.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mars_core::ReplayPos;
use mars_core::verify::{ByteRange, VerifyOutcome};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;
use tokio::time::timeout;

use super::sync_tests::{DEADLINE, MIB, Pair, Primary, log_name, pair, pattern};
use super::testkit::TempLog;
use super::*;

/// A target that replays the log of the source between the passes.
struct Target {
    source: SyncSource,
    target: std::path::PathBuf,
    log: Arc<Mutex<TempLog>>,
    replayed: u64,
    passes: u32,
    /// The connection breaks in so many passes.
    breaks: u32,
}

impl Target {
    fn new(pair: &Pair, log: &Arc<Mutex<TempLog>>) -> Self {
        Self {
            source: pair.served(),
            target: pair.target.clone(),
            log: Arc::clone(log),
            replayed: 0,
            passes: 0,
            breaks: 0,
        }
    }

    fn log_len(&self) -> u64 {
        self.log.lock().unwrap().len
    }

    fn replay_to(&mut self, end: u64) {
        let job = ReplayJob {
            log_path: self.log.lock().unwrap().path.clone(),
            log: log_name(),
            disk_path: self.target.clone(),
            disk_size: self.source.size,
            from: self.replayed,
            until: ReplayUntil::Fixed(end),
            batch: BATCH,
        };
        self.replayed = replay(job, ReplayControl::default(), |_| ()).unwrap().pos;
        assert_eq!(self.replayed, end);
    }
}

impl VerifyHost for Target {
    type Stream = DuplexStream;

    async fn hold(&mut self) -> Result<Grant<DuplexStream>, VerifyError> {
        self.passes += 1;
        let (near, far) = duplex(64 * 1024);
        if self.passes <= self.breaks {
            drop(far);
        } else {
            let log = Arc::clone(&self.log);
            let end =
                move || async move { Ok(ReplayPos::new(log_name(), log.lock().unwrap().len)) };
            tokio::spawn(serve_sync(far, self.source.clone(), end));
        }
        Ok(Grant {
            stream: near,
            peer: "peer-a".into(),
            // The simulated primary tells nothing of its write-back, so all of its log may explain a difference.
            both_have: ReplayPos::new(log_name(), 0),
        })
    }

    async fn logs(
        &mut self,
        from: &ReplayPos,
        to: &ReplayPos,
    ) -> Result<Vec<LogPart>, VerifyError> {
        Ok(vec![LogPart {
            path: self.log.lock().unwrap().path.clone(),
            from: from.pos,
            to: to.pos,
        }])
    }

    async fn release(&mut self, to: Option<ReplayPos>) {
        if let Some(to) = to {
            self.replay_to(to.pos);
        }
    }
}

async fn check(host: &mut Target, pair: &Pair, repair: bool) -> Result<VerifyOutcome, VerifyError> {
    let job = VerifyJob {
        disk_path: pair.target.clone(),
        size_bytes: pair.size,
        repair,
        silence: DEADLINE,
        cancel: Cancel::new(),
    };
    let (progress, seen) = watch::channel(0);
    let outcome = timeout(DEADLINE, verify(host, &job, &progress))
        .await
        .unwrap();
    assert!(outcome.is_err() || *seen.borrow() == pair.size);
    outcome
}

fn flip(disk: &Path, byte: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(disk)
        .unwrap();
    let mut data = [0];
    file.read_exact_at(&mut data, byte).unwrap();
    file.write_all_at(&[data[0] ^ 1], byte).unwrap();
}

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange { start, len }
}

#[tokio::test]
async fn flipped_blocks_are_found_at_their_places_and_only_repair_changes_them() {
    let size = 3 * MIB + 1536;
    let base = pattern(size, 1);
    let pair = pair(&base, &base);
    let log = Arc::new(Mutex::new(TempLog::new()));
    let mut host = Target::new(&pair, &log);
    host.breaks = 2;
    let clean = check(&mut host, &pair, true).await.unwrap();
    assert_eq!((clean, host.passes), (VerifyOutcome::default(), 3));
    for byte in [5000, 2 * MIB - 1, 2 * MIB, size - 1] {
        flip(&pair.target, byte);
    }
    let damaged = std::fs::read(&pair.target).unwrap();
    let found = check(&mut host, &pair, false).await.unwrap();
    let ranges = [
        range(4096, 4096),
        range(2 * MIB - 4096, 8192),
        range(3 * MIB, 1536),
    ];
    assert_eq!(found.ranges, ranges);
    assert_eq!((found.differing, found.repaired), (4, 0));
    assert!(std::fs::read(&pair.target).unwrap() == damaged);
    let repaired = check(&mut host, &pair, true).await.unwrap();
    assert_eq!((repaired.differing, repaired.repaired), (4, 4));
    assert!(pair.equal());
    let again = check(&mut host, &pair, false).await.unwrap();
    assert_eq!(again, VerifyOutcome::default());
}

#[tokio::test]
async fn a_target_that_is_behind_or_ahead_of_the_disk_of_the_source_is_not_different() {
    let size = 2 * MIB;
    let base = pattern(size, 1);
    let pair = pair(&base, &base);
    let log = Arc::new(Mutex::new(TempLog::new()));
    // A record that is on no disk yet, one that only the source has written back, one that only the target has.
    for (block, fill) in [(3u64, 3u8), (4, 4), (300, 5)] {
        log.lock().unwrap().append(block * 4096 + 512, &[fill; 512]);
    }
    let source = std::fs::OpenOptions::new()
        .write(true)
        .open(&pair.source)
        .unwrap();
    source.write_all_at(&[4; 512], 4 * 4096 + 512).unwrap();
    let target = std::fs::OpenOptions::new()
        .write(true)
        .open(&pair.target)
        .unwrap();
    target.write_all_at(&[5; 512], 300 * 4096 + 512).unwrap();
    flip(&pair.target, 301 * 4096);
    let mut host = Target::new(&pair, &log);
    let found = check(&mut host, &pair, true).await.unwrap();
    assert_eq!(found.ranges, [range(301 * 4096, 4096)]);
    // What the source never writes back cannot be compared, and is said to be so.
    assert_eq!(
        (found.differing, found.repaired, found.unchecked),
        (1, 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_write_load_only_what_was_damaged_is_found_and_repaired() {
    let mut explained = 0;
    for seed in 1..4 {
        let size = 24 * MIB + 1536;
        let base = pattern(size, seed);
        let pair = pair(&base, &base);
        // The load leaves the last part alone, where the damage is.
        let quiet = 20 * MIB;
        let primary = Primary::start(&pair.source, quiet, seed);
        let log = Arc::clone(&primary.log);
        while log.lock().unwrap().len < 100_000 {
            std::thread::yield_now();
        }
        let mut host = Target::new(&pair, &log);
        let end = host.log_len();
        host.replay_to(end);
        let clean = check(&mut host, &pair, true).await.unwrap();
        assert_eq!((clean.differing, clean.repaired), (0, 0), "seed {seed}");
        explained += clean.unchecked;
        let damage: BTreeSet<u64> = [quiet, quiet + 3 * MIB + 4095, size - 1].into();
        for byte in &damage {
            flip(&pair.target, *byte);
        }
        let found = check(&mut host, &pair, true).await.unwrap();
        let starts: BTreeSet<u64> = damage.iter().map(|b| b / 4096 * 4096).collect();
        assert_eq!(
            found
                .ranges
                .iter()
                .map(|r| r.start)
                .collect::<BTreeSet<_>>(),
            starts
        );
        assert_eq!((found.differing, found.repaired), (3, 3));
        let again = check(&mut host, &pair, false).await.unwrap();
        assert_eq!(again.differing, 0);
        primary.stop();
        // Everything the primary has logged, applied on both sides: the same device.
        let end = host.log_len();
        host.replay_to(end);
        let log = std::fs::read(&log.lock().unwrap().path).unwrap();
        let want = super::sync_tests::device_at(&base, &log, end);
        assert!(std::fs::read(&pair.target).unwrap() == want, "seed {seed}");
    }
    // Otherwise there was no load to speak of.
    assert!(explained > 0);
}

#[tokio::test]
async fn a_peer_that_stays_away_a_missing_log_and_a_cancel_end_it_with_a_reason() {
    let base = pattern(MIB, 1);
    let pair = pair(&base, &base);
    let log = Arc::new(Mutex::new(TempLog::new()));
    let mut host = Target::new(&pair, &log);
    host.breaks = u32::MAX;
    let error = check(&mut host, &pair, false).await.unwrap_err();
    assert!(error.to_string().contains("peer-a"), "{error}");
    host.breaks = 0;
    log.lock().unwrap().path = "/nonexistent".into();
    let error = check(&mut host, &pair, false).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
    let job = VerifyJob {
        disk_path: pair.target.clone(),
        size_bytes: pair.size,
        repair: false,
        silence: DEADLINE,
        cancel: Cancel::new(),
    };
    job.cancel.cancel();
    let (progress, _) = watch::channel(0);
    let ended = timeout(Duration::from_secs(10), verify(&mut host, &job, &progress)).await;
    assert!(matches!(ended.unwrap(), Err(VerifyError::Stopped)));
}
