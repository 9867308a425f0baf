//! How the module begins to serve a resource, goes on in the next log, or goes past the logs.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use mars_core::control::Attach;
use mars_core::{LogName, Stamp};
use mars_kmod_core::abi::{self, state};
use mars_tree::passed::{prepare_passed, store_passed};
use mars_tree::unlogged::unlogged_path;
use nix::errno::Errno;

use super::Bridge;
use super::node::make_node;
use crate::kmod::KmodError;
use crate::kmod::recover::{open_log, recover};

/// Names tried for a device: nodes that share one kernel all want that of the resource.
const NAMES: u32 = 64;

impl Bridge {
    pub(super) fn take_attach(&mut self, attach: &Attach) -> Result<(), KmodError> {
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

    pub(super) fn log(&mut self, log: &LogName, pos: u64) -> Result<(), KmodError> {
        if let Some(id) = self.id {
            return self.switch(id, log);
        }
        let Some(attach) = self.attach.clone() else {
            return Err(KmodError::Invalid("no disk was attached yet".into()));
        };
        let disk = Path::new(&attach.disk);
        let alive = self.status()?;
        // marsd waits only as long as it hears something.
        let begin = recover(&self.log_dir, log, pos, (disk, attach.size_bytes), || {
            self.outbox.repeat(&self.socket, &alive);
        })?;
        let id = self.attach_disk(&attach)?;
        let started = self
            .hand_over(id, &begin.log, &begin.file, (begin.end, begin.stamp))
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
    pub(super) fn pass_from(&mut self, log: &LogName, pos: u64) -> Result<(), KmodError> {
        let (Some(attach), None) = (self.attach.clone(), self.id) else {
            return Err(KmodError::Invalid(
                "passing by without a log begins only behind an attach".into(),
            ));
        };
        forget_regions(&self.log_dir)?;
        prepare_passed(&self.log_dir)
            .and_then(|()| store_passed(&self.log_dir, log, pos))
            .map_err(|e| KmodError::Invalid(e.to_string()))?;
        let id = self.attach_disk(&attach)?;
        let begun = self
            .control
            .pass_through(id)
            .map_err(KmodError::from)
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

    fn switch(&self, id: u64, log: &LogName) -> Result<(), KmodError> {
        let file = open_log(&self.log_dir.join(log.to_string()), true)?;
        self.hand_over(id, log, &file, (0, mars_tree::wall_clock()))
    }

    fn hand_over(
        &self,
        id: u64,
        log: &LogName,
        file: &File,
        (pos, stamp): (u64, Stamp),
    ) -> Result<(), KmodError> {
        let dir = &self.log_dir;
        prepare_passed(dir).map_err(|e| KmodError::Invalid(e.to_string()))?;
        forget_regions(dir)?;
        let mark_path = dir.join(".passed");
        let mark = File::options()
            .write(true)
            .open(&mark_path)
            .map_err(|e| KmodError::io("open", &mark_path, e))?;
        Ok(self.control.log(abi::Log {
            id,
            seq: log.seq,
            pos,
            stamp_secs: stamp.secs,
            stamp_nanos: stamp.nanos,
            log_fd: file.as_raw_fd(),
            mark_fd: mark.as_raw_fd(),
            reserved: 0,
            name: field(&log.to_string())?,
        })?)
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
                owner: field(self.home.env.host.as_str())?,
                resource: field(self.resource.as_str())?,
                device: field(&name)?,
            });
            match attached {
                Err(e) if e.errno() == Some(Errno::EEXIST) && self.find()?.is_none() => {}
                other => return Ok(other?),
            }
        }
        Err(KmodError::Invalid(format!(
            "all names for a device of {} are taken",
            self.resource
        )))
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

fn field<const N: usize>(text: &str) -> Result<[u8; N], KmodError> {
    abi::field(text).ok_or_else(|| {
        KmodError::Invalid(format!(
            "'{text}' is longer than the {} bytes that the kernel module takes",
            N - 1
        ))
    })
}
