//! The way into the engine's thread and back: commands with answers, and the snapshot of its state.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use mars_core::LogName;
use mars_core::control::{Counters, LogStatus, ShimState};
use mars_core::unlogged::Regions;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Mode;
use super::worker::Job;
use crate::disk::Disk;
use crate::error::ShimError;
use crate::log_file::OpenedLog;
use crate::stage_area::StageArea;

/// Where the answer to a command goes.
pub type Reply = mpsc::Sender<Result<(), ShimError>>;

/// What the control side wants.
#[derive(Debug)]
pub enum Command {
    /// Serve this FUSE connection. Answered after INIT; a taken-over connection (`resend`) has it behind it.
    Fuse {
        /// `/dev/fuse`.
        fd: OwnedFd,
        /// Let the kernel send again what a predecessor has not answered.
        resend: bool,
        /// Answer.
        reply: Reply,
    },
    /// First log, or the first after pass-through; answered when its records are in the map.
    StartLog {
        /// The log, and newer ones that have records already; the last one is gone on with.
        logs: Vec<(LogName, OpenedLog)>,
        /// Written-back position in the first one.
        pos: u64,
        /// Answer.
        reply: Reply,
    },
    /// Go on in the next log; answered when it is in use.
    Switch {
        /// Its name.
        name: LogName,
        /// The file, empty.
        log: OpenedLog,
        /// Answer.
        reply: Reply,
    },
    /// Answered when pass-through has begun.
    PassThrough {
        /// Answer.
        reply: Reply,
    },
    /// Pass-through without a log; answered when it has begun.
    PassFrom {
        /// Directory of the logs.
        dir: PathBuf,
        /// The log that the disk stands in.
        log: LogName,
        /// Its position there.
        pos: u64,
        /// Answer.
        reply: Reply,
    },
    /// New size of the device in bytes.
    SetSize {
        /// Size.
        size_bytes: u64,
        /// Answer.
        reply: Reply,
    },
    /// Write everything back, trim the logs; answered when done.
    Drain {
        /// Answer.
        reply: Reply,
    },
    /// Make the snapshot current.
    Refresh {
        /// Answer.
        reply: Reply,
    },
    /// A trim of the worker has ended.
    Trimmed {
        /// Base of the log in the stream.
        base: u64,
        /// Error.
        result: Result<(), ShimError>,
    },
    /// The mark of pass-through is stored.
    Marked {
        /// Error.
        result: Result<(), ShimError>,
        /// The regions that the map names already; `None` without a map.
        noted: Option<Regions>,
    },
    /// Regions are noted in the map, or the map was given up.
    Noted {
        /// They.
        regions: BTreeSet<u64>,
        /// Error.
        result: Result<(), ShimError>,
    },
    /// Room in the map for a device of so many bytes; answered when tried.
    GrowMap {
        /// Directory of the logs.
        dir: PathBuf,
        /// Size.
        size_bytes: u64,
        /// Answer.
        reply: Reply,
    },
    /// End the thread.
    Exit,
}

/// State of the engine as the control side sees it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The state.
    pub state: ShimState,
    /// Open logs.
    pub logs: Vec<LogStatus>,
    /// What failed.
    pub error: Option<String>,
    /// Counters.
    pub counters: Counters,
    /// Size of the device in bytes.
    pub size_bytes: u64,
}

/// What both threads use.
#[derive(Debug)]
pub(super) struct Shared {
    commands: Mutex<VecDeque<Command>>,
    wake: EventFd,
    snapshot: Mutex<Snapshot>,
    changed: EventFd,
    resendable: AtomicBool,
    ended: AtomicBool,
}

