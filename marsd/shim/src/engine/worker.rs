//! A second thread for the file system calls that may take long: cutting a log to its length.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use super::command::{Command, Shared};
use crate::error::ShimError;

/// A log to be cut to its exact length and flushed.
#[derive(Debug)]
pub(super) struct Trim {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    /// Exact length in bytes.
    pub(super) len: u64,
    /// Which log: its base in the stream.
    pub(super) base: u64,
}

#[derive(Debug)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Trim>,
}

impl Worker {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Trim>();
        std::thread::Builder::new()
            .name("trim".into())
            .spawn(move || {
                for job in queue {
                    let result = trim(&job);
                    let base = job.base;
                    drop(job);
                    shared.send(Command::Trimmed { base, result });
                }
            })?;
        Ok(Self { jobs })
    }

    /// Queues a job; [`Command::Trimmed`] follows.
    pub(super) fn trim(&self, job: Trim) {
        // The thread ends only after this sender is gone.
        let _ = self.jobs.send(job);
    }
}

fn trim(job: &Trim) -> Result<(), ShimError> {
    job.file
        .set_len(job.len)
        .map_err(|e| ShimError::io("trim", &job.path, e))?;
    job.file
        .sync_all()
        .map_err(|e| ShimError::io("flush", &job.path, e))
}
