//! Carries out the verbs of marsd, in the order in which the parts must come and go.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use mars_core::LogName;
use mars_core::ResourceName;
use mars_core::control::{Attach, Counters, PROTOCOL, Resume, ShimState, ShimStatus, Verb};

use crate::disk::Disk;
use crate::engine::{Command, EngineHandle, Reply};
use crate::error::ShimError;
use crate::fuse_mount;
use crate::log_file::{cut_log, open_chain, open_new};
use crate::loop_device::{LoopDevice, release_stale};
use crate::stage_area::StageArea;
use crate::users::find_users;
use mars_tree::passed::{load_passed, prepare_passed};
use mars_tree::unlogged::UnloggedMap;

/// Interval in which status is sent while a verb is carried out.
const TICK: Duration = Duration::from_millis(5);
/// How long a user may need to go away (udev looks at every device for a moment).
const USER_PATIENCE: Duration = Duration::from_millis(400);

/// Called now and then while a verb takes long.
pub type Tick<'a> = &'a mut dyn FnMut(&ShimStatus);

struct Attached {
    args: Attach,
    engine: EngineHandle,
    /// The log of the records that a predecessor has left in the stage.
    staged: Option<LogName>,
    /// The FUSE connection of a predecessor that is not served yet.
    inherited: Option<OwnedFd>,
    /// The served device.
    served: Option<Served>,
}

struct Served {
    fuse: OwnedFd,
    device: LoopDevice,
}

/// What this process serves.
pub struct Service {
    resource: ResourceName,
    mount_point: PathBuf,
    stage_path: PathBuf,
    dirty_bytes: u64,
    attached: Option<Attached>,
    stopped: bool,
}

impl Service {
    /// Nothing is attached yet. Sockets and mount points are in `run_dir`.
    pub fn new(resource: &ResourceName, run_dir: &Path, dirty_bytes: u64) -> Self {
        Self {
            resource: resource.clone(),
            mount_point: run_dir.join(format!("fuse-{resource}")),
            stage_path: run_dir.join(format!("stage-{resource}")),
            dirty_bytes,
            attached: None,
            stopped: false,
        }
    }

    /// Whether [`Verb::Stop`] was carried out.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a device is served.
    pub fn serving(&self) -> bool {
        self.attached.as_ref().is_some_and(|a| a.served.is_some())
    }

