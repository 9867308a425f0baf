//! Carries out the verbs of marsd for one resource, and tells what changes.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mars_core::control::{Attach, Message, PROTOCOL, Refusal, Reply, ShimState, ShimStatus, Verb};
use mars_core::{HostName, LogName, ResourceName, Stamp};
use mars_kmod_core::abi::{self, state};
use mars_tree::control_socket::{ControlError, ControlSocket};
use mars_tree::passed::{prepare_passed, store_passed};
use mars_tree::unlogged::unlogged_path;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::recover::{open_log, recover};
use super::status::shim_status;
use super::{Control, KmodError};

/// A status that marsd could not take is sent again after this.
const RETRY: Duration = Duration::from_millis(50);
/// Longest time for the module to write everything back.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);
/// Names tried for a device: nodes that share one kernel all want that of the resource.
const NAMES: u32 = 64;

/// One resource.
pub(super) struct Bridge {
    control: Control,
    socket: ControlSocket,
    owner: HostName,
    resource: ResourceName,
    dirty_mib: Option<u64>,
    attach: Option<Attach>,
    /// Its number in the module, once it is attached there.
    id: Option<u64>,
    /// What was told last.
    told: Option<ShimStatus>,
    stopped: bool,
}

impl Bridge {
    /// Takes the resource over if the module serves it already.
    pub(super) fn new(
        control: Control,
        socket: ControlSocket,
        owner: HostName,
        resource: ResourceName,
        dirty_mib: Option<u64>,
    ) -> Result<Self, KmodError> {
        let mut bridge = Self {
            control,
            socket,
            owner,
            resource,
            dirty_mib,
            attach: None,
            id: None,
            told: None,
            stopped: false,
        };
        bridge.id = bridge.find()?;
        Ok(bridge)
    }

    /// Serves until marsd goes away or the resource is stopped.
    pub(super) fn run(&mut self) {
        while !self.stopped {
            match self.serve_once() {
                Ok(()) => {}
                Err(KmodError::Socket(ControlError::Closed { .. })) => return,
                Err(e) => {
                    tracing::error!(resource = %self.resource, "{e}");
                    return;
                }
            }
        }
    }

    fn serve_once(&mut self) -> Result<(), KmodError> {
        let behind = self.id.is_some() && self.told.is_none();
        let mut fds = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = if behind {
            PollTimeout::try_from(RETRY).unwrap_or(PollTimeout::ZERO)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => {
                let path = Path::new(abi::CONTROL_DEVICE);
                return Err(KmodError::io("poll", path, e.into()));
            }
        }
        let [asked, changed] = fds.map(|fd| fd.any() == Some(true));
        if changed {
            self.control.take_changes()?;
        }
        if changed || behind {
            self.tell()?;
        }
        if asked {
            self.take_request()?;
        }
        Ok(())
    }

