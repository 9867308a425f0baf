//! The data path of one resource: one thread, one io_uring; everything that happens to a request happens here.
//!
//! [`Engine::run`] waits for completions and lets each part go on as far as it can: the intake of FUSE requests
//! (`intake`), the staging of writes (`write`), reads (`read`), the log (`log`), durability (`sync`), write-back
//! (`writeback`), pass-through (`pass`), loading after a restart (`load`). No part waits for another: what cannot go
//! on now is tried again after the next completion.

mod command;
mod intake;
mod load;
mod log;
mod pass;
mod publish;
mod read;
mod ring;
mod sync;
mod unlogged;
mod worker;
mod write;
mod writeback;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mars_core::control::Counters;

pub use command::{Command, Engine as EngineHandle, Reply, Snapshot};

use crate::disk::Disk;
use crate::error::ShimError;
use crate::map::{DirtyMap, PAGE, Run, Slot};
use crate::memory::{BufferPool, Memory};
use crate::stage_area::StageArea;
use command::Shared;
use load::Loader;
use log::LogState;
use pass::{Drain, Pass};
use read::JobTable;
use ring::{Op, Ring};
use write::{Ack, PendingWrite, ZeroJob};
use writeback::{Pace, Round};

/// Longest wait when nothing is due.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What the engine does with requests.
#[derive(Debug)]
enum Mode {
    /// No log yet: nothing is taken in.
    Idle,
    /// A log is taken into the map; nothing is taken in.
    Loading(Box<Loader>),
    /// Writes go to the log.
    Logging,
    /// The map is drained before pass-through; nothing is taken in.
    Draining,
    /// Writes go to the disk.
    PassThrough,
    /// The disk failed: every request is answered with EIO.
    Failed,
}

/// The FUSE connection.
#[derive(Debug)]
struct Fuse {
    fd: OwnedFd,
    /// There may be requests to read.
    readable: bool,
    /// Waits for INIT.
    ready: Option<Reply>,
    /// The connection was ended.
    gone: bool,
}

/// The data path; see the module.
struct Engine {
    ring: Ring,
    shared: Arc<Shared>,
    worker: worker::Worker,
    now: Instant,
    running: bool,

    mode: Mode,
    error: Option<String>,
    counters: Counters,
    published: publish::Published,

    fuse: Option<Fuse>,
    pending: Option<PendingWrite>,
    /// Until then the next request is looked for without sleeping.
    poll_until: Instant,
    zeroes: VecDeque<ZeroJob>,
    acks: VecDeque<Ack>,
    /// Flushes that wait until the stream is durable up to a position.
    flushes: Vec<(u64, u64)>,

    disk: Disk,
    size_bytes: u64,
    map: DirtyMap,
    slots: Memory,
    runs: Vec<Run>,

    pool: BufferPool,
    jobs: JobTable,
    waiting_reads: VecDeque<read::ReadRequest>,

    log: LogState,
    round: Option<Round>,
    pace: Pace,
    dirty_since: Option<Instant>,
    /// A writer waits for memory.
    starved: bool,

    pass: Pass,
    unlogged: unlogged::Unlogged,
    drain: Option<Drain>,
}