    /// Readable when the status has changed.
    pub fn changed_fd(&self) -> Option<BorrowedFd<'_>> {
        self.attached.as_ref().map(|a| a.engine.changed_fd())
    }

    /// Takes note of the change; an error if the data path has died.
    pub fn clear_changed(&self) -> Result<(), ShimError> {
        let Some(attached) = &self.attached else {
            return Ok(());
        };
        attached.engine.clear_changed();
        if attached.engine.ended() {
            return Err(ShimError::Invalid("the data path has ended".into()));
        }
        Ok(())
    }

    /// What a client must hold so that a successor can take the device over.
    pub fn hold(&self) -> Option<(Resume, BorrowedFd<'_>)> {
        let attached = self.attached.as_ref()?;
        let served = attached.served.as_ref()?;
        if !attached.engine.resendable() {
            return None;
        }
        let loop_device = served.device.path.display().to_string();
        Some((Resume { loop_device }, served.fuse.as_fd()))
    }

    /// The status.
    pub fn status(&self) -> ShimStatus {
        let Some(attached) = &self.attached else {
            return ShimStatus {
                state: ShimState::Idle,
                device: None,
                size_bytes: 0,
                logs: Vec::new(),
                error: None,
                counters: Counters::default(),
            };
        };
        let snapshot = attached.engine.snapshot();
        ShimStatus {
            state: snapshot.state,
            device: attached
                .served
                .is_some()
                .then(|| attached.args.device.clone()),
            size_bytes: snapshot.size_bytes,
            logs: snapshot.logs,
            error: snapshot.error,
            counters: snapshot.counters,
        }
    }

    /// Carries out `verb`; `fd` came beside it.
    pub fn carry_out(
        &mut self,
        verb: &Verb,
        fd: Option<OwnedFd>,
        tick: Tick<'_>,
    ) -> Result<ShimStatus, ShimError> {
        match verb {
            Verb::Hello { protocol } if *protocol != PROTOCOL => {
                return Err(ShimError::Invalid(format!(
                    "this shim speaks control protocol {PROTOCOL}, marsd speaks {protocol}"
                )));
            }
            Verb::Hello { .. } => {}
            Verb::Status => {
                if self.attached.is_some() {
                    self.command(tick, |reply| Command::Refresh { reply })?;
                }
            }
            Verb::Attach(args) => self.attach(args, fd)?,
            Verb::Log { log, pos } => self.log(log, *pos, tick)?,
            Verb::PassThrough { on: true } => {
                self.command(tick, |reply| Command::PassThrough { reply })?;
                self.serve(tick)?;
            }
            Verb::PassFrom { log, pos } => self.pass_from(log, *pos, tick)?,
            // The next Log verb goes back to logging.
            Verb::PassThrough { on: false } => {
                self.need_attached()?;
            }
            Verb::Resize { size_bytes } => self.resize(*size_bytes, tick)?,
            Verb::Stop => return self.stop(tick),
        }
        Ok(self.status())
    }

    fn need_attached(&self) -> Result<&Attached, ShimError> {
        self.attached
            .as_ref()
            .ok_or_else(|| ShimError::Invalid("nothing is attached: send attach first".into()))
    }

    /// Sends a command and waits for its answer, telling the status meanwhile.
    fn command(
        &self,
        tick: Tick<'_>,
        make: impl FnOnce(Reply) -> Command,
    ) -> Result<(), ShimError> {
        let attached = self.need_attached()?;
        let answer: Receiver<Result<(), ShimError>> = attached.engine.send(make);
        let mut last = None;
        loop {
            match answer.recv_timeout(TICK) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {
                    let status = self.status();
                    if last.as_ref() != Some(&status) {
                        tick(&status);
                        last = Some(status);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ShimError::Invalid("the data path has ended".into()));
                }
            }
            if attached.engine.ended() {
                return Err(ShimError::Invalid("the data path has ended".into()));
            }
        }
    }

    fn attach(&mut self, args: &Attach, fd: Option<OwnedFd>) -> Result<(), ShimError> {
        if self.attached.is_some() {
            return Err(ShimError::Invalid("a disk is attached already".into()));
        }
        if args.resource != self.resource {
            return Err(ShimError::Invalid(format!(
                "this shim serves resource {}, not {}",
                self.resource, args.resource
            )));
        }
        if args.resume.is_some() != fd.is_some() {
            return Err(ShimError::Invalid(
                "a resume needs the /dev/fuse descriptor beside it, and only a resume does".into(),
            ));
        }
        let disk = Disk::open(Path::new(&args.disk), args.size_bytes)?;
        if let Some(resume) = &args.resume {
            // Refuses early: without its device there is nothing to resume.
            LoopDevice::adopt(Path::new(&resume.loop_device), &self.mount_point)?;
        } else {
            release_stale(&self.mount_point);
            fuse_mount::unmount(&self.mount_point)?;
        }
        let area = StageArea::open(&self.stage_path)?;
        let staged = area.log();
        let engine = EngineHandle::start(disk, args.size_bytes, self.dirty_bytes, area)?;
        self.attached = Some(Attached {
            args: args.clone(),
            engine,
            staged,
            inherited: fd,
            served: None,
        });
        Ok(())
    }

    fn log(&mut self, name: &LogName, pos: u64, tick: Tick<'_>) -> Result<(), ShimError> {
        let attached = self.need_attached()?;
        let snapshot = attached.engine.snapshot();
        let dir = Path::new(&attached.args.log_dir);
        let path = dir.join(name.to_string());
        let state = snapshot.state;
        if state == ShimState::Logging {
            self.check_next(name, pos, &snapshot.logs)?;
        } else if !matches!(state, ShimState::Attached | ShimState::PassThrough) {
            return Err(ShimError::Invalid(format!(
                "logging cannot begin in state {state:?}"
            )));
        }
        if state == ShimState::Logging {
            let log = open_new(&path, snapshot.size_bytes)?;
            let name = name.clone();
            return self.command(tick, |reply| Command::Switch { name, log, reply });
        }
        prepare_passing(dir, snapshot.size_bytes);
        if state != ShimState::Attached {
            let log = open_new(&path, snapshot.size_bytes)?;
            let logs = vec![(name.clone(), log)];
            return self.command(tick, |reply| Command::StartLog {
                logs,
                pos: 0,
                reply,
            });
        }
        let mark = load_passed(dir, name)?;
        if let Some((marked, end)) = &mark {
            cut_log(&dir.join(marked.to_string()), *end)?;
        }
        let staged = attached.staged.as_ref().filter(|_| mark.is_none());
        let (name, pos) = mark.as_ref().map_or((name, pos), |(log, end)| (log, *end));
        let logs = open_chain(dir, name, pos, staged, snapshot.size_bytes)?;
        self.command(tick, |reply| Command::StartLog { logs, pos, reply })?;
        if mark.is_some() {
            tracing::warn!(
                "writes behind {name} byte {pos} are in no log: passing through until a new log is begun"
            );
            self.command(tick, |reply| Command::PassThrough { reply })?;
        }
        self.serve(tick)
    }

    /// Serves the device without a log.
    fn pass_from(&mut self, log: &LogName, pos: u64, tick: Tick<'_>) -> Result<(), ShimError> {
        let attached = self.need_attached()?;
        let snapshot = attached.engine.snapshot();
        let dir = PathBuf::from(&attached.args.log_dir);
        if snapshot.state != ShimState::Attached {
            let why = format!("passing by cannot begin in state {:?}", snapshot.state);
            return Err(ShimError::Invalid(why));
        }
        prepare_passing(&dir, snapshot.size_bytes);
        let log = log.clone();
        self.command(tick, |reply| Command::PassFrom {
            dir,
            log,
            pos,
            reply,
        })?;
        self.serve(tick)
    }

    fn check_next(
        &self,
        name: &LogName,
        pos: u64,
        logs: &[mars_core::control::LogStatus],
    ) -> Result<(), ShimError> {
        let current = logs.last().map_or(0, |l| l.log.seq);
        if name.seq != current + 1 || pos != 0 {
            return Err(ShimError::Invalid(format!(
                "log {current} is in use: the next one must be {} at position 0, not {name} at {pos}",
                current + 1
            )));
        }
        if logs.iter().filter(|l| !l.complete).count() > 1 {
            return Err(ShimError::Invalid(
                "two logs are open: the older one must be written back first".into(),
            ));
        }
        Ok(())
    }

    /// Makes the device, or takes the one of the predecessor over.
    fn serve(&mut self, tick: Tick<'_>) -> Result<(), ShimError> {
        let attached = self.need_attached()?;
        if attached.served.is_some() {
            return Ok(());
        }
        let node = PathBuf::from(&attached.args.device);
        let served = if attached.inherited.is_some() {
            self.serve_inherited(tick)?
        } else {
            self.serve_new(tick)?
        };
        served.device.make_node(&node)?;
        served.device.announce(&node);
        if let Some(attached) = &mut self.attached {
            attached.served = Some(served);
        }
        Ok(())
    }

    fn serve_inherited(&mut self, tick: Tick<'_>) -> Result<Served, ShimError> {
        let Some(attached) = &mut self.attached else {
            return Err(ShimError::Invalid("nothing is attached".into()));
        };
        let (Some(fuse), Some(resume)) = (&attached.inherited, &attached.args.resume) else {
            return Err(ShimError::Invalid("there is nothing to resume".into()));
        };
        let device = LoopDevice::adopt(Path::new(&resume.loop_device), &self.mount_point)?;
        let fuse = duplicate(fuse)?;
        let fd = duplicate(&fuse)?;
        self.command(tick, |reply| Command::Fuse {
            fd,
            resend: true,
            reply,
        })?;
        if let Some(attached) = &mut self.attached {
            attached.inherited = None;
        }
        Ok(Served { fuse, device })
    }

    fn serve_new(&mut self, tick: Tick<'_>) -> Result<Served, ShimError> {
        let mount = fuse_mount::mount_file(&self.mount_point, self.resource.as_str())?;
        let bound = self.bind(&mount.fd, tick);
        match bound {
            Ok(device) => Ok(Served {
                fuse: mount.fd,
                device,
            }),
            Err(e) => {
                if let Err(again) = fuse_mount::unmount(&self.mount_point) {
                    tracing::warn!("{again}");
                }
                Err(e)
            }
        }
    }

    fn bind(&self, fuse: &OwnedFd, tick: Tick<'_>) -> Result<LoopDevice, ShimError> {
        let fd = duplicate(fuse)?;
        self.command(tick, |reply| Command::Fuse {
            fd,
            resend: false,
            reply,
        })?;
        let file = fuse_mount::open_file(&self.mount_point)?;
        let sector = self.need_attached()?.engine.sector();
        LoopDevice::bind(&file, &self.mount_point, sector)
    }

    fn resize(&mut self, size_bytes: u64, tick: Tick<'_>) -> Result<(), ShimError> {
        let attached = self.need_attached()?;
        let now = attached.engine.snapshot().size_bytes;
        if size_bytes < now {
            return Err(ShimError::Invalid(format!(
                "the device has {now} bytes and cannot shrink to {size_bytes}"
            )));
        }
        attached.engine.check_size(size_bytes)?;
        let dir = PathBuf::from(&attached.args.log_dir);
        self.command(tick, |reply| Command::GrowMap {
            dir,
            size_bytes,
            reply,
        })?;
        self.command(tick, |reply| Command::SetSize { size_bytes, reply })?;
        let Some(served) = self.attached.as_ref().and_then(|a| a.served.as_ref()) else {
            return Ok(());
        };
        let file = fuse_mount::open_file(&self.mount_point)?;
        file.set_len(size_bytes)
            .map_err(|e| ShimError::io("resize", &self.mount_point, e))?;
        served.device.update_size()
    }

    fn stop(&mut self, tick: Tick<'_>) -> Result<ShimStatus, ShimError> {
        if self.attached.is_some() {
            self.remove_device()?;
            self.command(tick, |reply| Command::Drain { reply })?;
        }
        let mut status = self.status();
        status.device = None;
        if let Some(attached) = self.attached.take() {
            if let Err(e) = fuse_mount::unmount(&self.mount_point) {
                tracing::warn!("{e}");
            }
            attached.engine.exit();
            // Best effort: an unused mount point harms nobody.
            let _ = std::fs::remove_file(&self.mount_point);
            let _ = std::fs::remove_file(&self.stage_path);
        }
        self.stopped = true;
        Ok(status)
    }

    /// Lets the block device disappear, unless somebody uses it.
    fn remove_device(&mut self) -> Result<(), ShimError> {
        let Some(attached) = &mut self.attached else {
            return Ok(());
        };
        let Some(served) = &attached.served else {
            return Ok(());
        };
        let node = PathBuf::from(&attached.args.device);
        let busy = |by: &[String]| ShimError::Busy {
            device: node.display().to_string(),
            by: by.join(", "),
        };
        let claim = claim(&served.device, &node).map_err(|by| busy(&by))?;
        match std::fs::remove_file(&node) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(ShimError::io("remove", &node, e)),
        }
        served.device.release(&claim)?;
        // With the last descriptor the device goes. If somebody has opened it meanwhile, it stays until then, and
        // so do we.
        drop(claim);
        if gone(&served.device)? {
            served.device.forget();
            attached.served = None;
            return Ok(());
        }
        served.device.make_node(&node)?;
        let mut users = find_users(&served.device, &node);
        if users.is_empty() {
            users.push("an unknown process".into());
        }
        Err(busy(&users))
    }
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, ShimError> {
    fd.try_clone()
        .map_err(|e| ShimError::io("duplicate", Path::new("/dev/fuse"), e))
}

/// Opens the device exclusively when nobody uses it; else tells who does.
fn claim(device: &LoopDevice, node: &Path) -> Result<File, Vec<String>> {
    let deadline = Instant::now() + USER_PATIENCE;
    loop {
        let mut users = find_users(device, node);
        if users.is_empty() {
            match device.open(libc::O_EXCL) {
                Ok(file) => return Ok(file),
                Err(e) => users.push(format!("the kernel ({e})")),
            }
        }
        if Instant::now() >= deadline {
            return Err(users);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the device has gone; if it has not, the order to go is taken back.
fn gone(device: &LoopDevice) -> Result<bool, ShimError> {
    let deadline = Instant::now() + USER_PATIENCE;
    while Instant::now() < deadline {
        if !device.is_ours() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(!device.keep()?)
}

/// Makes what pass-through needs, while there is room. Without room for it logging may still go well.
fn prepare_passing(dir: &Path, size_bytes: u64) {
    let prepared =
        prepare_passed(dir).and_then(|()| UnloggedMap::prepare(dir, size_bytes).map(drop));
    if let Err(e) = prepared {
        tracing::warn!("{e}; if writes have to go past the logs, all will count as written");
    }
}
