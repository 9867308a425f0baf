//! Reads: what is newer in the map comes from memory, the rest from the disk.

use std::io::IoSlice;

use super::{Engine, Op};
use crate::fuse_proto::format_written;
use crate::map::{Run, Source};
use crate::memory::Buffer;

/// Most pieces of memory that are sent without being put together first.
const PIECES_MAX: usize = 512;

/// A read that may have to wait for a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadRequest {
    pub(super) unique: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A request with I/O on the disk in flight.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) unique: u64,
    pub(super) buffer: Buffer,
    pub(super) len: usize,
    /// Bytes that the disk has still to move.
    pub(super) left: u64,
    /// Operations in flight.
    pub(super) parts: u32,
    /// First error.
    pub(super) errno: i32,
    /// It is a pass-through write.
    pub(super) write: bool,
}

/// The jobs by number.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    jobs: Vec<Option<Job>>,
    free: Vec<u32>,
}

impl JobTable {
    pub(super) fn insert(&mut self, job: Job) -> u32 {
        if let Some(number) = self.free.pop() {
            self.jobs[number as usize] = Some(job);
            return number;
        }
        self.jobs.push(Some(job));
        // As many as there are buffers.
        u32::try_from(self.jobs.len() - 1).unwrap_or(u32::MAX)
    }

    /// Notes that one operation of a job has ended; gives the job back after its last one.
    fn done(&mut self, number: u32, result: i32) -> Option<Job> {
        let place = self.jobs.get_mut(number as usize)?;
        let job = place.as_mut()?;
        match u64::try_from(result) {
            Ok(moved) => job.left = job.left.saturating_sub(moved),
            Err(_) if job.errno == 0 => job.errno = -result,
            Err(_) => {}
        }
        job.parts -= 1;
        if job.parts > 0 {
            return None;
        }
        if job.errno == 0 && job.left > 0 {
            // The disk is as large as the device: a short transfer is an error.
            job.errno = libc::EIO;
        }
        self.free.push(number);
        place.take()
    }
}

impl Engine {
    /// Answers a read, or begins its I/O, or lets it wait for a buffer.
    pub(super) fn read(&mut self, request: ReadRequest) {
        let mut runs = std::mem::take(&mut self.runs);
        self.map.runs(request.offset, request.len, &mut runs);
        let in_memory = runs.iter().all(|r| r.source != Source::Disk);
        if in_memory && runs.len() <= PIECES_MAX {
            self.reply_from_memory(request, &runs);
        } else if !self.read_from_disk(request, &runs) {
            self.waiting_reads.push_back(request);
        }
        self.runs = runs;
    }

    /// Begins the reads that waited for buffers.
    pub(super) fn pump_reads(&mut self) {
        for _ in 0..self.waiting_reads.len() {
            let Some(request) = self.waiting_reads.pop_front() else {
                return;
            };
            self.read(request);
        }
    }

    fn reply_from_memory(&self, request: ReadRequest, runs: &[Run]) {
        let len = usize::try_from(request.len).unwrap_or(0);
        let pieces: Vec<IoSlice<'_>> = runs
            .iter()
            .filter_map(|run| match run.source {
                Source::Memory { offset } => Some(IoSlice::new(self.slot_bytes(offset, run.len))),
                Source::Disk => None,
            })
            .collect();
        self.reply_slices(request.unique, 0, len, &pieces);
    }

    fn slot_bytes(&self, offset: u64, len: u64) -> &[u8] {
        let at = |n| usize::try_from(n).unwrap_or(usize::MAX);
        self.slots.bytes(at(offset), at(len))
    }

    /// What is in memory is copied now: while the disk is read, the map may forget it. False if no buffer is free.
    fn read_from_disk(&mut self, request: ReadRequest, runs: &[Run]) -> bool {
        let len = usize::try_from(request.len).unwrap_or(usize::MAX);
        let Some(buffer) = self.pool.take(len) else {
            return false;
        };
        let base = buffer.offset;
        let on_disk = runs.iter().filter(|r| r.source == Source::Disk);
        let parts = on_disk.clone().count();
        let number = self.jobs.insert(Job {
            unique: request.unique,
            buffer,
            len,
            left: on_disk.map(|r| r.len).sum(),
            // One more, so that it is not done before all parts have begun.
            parts: u32::try_from(parts).unwrap_or(0) + 1,
            errno: 0,
            write: false,
        });
        for run in runs {
            let at = base + usize::try_from(run.offset - request.offset).unwrap_or(0);
            let size = usize::try_from(run.len).unwrap_or(0);
            match run.source {
                Source::Memory { offset } => {
                    let from = usize::try_from(offset).unwrap_or(usize::MAX);
                    let bytes = self.slots.bytes(from, size);
                    self.pool
                        .memory()
                        .bytes_mut(at, size)
                        .copy_from_slice(bytes);
                }
                Source::Disk => {
                    let to = self.pool.memory().at(at);
                    let size = u32::try_from(size).unwrap_or(0);
                    self.ring
                        .read(Op::Job(number), &self.disk.file, to, size, run.offset);
                }
            }
        }
        self.finish_part(number, 0);
        true
    }

    /// An operation of a job has ended.
    pub(super) fn job_done(&mut self, number: u32, result: i32) {
        if self.jobs.is_write(number) {
            self.pass.in_flight -= 1;
            self.pass.done += 1;
        }
        self.finish_part(number, result);
    }

    fn finish_part(&mut self, number: u32, result: i32) {
        let Some(job) = self.jobs.done(number, result) else {
            return;
        };
        if job.errno != 0 {
            let cause = std::io::Error::from_raw_os_error(job.errno);
            let what = if job.write { "write" } else { "read" };
            tracing::error!("{what} on {}: {cause}", self.disk.path.display());
            self.reply(job.unique, libc::EIO, &[]);
        } else if job.write {
            let len = u32::try_from(job.len).unwrap_or(0);
            self.reply(job.unique, 0, &format_written(len));
        } else {
            let bytes = self.pool.bytes(job.buffer.offset, job.len);
            self.reply(job.unique, 0, bytes);
        }
        self.pool.put(job.buffer);
    }
}

impl JobTable {
    /// Place of the buffer of a job.
    pub(super) fn buffer_at(&self, number: u32) -> Option<usize> {
        let job = self.jobs.get(number as usize)?.as_ref()?;
        Some(job.buffer.offset)
    }

    fn is_write(&self, number: u32) -> bool {
        let job = self.jobs.get(number as usize).and_then(Option::as_ref);
        job.is_some_and(|j| j.write)
    }
}
