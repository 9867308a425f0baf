//! Carries out the verbs of marsd for one resource, and tells what changes.

mod begin;
mod node;
mod outbox;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mars_core::ResourceName;
use mars_core::control::{Attach, PROTOCOL, Refusal, Reply, ShimState, ShimStatus, Verb};
use mars_kmod_core::abi::{self, state};
use mars_kmod_core::client::Control;
use mars_tree::TreeDir;
use mars_tree::control_socket::{ControlError, ControlSocket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::node::{find_node, remove_node};
use self::outbox::Outbox;
use super::status::shim_status;
use super::{Home, KmodError};

/// What marsd could not take is offered again after this.
const RETRY: Duration = Duration::from_millis(50);
/// Longest time for the module to write everything back.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);

/// One resource.
pub(super) struct Bridge {
    control: Control,
    socket: ControlSocket,
    home: Home,
    resource: ResourceName,
    /// Where its logs lie.
    log_dir: PathBuf,
    dirty_mib: Option<u64>,
    attach: Option<Attach>,
    /// Its number in the module, once it is attached there.
    id: Option<u64>,
    outbox: Outbox,
    stopped: bool,
}

impl Bridge {
    /// Takes the resource over if the module serves it already.
    pub(super) fn new(
        control: Control,
        socket: ControlSocket,
        home: Home,
        resource: ResourceName,
        dirty_mib: Option<u64>,
    ) -> Result<Self, KmodError> {
        let mut bridge = Self {
            control,
            socket,
            log_dir: TreeDir::new(home.env.dir.clone()).resource_dir(&resource),
            home,
            resource,
            dirty_mib,
            attach: None,
            id: None,
            outbox: Outbox::default(),
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
        let serves = self.id.is_some();
        let behind = self.outbox.has_replies() || (serves && self.outbox.needs_status());
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
        self.outbox.flush(&self.socket)?;
        if serves && (changed || self.outbox.needs_status()) {
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
        Ok(self.outbox.reply(&self.socket, Reply { id, result })?)
    }

    fn tell(&mut self) -> Result<(), KmodError> {
        let status = self.status()?;
        Ok(self.outbox.tell(&self.socket, status)?)
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

    /// Where the device node is. Of a resource that an earlier marsd has attached, the module knows only the name in
    /// its own directory.
    fn device_path(&self, status: &abi::Status) -> PathBuf {
        if let Some(attach) = &self.attach {
            return PathBuf::from(&attach.device);
        }
        find_node(&self.home.device_dir, status).unwrap_or_else(|| {
            Path::new("/dev").join(abi::text(&status.device).unwrap_or_default())
        })
    }

    fn need_id(&self) -> Result<u64, KmodError> {
        self.id
            .ok_or_else(|| KmodError::Invalid("no log was begun yet".into()))
    }

    fn find(&self) -> Result<Option<u64>, KmodError> {
        let all = self.control.all()?;
        let ours = all.iter().find(|s| {
            abi::text(&s.owner) == Some(self.home.env.host.as_str())
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
        remove_node(&self.device_path(&before), &before);
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
            let device = status.as_ref().map_or_else(
                || self.resource.to_string(),
                |s| self.device_path(s).display().to_string(),
            );
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

fn request_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Stop => "stop",
        _ => "request",
    }
}
