//! A second thread for the file system calls that may take long: cutting a log to its length, leaving a mark,
//! noting what is written past the logs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use mars_core::LogName;
use mars_core::unlogged::Regions;

use super::command::{Command, Reply, Shared};
use crate::error::ShimError;
use mars_tree::passed::store_passed;
use mars_tree::unlogged::UnloggedMap;

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
    /// These regions will be written past the logs; [`Command::Noted`] follows.
    Note { regions: BTreeSet<u64> },
    /// The device will have so many bytes.
    GrowMap {
        dir: PathBuf,
        size_bytes: u64,
        reply: Reply,
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
                let mut hand = Hand { map: None };
                for job in queue {
                    if let Some(done) = hand.carry_out(job) {
                        shared.send(done);
                    }
                }
            })?;
        Ok(Self { jobs })
    }

    pub(super) fn add(&self, job: Job) {
        // The thread ends only after this sender is gone.
        let _ = self.jobs.send(job);
    }
}

/// What the thread keeps between jobs.
struct Hand {
    /// The map, while pass-through notes in it.
    map: Option<UnloggedMap>,
}

impl Hand {
    fn carry_out(&mut self, job: Job) -> Option<Command> {
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
                Some(Command::Trimmed { base, result })
            }
            Job::Mark { dir, log, end } => {
                let noted = self.open_map(&dir, log.seq + 1);
                let result = store_passed(&dir, &log, end).map_err(Into::into);
                Some(Command::Marked { result, noted })
            }
            Job::Note { regions } => {
                let result = self.note(&regions);
                Some(Command::Noted { regions, result })
            }
            Job::GrowMap {
                dir,
                size_bytes,
                reply,
            } => {
                let grown = match &mut self.map {
                    Some(map) => map.grow(size_bytes),
                    None => UnloggedMap::prepare(&dir, size_bytes).map(drop),
                };
                if let Err(e) = grown {
                    tracing::warn!("{e}; a write behind it makes the map useless");
                }
                // Nobody waits any more: nothing to tell.
                let _ = reply.send(Ok(()));
                None
            }
        }
    }

    /// Opens the map for pass-through in the place of log `gap`; what it names already stays in it.
    fn open_map(&mut self, dir: &Path, gap: u64) -> Option<Regions> {
        self.map = None;
        let opened = UnloggedMap::load(dir).and_then(|map| match map {
            Some(map) if map.header().lost => Ok(None),
            Some(mut map) => map.begin(gap).map(|()| Some(map)),
            None => Ok(None),
        });
        match opened {
            Ok(Some(map)) => {
                let noted = map.regions().clone();
                self.map = Some(map);
                Some(noted)
            }
            Ok(None) => {
                tracing::warn!("no map in {}: everything counts as written", dir.display());
                None
            }
            Err(e) => {
                tracing::error!("{e}; everything counts as written past the logs");
                None
            }
        }
    }

    fn note(&mut self, regions: &BTreeSet<u64>) -> Result<(), ShimError> {
        let Some(map) = &mut self.map else {
            return Ok(());
        };
        let noted = map.note(regions);
        if noted.is_err() {
            if let Err(e) = map.give_up() {
                tracing::error!("{e}; do not believe the map any more");
            }
            self.map = None;
        }
        noted.map_err(Into::into)
    }
}
