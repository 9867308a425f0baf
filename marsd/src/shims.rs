//! Starts, adopts and listens to the user-space shims: one thread for each, blocking, reporting to the brain.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mars_core::control::{Attach, Message, PROTOCOL, Reply, Request, ShimState, ShimStatus, Verb};
use mars_core::{ReplayPos, ResourceName};
use mars_tree::control_socket::{ControlError, ControlSocket};
use mars_tree::unlogged::UnloggedMap;
use tokio::sync::mpsc::UnboundedSender;

use crate::brain::{Event, ShimEvent};
use crate::kmod;

/// Longest time for a shim to answer one request while it is started.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time for a new shim to listen on its socket.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What serves the devices.
#[derive(Debug, Clone)]
pub enum ShimKind {
    /// A process for each resource.
    User {
        /// The executable.
        exe: PathBuf,
    },
    /// The kernel module.
    Kmod(kmod::Home),
}

/// Where shims live and whom they report to.
#[derive(Debug, Clone)]
pub struct ShimContext {
    /// Directory of sockets and mount points.
    pub run_dir: PathBuf,
    /// What serves the devices.
    pub kind: ShimKind,
    /// Least level of messages of the shims.
    pub log_level: String,
    /// The brain.
    pub events: UnboundedSender<Event>,
}

/// What a shim is started with.
#[derive(Debug)]
pub struct StartJob {
    /// Arguments of [`Verb::Attach`].
    pub attach: Attach,
    /// Where the log goes on.
    pub from: ReplayPos,
    /// Writes go past the logs from there on.
    pub pass: bool,
    /// What is noted of earlier writes past the logs is needed by nobody any more.
    pub forget_map: bool,
    /// The `/dev/fuse` descriptor of a killed predecessor.
    pub fuse: Option<OwnedFd>,
    /// MiB that it may hold before it must write back; `None`: its own default.
    pub dirty_mib: Option<u64>,
}

/// Path of the control socket of a resource.
pub fn socket_path(run_dir: &Path, res: &ResourceName) -> PathBuf {
    run_dir.join(format!("shim-{res}.sock"))
}

impl ShimContext {
    /// Resources whose shims an earlier marsd may have left running.
    pub fn left_running(&self) -> Vec<ResourceName> {
        match &self.kind {
            ShimKind::User { .. } => self.sockets(),
            ShimKind::Kmod(home) => kmod::running(home).unwrap_or_else(|e| {
                tracing::error!("{e}");
                Vec::new()
            }),
        }
    }

    fn sockets(&self) -> Vec<ResourceName> {
        let entries = std::fs::read_dir(&self.run_dir)
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let res = name.strip_prefix("shim-")?.strip_suffix(".sock")?;
                ResourceName::new(res).ok()
            })
            .collect()
    }

    /// Starts a shim in a thread; all that comes of it is reported with `generation`.
    pub fn start(&self, res: ResourceName, generation: u64, job: StartJob) {
        let ctx = self.clone();
        self.thread(res.clone(), generation, move || {
            if job.forget_map {
                forget_map(Path::new(&job.attach.log_dir));
            }
            let mut link = match &ctx.kind {
                ShimKind::User { exe } => {
                    ctx.spawn_process(exe, &res, job.dirty_mib)
                        .map_err(|e| format!("start {}: {e}", exe.display()))?;
                    Link::connect(&ctx, &res, generation, LISTEN_TIMEOUT)?
                }
                ShimKind::Kmod(home) => {
                    Link::to_kmod(&ctx, home, (&res, job.dirty_mib), generation)?
                }
            };
            let status = link.begin(job)?;
            Ok((link, status))
        });
    }

    /// Connects to a shim that an earlier marsd started; reports [`ShimEvent::Failed`] if none answers.
    pub fn adopt(&self, res: ResourceName, generation: u64) {
        let ctx = self.clone();
        self.thread(res.clone(), generation, move || {
            let mut link = match &ctx.kind {
                ShimKind::User { .. } => Link::connect(&ctx, &res, generation, Duration::ZERO)?,
                ShimKind::Kmod(home) => Link::to_kmod(&ctx, home, (&res, None), generation)?,
            };
            let status = link.greet()?;
            Ok((link, status))
        });
    }

    fn thread(
        &self,
        res: ResourceName,
        generation: u64,
        open: impl FnOnce() -> Result<(Link, ShimStatus), String> + Send + 'static,
    ) {
        let events = self.events.clone();
        let name = format!("shim-{res}");
        let failed_res = res.clone();
        let report = events.clone();
        let spawned = std::thread::Builder::new()
            .name(name)
            .spawn(move || match open() {
                Ok((link, status)) => {
                    let up = ShimEvent::Up(link.socket.clone(), status);
                    let _ = events.send(Event::Shim(res.clone(), generation, up));
                    link.listen();
                    let _ = events.send(Event::Shim(res, generation, ShimEvent::Gone));
                }
                Err(why) => {
                    let _ = events.send(Event::Shim(res, generation, ShimEvent::Failed(why)));
                }
            });
        if let Err(e) = spawned {
            let failed = ShimEvent::Failed(format!("start a thread: {e}"));
            let _ = report.send(Event::Shim(failed_res, generation, failed));
        }
    }

    /// The process outlives this one: it has a session of its own and keeps nothing of ours but stderr.
    fn spawn_process(
        &self,
        exe: &Path,
        res: &ResourceName,
        dirty_mib: Option<u64>,
    ) -> io::Result<()> {
        let mut command = Command::new(exe);
        command
            .arg("--resource")
            .arg(res.as_str())
            .arg("--run-dir")
            .arg(&self.run_dir)
            .arg("--log-level")
            .arg(&self.log_level);
        if let Some(mib) = dirty_mib {
            command.arg("--dirty-mib").arg(mib.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: setsid is async-signal-safe and touches no memory of this process.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
        }
        let mut child = command.spawn()?;
        std::thread::Builder::new()
            .name(format!("reap-{res}"))
            .spawn(move || child.wait())?;
        Ok(())
    }
}

