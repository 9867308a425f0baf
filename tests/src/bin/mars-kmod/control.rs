//! The control device: one function per request.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use mars_kmod_core::abi::{self, Attach, Hello, Log, Status, Target};
use mars_tests::{Context, Result, fail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::refused;

mod request {
    //! The system calls; the numbers hold the size and direction of the argument.
    use mars_kmod_core::abi::{self, Attach, Hello, Log, Status, Target};
    nix::ioctl_readwrite_bad!(hello, abi::HELLO, Hello);
    nix::ioctl_readwrite_bad!(attach, abi::ATTACH, Attach);
    nix::ioctl_readwrite_bad!(log, abi::LOG, Log);
    nix::ioctl_readwrite_bad!(pass_through, abi::PASS_THROUGH, Target);
    nix::ioctl_readwrite_bad!(resize, abi::RESIZE, Target);
    nix::ioctl_readwrite_bad!(status, abi::STATUS, Status);
    nix::ioctl_readwrite_bad!(next, abi::NEXT, Status);
    nix::ioctl_readwrite_bad!(stop, abi::STOP, Target);
    nix::ioctl_readwrite_bad!(release, abi::RELEASE, Target);
}

/// The control device, after the greeting.
pub(crate) struct Control {
    file: File,
    version: String,
}

impl Control {
    pub(crate) fn open() -> Result<Self> {
        let path = abi::CONTROL_DEVICE;
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .context(format!("open {path} (is the module loaded?)"))?;
        let mut hello = Hello {
            abi: abi::ABI_VERSION,
            reserved: 0,
            module_version: [0; 32],
        };
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::hello(file.as_raw_fd(), &raw mut hello) }
            .map_err(|e| refused("HELLO", e))?;
        let version = abi::text(&hello.module_version)
            .context("the module tells no version")?
            .to_owned();
        Ok(Self { file, version })
    }

    pub(crate) fn version(&self) -> Result<String> {
        Ok(self.version.clone())
    }

    pub(crate) fn attach(&self, mut attach: Attach) -> Result<u64> {
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::attach(self.file.as_raw_fd(), &raw mut attach) }
            .map_err(|e| refused("ATTACH", e))?;
        Ok(attach.id)
    }

    pub(crate) fn log(&self, mut log: Log) -> Result {
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::log(self.file.as_raw_fd(), &raw mut log) }
            .map_err(|e| refused("LOG", e))
            .map(drop)
    }

    pub(crate) fn pass_through(&self, mut target: Target) -> Result {
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::pass_through(self.file.as_raw_fd(), &raw mut target) }
            .map_err(|e| refused("PASS_THROUGH", e))
            .map(drop)
    }

    pub(crate) fn resize(&self, mut target: Target) -> Result {
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::resize(self.file.as_raw_fd(), &raw mut target) }
            .map_err(|e| refused("RESIZE", e))
            .map(drop)
    }

    pub(crate) fn stop(&self, mut target: Target) -> Result {
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::stop(self.file.as_raw_fd(), &raw mut target) }
            .map_err(|e| refused("STOP", e))
            .map(drop)
    }

    pub(crate) fn release(&self, mut target: Target) -> Result {
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::release(self.file.as_raw_fd(), &raw mut target) }
            .map_err(|e| refused("RELEASE", e))
            .map(drop)
    }

    pub(crate) fn status(&self, id: u64) -> Result<Status> {
        let mut status = empty_status(id);
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::status(self.file.as_raw_fd(), &raw mut status) }
            .map_err(|e| refused("STATUS", e))?;
        Ok(status)
    }

    /// Numbers of all resources.
    pub(crate) fn list(&self) -> Result<Vec<u64>> {
        let mut all = Vec::new();
        loop {
            let mut status = empty_status(all.last().copied().unwrap_or(0));
            // SAFETY: the argument is of the type that belongs to the request and lives through the call.
            match unsafe { request::next(self.file.as_raw_fd(), &raw mut status) } {
                Ok(_) => all.push(status.id),
                Err(nix::errno::Errno::ENOENT) => return Ok(all),
                Err(errno) => return Err(refused("NEXT", errno)),
            }
        }
    }

    /// Waits for changes until the status is as wanted.
    pub(crate) fn wait(
        &self,
        id: u64,
        deadline: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let end = Instant::now() + deadline;
        loop {
            let status = self.status(id)?;
            if wanted(&status) {
                return Ok(status);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(fail(format!(
                    "not within {} s; the status is:\n{}",
                    deadline.as_secs(),
                    crate::show(&status)
                )));
            }
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if poll(&mut fds, timeout).context("wait for a change")? > 0 {
                use std::io::Read;
                (&self.file)
                    .read_exact(&mut [0; 8])
                    .context("read the number of the last change")?;
            }
        }
    }
}

const fn empty_status(id: u64) -> Status {
    // SAFETY: all fields are numbers or arrays of numbers, for which 0 is a value.
    let mut status: Status = unsafe { std::mem::zeroed() };
    status.id = id;
    status
}