    fn take_request(&mut self) -> Result<(), KmodError> {
        let request = match self.socket.recv_request() {
            Ok((request, _)) => request,
            Err(ControlError::TimedOut { .. }) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let result = self
            .carry_out(&request.verb)
            .map_err(|e| self.refusal(request_name(&request.verb), e));
        let id = request.id;
        let reply = Message::Reply(Reply { id, result });
        Ok(self.socket.send_message(&reply, None)?)
    }

    /// Tells marsd the status if it is new.
    fn tell(&mut self) -> Result<(), KmodError> {
        let status = self.status()?;
        if self.told.as_ref() == Some(&status) {
            return Ok(());
        }
        let message = Message::Status(status.clone());
        match self.socket.send_message(&message, None) {
            Ok(()) => self.told = Some(status),
            Err(ControlError::TimedOut { .. }) => self.told = None,
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    fn carry_out(&mut self, verb: &Verb) -> Result<ShimStatus, KmodError> {
        match verb {
            Verb::Hello { protocol } if *protocol != PROTOCOL => {
                return Err(KmodError::Invalid(format!(
                    "control protocol {PROTOCOL} is spoken here, not {protocol}"
                )));
            }
            Verb::Hello { .. } | Verb::Status | Verb::PassThrough { on: false } => {}
            Verb::Attach(attach) => self.take_attach(attach)?,
            Verb::Log { log, pos } => self.log(log, *pos)?,
            Verb::PassFrom { log, pos } => self.pass_from(log, *pos)?,
            Verb::PassThrough { on: true } => {
                let id = self.need_id()?;
                self.control.pass_through(id)?;
                self.wait(id, |s| s.state != state::DRAINING)?;
            }
            Verb::Resize { size_bytes } => self.control.resize(self.need_id()?, *size_bytes)?,
            Verb::Stop => return self.stop(),
        }
        self.status()
    }

    fn status(&self) -> Result<ShimStatus, KmodError> {
        let Some(id) = self.id else {
            let state = match &self.attach {
                Some(_) => ShimState::Attached,
                None => ShimState::Idle,
            };
            return Ok(ShimStatus {
                state,
                device: None,
                size_bytes: self.attach.as_ref().map_or(0, |a| a.size_bytes),
                logs: Vec::new(),
                error: None,
                counters: mars_core::control::Counters::default(),
            });
        };
        let status = self.control.status(id)?;
        Ok(shim_status(&status, &self.device_path(&status)))
    }

    /// Where the device node is; after a restart of marsd the module knows its name only.
    fn device_path(&self, status: &abi::Status) -> String {
        match &self.attach {
            Some(attach) => attach.device.clone(),
            None => format!("/dev/{}", abi::text(&status.device).unwrap_or_default()),
        }
    }

    fn need_id(&self) -> Result<u64, KmodError> {
        self.id
            .ok_or_else(|| KmodError::Invalid("no log was begun yet".into()))
    }

    fn take_attach(&mut self, attach: &Attach) -> Result<(), KmodError> {
        let disk = Path::new(&attach.disk);
        let meta = fs::metadata(disk).map_err(|e| KmodError::io("open the disk", disk, e))?;
        if !meta.file_type().is_block_device() {
            return Err(KmodError::Invalid(format!(
                "{} is no block device: the kernel module needs one (losetup makes one of a file)",
                disk.display()
            )));
        }
        if let Some(id) = self.id {
            let old = self.control.status(id)?;
            if !matches!(old.state, state::ATTACHED | state::STOPPED) {
                return Err(KmodError::Invalid(format!(
                    "the kernel module serves {} already",
                    self.resource
                )));
            }
            self.control.release(id)?;
            self.id = None;
        }
        self.attach = Some(attach.clone());
        Ok(())
    }

    fn log(&mut self, log: &LogName, pos: u64) -> Result<(), KmodError> {
        let Some(attach) = self.attach.clone() else {
            return self.switch(log, &self.log_dir_of_running()?);
        };
        let dir = PathBuf::from(&attach.log_dir);
        if self.id.is_some() {
            return self.switch(log, &dir);
        }
        let disk = Path::new(&attach.disk);
        let alive = Message::Status(self.status()?);
        // marsd waits only as long as it hears something.
        let begin = recover(&dir, log, pos, (disk, attach.size_bytes), || {
            let _ = self.socket.send_message(&alive, None);
        })?;
        let id = self.attach_disk(&attach)?;
        let started = self
            .hand_over(id, &dir, &begin.log, &begin.file, (begin.end, begin.stamp))
            .and_then(|()| make_node(Path::new(&attach.device), &self.control.status(id)?));
        self.keep(id, started)?;
        if begin.passed {
            tracing::warn!(resource = %self.resource, "writes behind {} byte {} are in no log: passing through until a new log is begun", begin.log, begin.end);
            self.control.pass_through(id)?;
            self.wait(id, |s| s.state != state::DRAINING)?;
        }
        Ok(())
    }

    /// Without a log; what stands in the logs must not be applied again.
    fn pass_from(&mut self, log: &LogName, pos: u64) -> Result<(), KmodError> {
        let (Some(attach), None) = (self.attach.clone(), self.id) else {
            return Err(KmodError::Invalid(
                "passing by without a log begins only behind an attach".into(),
            ));
        };
        let dir = PathBuf::from(&attach.log_dir);
        forget_regions(&dir)?;
        prepare_passed(&dir)
            .and_then(|()| store_passed(&dir, log, pos))
            .map_err(|e| KmodError::Invalid(e.to_string()))?;
        let id = self.attach_disk(&attach)?;
        let begun = self
            .control
            .pass_through(id)
            .and_then(|()| make_node(Path::new(&attach.device), &self.control.status(id)?));
        self.keep(id, begun)
    }

    /// Keeps a resource that has begun; what never began is forgotten.
    fn keep(&mut self, id: u64, begun: Result<(), KmodError>) -> Result<(), KmodError> {
        match begun {
            Ok(()) => self.id = Some(id),
            Err(e) => {
                // Best effort.
                let _ = self.control.stop(id);
                let _ = self.control.release(id);
                return Err(e);
            }
        }
        Ok(())
    }

    /// The directory of the logs of a resource that an earlier marsd has attached.
    fn log_dir_of_running(&self) -> Result<PathBuf, KmodError> {
        let env = mars_tree::Env::from_env().map_err(|e| KmodError::Invalid(e.to_string()))?;
        Ok(mars_tree::TreeDir::new(env.dir).resource_dir(&self.resource))
    }

    fn switch(&self, log: &LogName, dir: &Path) -> Result<(), KmodError> {
        let id = self.need_id()?;
        let file = open_log(&dir.join(log.to_string()), true)?;
        self.hand_over(id, dir, log, &file, (0, mars_tree::wall_clock()))
    }

    fn hand_over(
        &self,
        id: u64,
        dir: &Path,
        log: &LogName,
        file: &File,
        (pos, stamp): (u64, Stamp),
    ) -> Result<(), KmodError> {
        prepare_passed(dir).map_err(|e| KmodError::Invalid(e.to_string()))?;
        forget_regions(dir)?;
        let mark_path = dir.join(".passed");
        let mark = File::options()
            .write(true)
            .open(&mark_path)
            .map_err(|e| KmodError::io("open", &mark_path, e))?;
        self.control.log(abi::Log {
            id,
            seq: log.seq,
            pos,
            stamp_secs: stamp.secs,
            stamp_nanos: stamp.nanos,
            log_fd: file.as_raw_fd(),
            mark_fd: mark.as_raw_fd(),
            reserved: 0,
            name: field(&log.to_string())?,
        })
    }

    fn attach_disk(&self, attach: &Attach) -> Result<u64, KmodError> {
        let path = Path::new(&attach.disk);
        let disk = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| KmodError::io("open the disk", path, e))?;
        let base = Path::new(&attach.device)
            .file_name()
            .map_or_else(|| self.resource.to_string(), |n| n.to_string_lossy().into());
        for number in 0..NAMES {
            let name = match number {
                0 => format!("mars/{base}"),
                n => format!("mars/{base}.{n}"),
            };
            let attached = self.control.attach(abi::Attach {
                id: 0,
                size_bytes: attach.size_bytes,
                dirty_max_bytes: self.dirty_mib.unwrap_or(0) << 20,
                disk_fd: disk.as_raw_fd(),
                reserved: 0,
                owner: field(self.owner.as_str())?,
                resource: field(self.resource.as_str())?,
                device: field(&name)?,
            });
            match attached {
                Err(e) if e.errno() == Some(Errno::EEXIST) && self.find()?.is_none() => {}
                other => return other,
            }
        }
        Err(KmodError::Invalid(format!(
            "all names for a device of {} are taken",
            self.resource
        )))
    }

    fn find(&self) -> Result<Option<u64>, KmodError> {
        let all = self.control.all()?;
        let ours = all.iter().find(|s| {
            abi::text(&s.owner) == Some(self.owner.as_str())
                && abi::text(&s.resource) == Some(self.resource.as_str())
        });
        Ok(ours.map(|s| s.id))
    }

    /// Waits until the status is as wanted, telling it meanwhile.
    fn wait(&mut self, id: u64, wanted: impl Fn(&abi::Status) -> bool) -> Result<(), KmodError> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while !wanted(&self.control.status(id)?) {
            if Instant::now() >= deadline {
                return Err(KmodError::Invalid(
                    "the kernel module does not come to an end with writing back".into(),
                ));
            }
            let mut fds = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
            let second = PollTimeout::try_from(Duration::from_secs(1)).unwrap_or(PollTimeout::ZERO);
            if matches!(poll(&mut fds, second), Ok(n) if n > 0) {
                self.control.take_changes()?;
            }
            self.tell()?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<ShimStatus, KmodError> {
        let Some(id) = self.id else {
            self.stopped = true;
            return self.status();
        };
        let before = self.control.status(id)?;
        if before.state != state::STOPPED {
            self.control.stop(id)?;
        }
        remove_node(Path::new(&self.device_path(&before)), &before);
        self.wait(id, |status| status.state == state::STOPPED)?;
        let mut status = self.status()?;
        status.device = None;
        self.control.release(id)?;
        self.id = None;
        self.stopped = true;
        Ok(status)
    }

    fn refusal(&self, operation: &str, error: KmodError) -> Refusal {
        if operation == "stop" && error.errno() == Some(Errno::EBUSY) {
            let status = self.id.and_then(|id| self.control.status(id).ok());
            let device = status
                .as_ref()
                .map_or_else(|| self.resource.to_string(), |s| self.device_path(s));
            let openers = status.map_or(0, |s| s.openers);
            let by = format!("open {openers} times; `fuser -vm {device}` tells by whom");
            return Refusal::Busy { device, by };
        }
        match error {
            KmodError::Io {
                operation,
                path,
                cause,
            } => Refusal::Failed {
                operation: operation.into(),
                path: path.display().to_string(),
                cause: cause.to_string(),
            },
            other => Refusal::Invalid {
                why: other.to_string(),
            },
        }
    }
}

/// The module notes no regions that it writes past the logs: what is noted there would be believed to be all.
fn forget_regions(dir: &Path) -> Result<(), KmodError> {
    match fs::remove_file(unlogged_path(dir)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(KmodError::io("remove", &unlogged_path(dir), e))
        }
        _ => Ok(()),
    }
}

fn request_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Stop => "stop",
        _ => "request",
    }
}

fn field<const N: usize>(text: &str) -> Result<[u8; N], KmodError> {
    abi::field(text).ok_or_else(|| {
        KmodError::Invalid(format!(
            "'{text}' is longer than the {} bytes that the kernel module takes",
            N - 1
        ))
    })
}

/// Makes the device node, unless the kernel did.
fn make_node(path: &Path, status: &abi::Status) -> Result<(), KmodError> {
    if is_node(path, status) {
        return Ok(());
    }
    let failed = |e: std::io::Error| KmodError::io("make the device node", path, e);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let number = makedev(status.device_major.into(), status.device_minor.into());
    let mode = Mode::from_bits_truncate(0o660);
    mknod(path, SFlag::S_IFBLK, mode, number).map_err(|e| failed(e.into()))
}

/// Removes the node if it is that of the device, which is gone; best effort, as the kernel may have done it.
fn remove_node(path: &Path, status: &abi::Status) {
    if is_node(path, status) {
        let _ = fs::remove_file(path);
    }
}

fn is_node(path: &Path, status: &abi::Status) -> bool {
    let number = makedev(status.device_major.into(), status.device_minor.into());
    fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device() && m.rdev() == number)
}