/// Lets a shim that has its disk begin at `from`, with `pass` past the logs.
pub fn beginning(from: ReplayPos, pass: bool) -> Verb {
    let (log, pos) = (from.log, from.pos);
    if pass {
        Verb::PassFrom { log, pos }
    } else {
        Verb::Log { log, pos }
    }
}

/// Empties the map of what was written past the logs, while no shim owns it.
fn forget_map(dir: &Path) {
    let cleared = UnloggedMap::load(dir).and_then(|map| match map {
        Some(mut map) => map.clear(),
        None => Ok(()),
    });
    if let Err(e) = cleared {
        tracing::warn!("{e}");
    }
}

struct Link {
    socket: Arc<ControlSocket>,
    res: ResourceName,
    generation: u64,
    events: UnboundedSender<Event>,
    next_id: u64,
}

impl Link {
    fn connect(
        ctx: &ShimContext,
        res: &ResourceName,
        generation: u64,
        wait: Duration,
    ) -> Result<Self, String> {
        let path = socket_path(&ctx.run_dir, res);
        let deadline = Instant::now() + wait;
        let socket = loop {
            match ControlSocket::connect(&path) {
                Ok(socket) => break socket,
                Err(e) if Instant::now() >= deadline => return Err(e.to_string()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        Self::over(socket, ctx, res, generation)
    }

    fn to_kmod(
        ctx: &ShimContext,
        home: &kmod::Home,
        (res, dirty_mib): (&ResourceName, Option<u64>),
        generation: u64,
    ) -> Result<Self, String> {
        let socket = kmod::connect(home, res, dirty_mib).map_err(|e| e.to_string())?;
        Self::over(socket, ctx, res, generation)
    }

    fn over(
        socket: ControlSocket,
        ctx: &ShimContext,
        res: &ResourceName,
        generation: u64,
    ) -> Result<Self, String> {
        socket
            .set_timeout(Some(ANSWER_TIMEOUT))
            .map_err(|e| e.to_string())?;
        let (events, res) = (ctx.events.clone(), res.clone());
        Ok(Self {
            socket: Arc::new(socket),
            res,
            generation,
            events,
            next_id: 1,
        })
    }

    fn greet(&mut self) -> Result<ShimStatus, String> {
        self.ask(Verb::Hello { protocol: PROTOCOL }, None)
    }

    /// Gives the disk, and the device that is held, to a shim, unless a try before has, and tells it the log.
    fn begin(&mut self, job: StartJob) -> Result<ShimStatus, String> {
        let found = self.greet()?.state;
        let fuse = job.fuse.as_ref();
        let attached = if fuse.is_some() && found == ShimState::Attached {
            Ok(())
        } else {
            self.ask(Verb::Attach(job.attach), fuse).map(drop)
        };
        let is_attached = attached.is_ok();
        let begun = attached.and_then(|()| self.ask(beginning(job.from, job.pass), None));
        if begun.is_err() && found == ShimState::Idle && !(is_attached && fuse.is_some()) {
            // The next try is to find none that has half begun, unless that has taken the device over.
            let _ = self.ask(Verb::Stop, None);
        }
        begun
    }

    fn ask(&mut self, verb: Verb, fd: Option<&OwnedFd>) -> Result<ShimStatus, String> {
        let id = self.next_id;
        self.next_id += 1;
        let what = format!("{verb:?}");
        self.socket
            .send(&Request { id, verb }, fd.map(AsFd::as_fd))
            .map_err(|e| e.to_string())?;
        loop {
            match self.socket.recv() {
                Ok((Message::Reply(Reply { id: got, result }), _)) if got == id => {
                    return result.map_err(|refusal| refusal.to_string());
                }
                Ok((message, fd)) => self.report(message, fd),
                Err(e) => return Err(format!("{what}: {e}")),
            }
        }
    }

    fn listen(&self) {
        if self.socket.set_timeout(None).is_err() {
            return;
        }
        loop {
            match self.socket.recv() {
                Ok((message, fd)) => self.report(message, fd),
                Err(ControlError::TimedOut { .. }) => {}
                Err(ControlError::Closed { .. }) => return,
                Err(e) => {
                    tracing::warn!(resource = %self.res, "shim connection: {e}");
                    return;
                }
            }
        }
    }

    fn report(&self, message: Message, fd: Option<OwnedFd>) {
        let event = match (message, fd) {
            (Message::Reply(reply), _) => ShimEvent::Reply(reply.id, reply.result),
            (Message::Status(status), _) => ShimEvent::Status(status),
            (Message::Hold(resume), Some(fd)) => ShimEvent::Hold(resume, fd),
            (Message::Hold(_), None) => return,
        };
        let _ = self
            .events
            .send(Event::Shim(self.res.clone(), self.generation, event));
    }
}

/// Ids of requests sent by the brain begin here, above those of the start.
pub const FIRST_BRAIN_ID: u64 = 1000;
