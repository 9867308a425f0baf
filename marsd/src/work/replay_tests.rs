//! Replay against the naive application of the same records in order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mars_core::{HostName, LogName};
use proptest::prelude::*;
use tokio::sync::{mpsc, watch};

use super::testkit::{TempLog, coded_record, record_bytes};
use super::*;

const DISK: u64 = 64 * 1024;

fn job(log: &TempLog, disk: &Path, from: u64, until: ReplayUntil) -> ReplayJob {
    ReplayJob {
        log_path: log.path.clone(),
        log: LogName::new(1, &HostName::new("a").unwrap()),
        disk_path: disk.to_path_buf(),
        disk_size: DISK,
        from,
        until,
        batch: BATCH,
    }
}

fn run(job: ReplayJob, batch: usize) -> (Result<ReplayEnd, ReplayError>, Vec<ReplayReport>) {
    let mut reports = Vec::new();
    let end = replay(ReplayJob { batch, ..job }, ReplayControl::default(), |r| {
        reports.push(r)
    });
    (end, reports)
}

/// Writes of 512-byte multiples: (sector, sectors, fill).
fn writes() -> impl Strategy<Value = Vec<(u64, usize, u8)>> {
    prop::collection::vec((0u64..120, 1usize..9, 1u8..255), 1..60)
}

fn build(writes: &[(u64, usize, u8)]) -> (TempLog, Vec<u64>) {
    let mut log = TempLog::new();
    let mut ends = vec![0];
    for (sector, sectors, fill) in writes {
        log.append(sector * 512, &vec![*fill; sectors * 512]);
        ends.push(log.len);
    }
    (log, ends)
}

fn naive(writes: &[(u64, usize, u8)]) -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(DISK).unwrap()];
    for (sector, sectors, fill) in writes {
        let at = usize::try_from(sector * 512).unwrap();
        disk[at..at + sectors * 512].fill(*fill);
    }
    disk
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn replay_equals_application_in_order_at_every_report(writes in writes(), batch in 4180usize..40_000) {
        let (log, ends) = build(&writes);
        let disk = log.disk("disk", DISK);
        let mut seen = Vec::new();
        let job = job(&log, &disk, 0, ReplayUntil::Fixed(log.len));
        let end = replay(ReplayJob { batch, ..job }, ReplayControl::default(), |r| {
            seen.push((r.pos, std::fs::read(&disk).unwrap()));
        });
        let end = end.unwrap();
        prop_assert_eq!((end.pos, end.reason), (log.len, ReplayReason::CaughtUp));
        for (pos, content) in seen {
            let records = ends.iter().position(|e| *e == pos).unwrap();
            prop_assert!(content == naive(&writes[..records]));
        }
        prop_assert!(std::fs::read(&disk).unwrap() == naive(&writes));
    }

    /// A kill loses everything behind the last report, but may leave any part of the next batch on the disk.
    #[test]
    fn replay_from_any_reported_position_repairs_what_a_kill_left(
        writes in writes(), batch in 4180usize..20_000, killed in 0usize..60, torn in any::<u64>()
    ) {
        let (log, ends) = build(&writes);
        let disk = log.disk("disk", DISK);
        let (_, reports) = run(job(&log, &disk, 0, ReplayUntil::Fixed(log.len)), batch);
        let mut positions = vec![0];
        positions.extend(reports.iter().map(|r| r.pos));
        let from = positions[killed % positions.len()];
        let done = ends.iter().position(|e| *e == from).unwrap();
        let mut content = naive(&writes[..done]);
        for (n, (sector, sectors, fill)) in writes[done..].iter().enumerate() {
            if torn >> (n % 64) & 1 == 1 {
                let at = usize::try_from(sector * 512).unwrap();
                content[at..at + sectors * 512].fill(*fill);
            }
        }
        std::fs::write(&disk, content).unwrap();
        let (end, _) = run(job(&log, &disk, from, ReplayUntil::Fixed(log.len)), batch);
        prop_assert_eq!(end.unwrap().pos, log.len);
        prop_assert!(std::fs::read(&disk).unwrap() == naive(&writes));
    }

    #[test]
    fn damage_stops_replay_at_the_last_good_record(
        writes in writes(), at in any::<prop::sample::Index>(), bit in 0u8..8, batch in 4180usize..20_000
    ) {
        let (log, ends) = build(&writes);
        let mut bytes = std::fs::read(&log.path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&log.path, &bytes).unwrap();
        let scan = scan_valid_end(&log.path, 0).unwrap();
        let disk = log.disk("disk", DISK);
        let (end, reports) = run(job(&log, &disk, 0, ReplayUntil::Fixed(log.len)), batch);
        let records = ends.iter().position(|e| *e == scan.end).unwrap();
        match end {
            Err(ReplayError::Invalid { pos, .. }) => prop_assert_eq!(scan.invalid.map(|i| i.0), Some(pos)),
            // A length that is now too long for the file looks like a torn record.
            Ok(end) => prop_assert_eq!((end.pos, scan.invalid), (scan.end, None)),
            // The damage may be in the unprotected disk offset of the header.
            Err(ReplayError::BeyondDisk { .. }) => return Ok(()),
            Err(other) => panic!("{other}"),
        }
        prop_assert_eq!(reports.last().map_or(0, |r| r.pos), scan.end);
        let in_offset = ends.iter().any(|e| (e + 28..e + 36).contains(&(at as u64)));
        if !in_offset {
            let in_code = ends.iter().any(|e| (e + 44..e + 46).contains(&(at as u64)));
            prop_assert!(in_code || std::fs::read(&disk).unwrap() == naive(&writes[..records]));
        }
    }
}

