//! The control device: one function for each request (`shim-kmod/README.md`).

extern crate std;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::string::String;
use std::vec::Vec;

use nix::errno::Errno;

use crate::abi::{self, Attach, Hello, Log, Status, Target};

mod request {
    //! The system calls; their numbers hold size and direction of the argument.
    use crate::abi::{self, Attach, Hello, Log, Status, Target};
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

/// Why the module could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A request was refused.
    #[error("the kernel module refuses {request}: {} ({errno:?})", errno.desc())]
    Refused {
        /// Name of the request.
        request: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The module speaks another version of the interface.
    #[error(
        "the kernel module speaks version {theirs} of its interface, this marsd version {}: use both of one release",
        abi::ABI_VERSION
    )]
    Version {
        /// Version of the module.
        theirs: u32,
    },
    /// The device cannot be used.
    #[error("{operation} {}: {cause}", abi::CONTROL_DEVICE)]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        cause: std::io::Error,
    },
}

impl ClientError {
    /// The error number of a refused request.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// The open control device, greeted.
#[derive(Debug)]
pub struct Control {
    file: File,
    version: String,
}

impl Control {
    /// Opens the device and compares versions.
    pub fn open() -> Result<Self, ClientError> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(abi::CONTROL_DEVICE)
            .map_err(|cause| ClientError::Io {
                operation: "open (is the module mars loaded?)",
                cause,
            })?;
        let mut hello = Hello {
            abi: abi::ABI_VERSION,
            reserved: 0,
            module_version: [0; 32],
        };
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        let answer = unsafe { request::hello(file.as_raw_fd(), &raw mut hello) };
        match answer {
            Ok(_) => Ok(Self {
                file,
                version: abi::text(&hello.module_version).unwrap_or("?").into(),
            }),
            Err(Errno::EPROTO) => Err(ClientError::Version { theirs: hello.abi }),
            Err(errno) => Err(refused("HELLO", errno)),
        }
    }

    /// Version of the module.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Attaches a disk; the number of the resource.
    pub fn attach(&self, mut attach: Attach) -> Result<u64, ClientError> {
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::attach(self.file.as_raw_fd(), &raw mut attach) }
            .map_err(|e| refused("ATTACH", e))?;
        Ok(attach.id)
    }

    /// Begins a log.
    pub fn log(&self, mut log: Log) -> Result<(), ClientError> {
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::log(self.file.as_raw_fd(), &raw mut log) }
            .map(drop)
            .map_err(|e| refused("LOG", e))
    }

    /// Begins pass-through.
    pub fn pass_through(&self, id: u64) -> Result<(), ClientError> {
        let mut target = Target { id, value: 0 };
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::pass_through(self.file.as_raw_fd(), &raw mut target) }
            .map(drop)
            .map_err(|e| refused("PASS_THROUGH", e))
    }

    /// Sets the size of the device in bytes.
    pub fn resize(&self, id: u64, size_bytes: u64) -> Result<(), ClientError> {
        let value = size_bytes;
        let mut target = Target { id, value };
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::resize(self.file.as_raw_fd(), &raw mut target) }
            .map(drop)
            .map_err(|e| refused("RESIZE", e))
    }

    /// Lets the device go and begins to write everything back.
    pub fn stop(&self, id: u64) -> Result<(), ClientError> {
        let mut target = Target { id, value: 0 };
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::stop(self.file.as_raw_fd(), &raw mut target) }
            .map(drop)
            .map_err(|e| refused("STOP", e))
    }

    /// Forgets a resource that does nothing.
    pub fn release(&self, id: u64) -> Result<(), ClientError> {
        let mut target = Target { id, value: 0 };
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::release(self.file.as_raw_fd(), &raw mut target) }
            .map(drop)
            .map_err(|e| refused("RELEASE", e))
    }

    /// Status of a resource.
    pub fn status(&self, id: u64) -> Result<Status, ClientError> {
        let mut status = empty_status(id);
        // SAFETY: the argument is of the type that belongs to the request and lives through the call.
        unsafe { request::status(self.file.as_raw_fd(), &raw mut status) }
            .map_err(|e| refused("STATUS", e))?;
        Ok(status)
    }

    /// All resources of all nodes.
    pub fn all(&self) -> Result<Vec<Status>, ClientError> {
        let mut all: Vec<Status> = Vec::new();
        loop {
            let mut status = empty_status(all.last().map_or(0, |s| s.id));
            // SAFETY: the argument is of the type that belongs to the request and lives through the call.
            match unsafe { request::next(self.file.as_raw_fd(), &raw mut status) } {
                Ok(_) => all.push(status),
                Err(Errno::ENOENT) => return Ok(all),
                Err(errno) => return Err(refused("NEXT", errno)),
            }
        }
    }

    /// Takes note of the changes; call when the device is readable.
    pub fn take_changes(&self) -> Result<(), ClientError> {
        (&self.file)
            .read_exact(&mut [0; 8])
            .map_err(|cause| ClientError::Io {
                operation: "read",
                cause,
            })
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn refused(request: &'static str, errno: Errno) -> ClientError {
    ClientError::Refused { request, errno }
}

fn empty_status(id: u64) -> Status {
    // SAFETY: all fields are numbers or arrays of numbers, for which 0 is a value.
    let mut status: Status = unsafe { std::mem::zeroed() };
    status.id = id;
    status
}