impl Shared {
    fn new(size_bytes: u64) -> nix::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            commands: Mutex::default(),
            wake: EventFd::from_flags(flags)?,
            snapshot: Mutex::new(Snapshot {
                state: ShimState::Attached,
                logs: Vec::new(),
                error: None,
                counters: Counters::default(),
                size_bytes,
            }),
            changed: EventFd::from_flags(flags)?,
            resendable: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })
    }

    pub(super) fn send(&self, command: Command) {
        lock(&self.commands).push_back(command);
        // Full only after 2^64 wakes.
        let _ = self.wake.write(1);
    }

    pub(super) fn wake_fd(&self) -> RawFd {
        self.wake.as_fd().as_raw_fd()
    }

    pub(super) fn clear_wake(&self) {
        let _ = self.wake.read();
    }

    pub(super) fn set_resendable(&self) {
        self.resendable.store(true, Ordering::Release);
    }

    pub(super) fn set_snapshot(&self, snapshot: Snapshot) {
        *lock(&self.snapshot) = snapshot;
        let _ = self.changed.write(1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handle of the engine's thread.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    disk: Disk,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread for `disk`; at most `dirty_bytes` are kept in memory before they are written back, and log
    /// writes are staged in `area`.
    pub fn start(
        disk: Disk,
        size_bytes: u64,
        dirty_bytes: u64,
        area: StageArea,
    ) -> Result<Self, ShimError> {
        let path: PathBuf = disk.path.clone();
        let failed = |cause| ShimError::io("start the data path of", &path, cause);
        let shared = Arc::new(Shared::new(size_bytes).map_err(|e| failed(e.into()))?);
        let ours = disk.try_clone()?;
        let (ready, started) = mpsc::channel();
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("data".into())
            .spawn(move || {
                let _ended = EndMark(Arc::clone(&inner));
                match super::Engine::new(inner, disk, size_bytes, dirty_bytes, area) {
                    Ok(mut engine) => {
                        let _ = ready.send(Ok(()));
                        if let Err(e) = engine.run() {
                            tracing::error!("io_uring failed: {e}");
                        }
                    }
                    Err(e) => {
                        let _ = ready.send(Err(e));
                    }
                }
            })
            .map_err(failed)?;
        started
            .recv()
            .map_err(|_| ShimError::Invalid("the data path did not start".into()))??;
        Ok(Self {
            shared,
            disk: ours,
            thread: Some(thread),
        })
    }

    /// Sends a command; the answer arrives at the receiver.
    pub fn send(
        &self,
        command: impl FnOnce(Reply) -> Command,
    ) -> mpsc::Receiver<Result<(), ShimError>> {
        let (reply, answer) = mpsc::channel();
        self.shared.send(command(reply));
        answer
    }

    /// The latest state.
    pub fn snapshot(&self) -> Snapshot {
        lock(&self.shared.snapshot).clone()
    }

    /// Readable when the state has changed; cleared by [`Engine::clear_changed`].
    pub fn changed_fd(&self) -> BorrowedFd<'_> {
        self.shared.changed.as_fd()
    }

    /// Takes note of the change.
    pub fn clear_changed(&self) {
        let _ = self.shared.changed.read();
    }

    /// Sector size of the disk in bytes.
    pub fn sector(&self) -> u32 {
        self.disk.sector
    }

    /// Checks that the disk has room for a device of `size_bytes`.
    pub fn check_size(&self, size_bytes: u64) -> Result<(), ShimError> {
        self.disk.check_size(size_bytes)
    }

    /// Whether the kernel can resend requests to a successor.
    pub fn resendable(&self) -> bool {
        self.shared.resendable.load(Ordering::Acquire)
    }

    /// Whether the thread has ended without being told to.
    pub fn ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Ends the thread; what is in flight is awaited.
    pub fn exit(mut self) {
        self.shared.send(Command::Exit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tells the control side that the thread is gone, however it went.
struct EndMark(Arc<Shared>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        let _ = self.0.changed.write(1);
    }
}

impl super::Engine {
    /// Takes all commands that have come.
    pub(super) fn take_commands(&mut self) {
        loop {
            let Some(command) = lock(&self.shared.commands).pop_front() else {
                return;
            };
            self.take(command);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Fuse { fd, resend, reply } => self.serve_fuse(fd, resend, reply),
            Command::StartLog { logs, pos, reply } => self.start_log(logs, pos, reply),
            Command::Switch { name, log, reply } => self.switch_log(name, log, reply),
            Command::PassThrough { reply } => self.begin_pass_through(reply),
            Command::PassFrom {
                dir,
                log,
                pos: end,
                reply,
            } => self.begin_pass_from(Job::Mark { dir, log, end }, reply),
            Command::SetSize { size_bytes, reply } => {
                self.size_bytes = size_bytes;
                self.unlogged.grow(size_bytes);
                self.answer(&reply, Ok(()));
            }
            Command::Drain { reply } => self.begin_drain(reply),
            Command::Refresh { reply } => self.answer(&reply, Ok(())),
            Command::Trimmed { base, result } => self.trimmed(base, result),
            Command::Marked { result, noted } => self.drain_marked(result, noted),
            Command::Noted { regions, result } => self.noted(&regions, result),
            Command::GrowMap {
                dir,
                size_bytes,
                reply,
            } => self.worker.add(Job::GrowMap {
                dir,
                size_bytes,
                reply,
            }),
            Command::Exit => self.running = false,
        }
    }

    /// Answers a command, with a current snapshot.
    pub(super) fn answer(&mut self, reply: &Reply, result: Result<(), ShimError>) {
        self.publish_now();
        // Nobody waits any more: nothing to tell.
        let _ = reply.send(result);
    }

    /// Refuses a command that does not fit the mode.
    pub(super) fn refuse(&mut self, reply: &Reply, what: &str) {
        let mode = match &self.mode {
            Mode::Idle => "no log is open",
            Mode::Loading(_) => "a log is being loaded",
            Mode::Logging => "it is logging",
            Mode::Draining => "it is draining",
            Mode::PassThrough => "it passes writes through",
            Mode::Failed => "the disk has failed",
        };
        let why = format!("{what} is not possible now: {mode}");
        self.answer(reply, Err(ShimError::Invalid(why)));
    }
}
