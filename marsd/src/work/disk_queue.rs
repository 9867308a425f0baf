//! Many direct writes to a disk at once, over an io_uring.
//!
//! What is to be written is gathered in one aligned buffer, handed over with one system call, and waited for as a whole.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode};

use super::as_u64;
use super::disk::{AlignedBuf, MEM_ALIGN, gather_into};
use super::extents::Extent;

/// Writes in flight.
const DEPTH: usize = 64;
/// Bytes in flight.
const BYTES: usize = 2 << 20;

/// A ring and its buffer.
///
/// # Invariants
/// While something is in flight the kernel may read the buffer. Between two calls of [`Self::write`] nothing is, unless
/// the queue [is lost](Self::is_lost).
pub(super) struct WriteQueue {
    ring: IoUring,
    buffer: AlignedBuf,
    /// The kernel has pinned the buffer, so that it need not do that for each write.
    is_pinned: bool,
    in_flight: usize,
}

/// One write in flight.
struct Job<'a> {
    extent: &'a Extent,
    /// Where it begins in the buffer.
    at: usize,
}

impl std::fmt::Debug for WriteQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteQueue").finish_non_exhaustive()
    }
}

impl WriteQueue {
    /// `None` where the kernel, or its administrator, gives no io_uring.
    pub(super) fn new() -> Option<Self> {
        let ring = IoUring::new(u32::try_from(DEPTH).ok()?).ok()?;
        let mut buffer = AlignedBuf::new(BYTES);
        let whole = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: the memory is valid, and dropped behind the ring. Without success, as by a limit, all works as well.
        let is_pinned = unsafe { ring.submitter().register_buffers(&[whole]) }.is_ok();
        Some(Self {
            ring,
            buffer,
            is_pinned,
            in_flight: 0,
        })
    }

    /// Whether the ring stopped in the middle, so that this queue must not be used any more.
    pub(super) fn is_lost(&self) -> bool {
        self.in_flight > 0
    }

    /// Writes `extents`, whose data stands in `source`, to `file`. `each` is called with the result of each extent: the
    /// number of bytes that were written, or why not.
    ///
    /// # Errors
    /// That of `each`, or why the ring does not go on.
    pub(super) fn write(
        &mut self,
        file: &File,
        extents: &[&Extent],
        source: &[u8],
        each: impl Fn(&Extent, io::Result<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut rest = extents;
        while !rest.is_empty() {
            let jobs = self.take(&mut rest, source)?;
            if jobs.is_empty() {
                // Too long for the buffer.
                let [first, others @ ..] = rest else { break };
                each(first, Ok(0))?;
                rest = others;
                continue;
            }
            let results = self.run(file, &jobs)?;
            for (job, result) in jobs.iter().zip(results) {
                let written = usize::try_from(result);
                each(
                    job.extent,
                    written.map_err(|_| io::Error::from_raw_os_error(-result)),
                )?;
            }
        }
        Ok(())
    }

    /// Gathers as many extents as fit.
    fn take<'a>(&mut self, rest: &mut &[&'a Extent], source: &[u8]) -> io::Result<Vec<Job<'a>>> {
        let mut jobs = Vec::new();
        let mut at = 0;
        while let [extent, others @ ..] = *rest {
            let end = at + extent.len;
            let Some(part) = self.buffer.get_mut(at..end).filter(|_| jobs.len() < DEPTH) else {
                break;
            };
            gather_into(extent, source, part)?;
            jobs.push(Job { extent, at });
            at = end.next_multiple_of(MEM_ALIGN);
            *rest = others;
        }
        Ok(jobs)
    }

    /// Hands the jobs over and waits for all of them.
    fn run(&mut self, file: &File, jobs: &[Job<'_>]) -> io::Result<Vec<i32>> {
        for (number, job) in jobs.iter().enumerate() {
            let part = &self.buffer[job.at..job.at + job.extent.len];
            let len = u32::try_from(part.len()).map_err(io::Error::other)?;
            let (fd, from, pos) = (Fd(file.as_raw_fd()), part.as_ptr(), job.extent.pos);
            let entry = match self.is_pinned {
                true => opcode::WriteFixed::new(fd, from, len, 0)
                    .offset(pos)
                    .build(),
                false => opcode::Write::new(fd, from, len).offset(pos).build(),
            };
            let entry = entry.user_data(as_u64(number));
            // SAFETY: the buffer is neither moved, changed nor freed while something is in flight, and the caller keeps
            // the file open.
            unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
            self.in_flight += 1;
        }
        let mut results = vec![0; jobs.len()];
        while self.in_flight > 0 {
            let entered = self.ring.submit_and_wait(self.in_flight);
            entered.map(drop).or_else(go_on)?;
            for entry in self.ring.completion() {
                let number = usize::try_from(entry.user_data()).ok();
                if let Some(result) = number.and_then(|n| results.get_mut(n)) {
                    *result = entry.result();
                }
                self.in_flight -= 1;
            }
        }
        Ok(results)
    }
}

impl Drop for WriteQueue {
    fn drop(&mut self) {
        if self.is_lost() {
            // The kernel may still read it: it is never given back.
            std::mem::forget(std::mem::replace(&mut self.buffer, AlignedBuf::new(0)));
        }
    }
}

/// What the kernel cannot take now, it takes when some of what is in flight has completed.
fn go_on(e: io::Error) -> io::Result<()> {
    match e.raw_os_error() {
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
        _ => Err(e),
    }
}