impl Engine {
    fn new(
        shared: Arc<Shared>,
        disk: Disk,
        size_bytes: u64,
        dirty_bytes: u64,
        area: StageArea,
    ) -> Result<Self, ShimError> {
        let failed =
            |cause: std::io::Error| ShimError::io("prepare the data path of", &disk.path, cause);
        let slot_count = Slot::try_from((dirty_bytes / PAGE).max(1024))
            .map_err(|_| ShimError::Invalid(format!("{dirty_bytes} dirty bytes are too many")))?;
        let mut ring = Ring::new().map_err(failed)?;
        ring.poll(Op::Wake, shared.wake_fd());
        ring.pin(area.buffers());
        let memory = |len: usize| Memory::new(len).map_err(|e| failed(e.into()));
        Ok(Self {
            ring,
            worker: worker::Worker::start(Arc::clone(&shared)).map_err(failed)?,
            shared,
            now: Instant::now(),
            running: true,
            mode: Mode::Idle,
            error: None,
            counters: Counters::default(),
            published: publish::Published::default(),
            fuse: None,
            pending: None,
            poll_until: Instant::now(),
            zeroes: VecDeque::new(),
            acks: VecDeque::new(),
            flushes: Vec::new(),
            size_bytes,
            map: DirtyMap::new(slot_count),
            slots: memory(slot_count as usize * 4096)?,
            runs: Vec::new(),
            pool: BufferPool::new().map_err(|e| failed(e.into()))?,
            jobs: JobTable::default(),
            waiting_reads: VecDeque::new(),
            log: LogState::new(area).map_err(|e| failed(e.into()))?,
            round: None,
            pace: Pace::new(Instant::now()),
            dirty_since: None,
            starved: false,
            pass: Pass::default(),
            unlogged: unlogged::Unlogged::default(),
            drain: None,
            disk,
        })
    }

    /// Serves until [`Command::Exit`].
    fn run(&mut self) -> std::io::Result<()> {
        while self.running {
            let wait = if self.work_left() {
                Duration::ZERO
            } else {
                self.until_next_deadline()
            };
            self.ring.enter(wait)?;
            self.now = Instant::now();
            while let Some((op, result, more)) = self.ring.next_completion() {
                self.complete(op, result, more);
            }
            self.go_on();
        }
        // What is still in flight uses our memory.
        while self.ring.in_flight() > 0 {
            self.ring.enter(WAIT_MAX)?;
            while self.ring.next_completion().is_some() {}
        }
        Ok(())
    }

    fn complete(&mut self, op: Op, result: i32, more: bool) {
        match op {
            Op::Wake => {
                self.shared.clear_wake();
                if !more {
                    self.ring.poll(Op::Wake, self.shared.wake_fd());
                }
                self.take_commands();
            }
            Op::FusePoll => self.fuse_ready(more),
            Op::LogWrite => self.log_written(result),
            Op::ZeroAhead => self.zero_ahead_done(result),
            Op::LogSync => self.log_synced(result),
            Op::DiskWrite(run) => self.run_written(run, result),
            Op::DiskSync => self.round_flushed(result),
            Op::Job(job) => self.job_done(job, result),
            Op::PassZero => self.pass_zero_done(result),
            Op::PassSync => self.pass_synced(result),
        }
    }

    fn go_on(&mut self) {
        self.pump_loading();
        // The next log write starts before the answers of the last one are given.
        self.pump_log();
        self.release_acks();
        self.pump_reads();
        self.pump_intake();
        self.pump_zeroes();
        self.pump_log();
        self.pump_writeback();
        self.pump_release();
        self.pump_sync();
        self.pump_unlogged();
        self.pump_pass();
        self.pump_drain();
        self.pump_trims();
        self.publish();
    }

    /// Whether something can go on without waiting for a completion.
    fn work_left(&self) -> bool {
        let requests = self.fuse.as_ref().is_some_and(|f| f.readable) && self.intake_open();
        requests || self.loading_ready() || self.zeroes_ready()
    }

    fn until_next_deadline(&self) -> Duration {
        let due = [
            self.publish_due(),
            self.sync_due(),
            self.writeback_due(),
            self.trim_due(),
            self.release_due(),
        ];
        let now = Instant::now();
        due.into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(now))
            .min()
            .unwrap_or(WAIT_MAX)
            .min(WAIT_MAX)
    }

    /// The disk does not take what it must take: no request can be answered honestly any more.
    fn disk_failed(&mut self, operation: &'static str, errno: i32) {
        if matches!(self.mode, Mode::Failed) {
            return;
        }
        let cause = std::io::Error::from_raw_os_error(errno);
        let text = format!("{operation} {}: {cause}", self.disk.path.display());
        tracing::error!("{text}; the device answers with I/O errors, the data is kept in the log");
        self.error = Some(text);
        self.mode = Mode::Failed;
        self.fail_requests();
    }
}