#[test]
fn other_codes_are_skipped_and_records_behind_the_disk_are_errors() {
    let mut log = TempLog::new();
    log.append(0, &[1; 512]);
    log.append_raw(&coded_record(u64::MAX - 5, &[2; 512], 2));
    log.append(DISK - 512, &[3; 512]);
    log.append(DISK - 512, &[4; 1024]);
    let disk = log.disk("disk", DISK);
    let (end, reports) = run(job(&log, &disk, 0, ReplayUntil::Fixed(log.len)), 1 << 20);
    let text = end.unwrap_err().to_string();
    assert!(
        text.contains("byte 1788") && text.contains("behind the end"),
        "{text}"
    );
    assert_eq!(reports.last().unwrap().pos, 1788);
    let content = std::fs::read(&disk).unwrap();
    assert_eq!((content[0], content[65_535]), (1, 3));
}

#[test]
fn zeros_and_a_torn_record_end_a_fixed_replay_but_garbage_behind_zeros_does_not() {
    let mut log = TempLog::new();
    log.append(0, &[1; 512]);
    log.append_raw(&[0; 8000]);
    let disk = log.disk("disk", DISK);
    let fixed = |log: &TempLog| job(log, &disk, 0, ReplayUntil::Fixed(log.len));
    assert_eq!(run(fixed(&log), 5000).0.unwrap().pos, 596);
    log.append_raw(b"x");
    let (end, _) = run(fixed(&log), 5000);
    assert!(matches!(end, Err(ReplayError::Invalid { pos: 596, .. })));
    let mut torn = TempLog::new();
    torn.append(0, &[1; 512]);
    torn.append_raw(&record_bytes(0, &[1; 512])[..300]);
    assert_eq!(run(fixed(&torn), 5000).0.unwrap().pos, 596);
}

#[test]
fn bad_starts_and_disks_are_clear_errors() {
    let mut log = TempLog::new();
    log.append(0, &[1; 512]);
    let disk = log.disk("disk", DISK);
    let behind = run(job(&log, &disk, 700, ReplayUntil::Fixed(596)), 5000).0;
    assert!(matches!(
        behind,
        Err(ReplayError::BehindEnd {
            from: 700,
            end: 596,
            ..
        })
    ));
    let beyond = run(job(&log, &disk, 0, ReplayUntil::Fixed(700)), 5000).0;
    assert!(matches!(beyond, Err(ReplayError::Log { .. })));
    let small = log.disk("small", DISK - 512);
    let text = run(job(&log, &small, 0, ReplayUntil::Fixed(596)), 5000)
        .0
        .unwrap_err()
        .to_string();
    assert!(text.contains("small") && text.contains("65536"), "{text}");
    let middle = run(job(&log, &disk, 4, ReplayUntil::Fixed(596)), 5000).0;
    assert!(matches!(middle, Err(ReplayError::Invalid { pos: 4, .. })));
}

struct Follower {
    thread: std::thread::JoinHandle<Result<ReplayEnd, ReplayError>>,
    reports: mpsc::UnboundedReceiver<ReplayReport>,
    control: ReplayControl,
}

fn follow(log: &TempLog, disk: PathBuf, progress: watch::Receiver<FetchProgress>) -> Follower {
    let control = ReplayControl::default();
    let stop = control.clone();
    let (tx, reports) = mpsc::unbounded_channel();
    let job = job(log, &disk, 0, ReplayUntil::Follow(progress));
    let thread = std::thread::spawn(move || replay(job, stop, |r| tx.send(r).unwrap()));
    Follower {
        thread,
        reports,
        control,
    }
}

async fn reported(follower: &mut Follower) -> u64 {
    let next = tokio::time::timeout(Duration::from_secs(20), follower.reports.recv()).await;
    next.unwrap().unwrap().pos
}

fn valid(valid: u64, complete: bool) -> FetchProgress {
    FetchProgress {
        size: valid,
        valid,
        complete,
        ..FetchProgress::default()
    }
}

#[tokio::test]
async fn a_fetch_is_followed_to_its_end_and_a_stop_is_prompt() {
    let mut log = TempLog::new();
    let disk = log.disk("disk", DISK);
    let (tx, rx) = watch::channel(valid(0, false));
    let mut follower = follow(&log, disk.clone(), rx.clone());
    for n in 1..4u8 {
        log.append(512, &[n; 512]);
        tx.send_replace(valid(log.len, false));
        assert_eq!(reported(&mut follower).await, log.len);
        assert_eq!(std::fs::read(&disk).unwrap()[512], n);
    }
    tx.send_replace(valid(log.len, true));
    let end = follower.thread.join().unwrap().unwrap();
    assert_eq!((end.pos, end.reason), (log.len, ReplayReason::CaughtUp));

    tx.send_replace(valid(log.len, false));
    let mut follower = follow(&log, disk, rx);
    assert_eq!(reported(&mut follower).await, log.len);
    follower.control.stop();
    let end = follower.thread.join().unwrap().unwrap();
    assert_eq!((end.pos, end.reason), (log.len, ReplayReason::Stopped));
}

#[tokio::test]
async fn a_follower_ends_when_the_fetch_is_gone_and_complains_about_missing_records() {
    let mut log = TempLog::new();
    log.append(0, &[1; 512]);
    let disk = log.disk("disk", DISK);
    let (tx, rx) = watch::channel(valid(596, false));
    let follower = follow(&log, disk.clone(), rx.clone());
    drop(tx);
    assert_eq!(follower.thread.join().unwrap().unwrap().pos, 596);
    log.append_raw(&[0; 596]);
    let (_tx, rx) = watch::channel(valid(2 * 596, false));
    let end = follow(&log, disk, rx).thread.join().unwrap();
    assert!(matches!(end, Err(ReplayError::Short { pos: 596, .. })));
}
