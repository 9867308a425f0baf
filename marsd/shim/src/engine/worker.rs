//! A second thread for the file system calls that may take long: cutting a log to its length, leaving a mark.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use mars_core::LogName;

use super::command::{Command, Shared};
use crate::error::ShimError;
use mars_tree::passed::store_passed;

/// Work that may take long.
#[derive(Debug)]
pub(super) enum Job {
    /// A log to be cut to its exact length and flushed; [`Command::Trimmed`] follows.
    Trim {
        file: Arc<File>,
        path: PathBuf,
        /// Exact length in bytes.
        len: u64,
        /// Which log: its base in the stream.
        base: u64,
    },
    /// Everything in `log` before `end` is on the disk, and newer writes will be; [`Command::Marked`] follows.
    Mark {
        dir: PathBuf,
        log: LogName,
        end: u64,
    },
}

#[derive(Debug)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("worker".into())
            .spawn(move || {
                for job in queue {
                    shared.send(carry_out(job));
                }
            })?;
        Ok(Self { jobs })
    }

    pub(super) fn add(&self, job: Job) {
        // The thread ends only after this sender is gone.
        let _ = self.jobs.send(job);
    }
}

fn carry_out(job: Job) -> Command {
    match job {
        Job::Trim {
            file,
            path,
            len,
            base,
        } => {
            let result = file
                .set_len(len)
                .map_err(|e| ShimError::io("trim", &path, e))
                .and_then(|()| {
                    file.sync_all()
                        .map_err(|e| ShimError::io("flush", &path, e))
                });
            Command::Trimmed { base, result }
        }
        Job::Mark { dir, log, end } => Command::Marked {
            result: store_passed(&dir, &log, end).map_err(Into::into),
        },
    }
}
