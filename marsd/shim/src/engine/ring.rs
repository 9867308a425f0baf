//! The io_uring: what is in flight, by a small name for each operation.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::memory::{Memory, copies_done};

const ENTRIES: u32 = 256;

/// Name of an operation in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// A command came.
    Wake,
    /// Requests can be read.
    FusePoll,
    /// Write of a batch to the log.
    LogWrite,
    /// Write of zeroes behind the end of the log.
    ZeroAhead,
    /// fdatasync of a log.
    LogSync,
    /// Write of one run of a write-back round.
    DiskWrite(u32),
    /// Flush of the disk at the end of a round.
    DiskSync,
    /// Read, or pass-through write.
    Job(u32),
    /// Write of zeroes in pass-through.
    PassZero,
    /// Flush of the disk in pass-through.
    PassSync,
}

impl Op {
    fn encode(self) -> u64 {
        let (kind, index) = match self {
            Self::Wake => (0, 0),
            Self::FusePoll => (1, 0),
            Self::LogWrite => (2, 0),
            Self::ZeroAhead => (3, 0),
            Self::LogSync => (4, 0),
            Self::DiskWrite(n) => (5, n),
            Self::DiskSync => (6, 0),
            Self::Job(n) => (7, n),
            Self::PassZero => (8, 0),
            Self::PassSync => (9, 0),
        };
        u64::from(index) << 8 | kind
    }

    #[allow(clippy::cast_possible_truncation)] // 32 bits were put there
    fn decode(data: u64) -> Self {
        let index = (data >> 8) as u32;
        match data & 0xff {
            0 => Self::Wake,
            1 => Self::FusePoll,
            2 => Self::LogWrite,
            3 => Self::ZeroAhead,
            4 => Self::LogSync,
            5 => Self::DiskWrite(index),
            6 => Self::DiskSync,
            7 => Self::Job(index),
            8 => Self::PassZero,
            _ => Self::PassSync,
        }
    }
}

/// The ring; used by one thread.
pub(super) struct Ring {
    ring: IoUring,
    in_flight: usize,
    /// Addresses that the kernel has pinned, so that writes from there need not do it.
    pinned: Range<usize>,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let quick = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(ENTRIES * 8)
            .build(ENTRIES);
        let ring = match quick {
            Ok(ring) => ring,
            // Kernels before 6.1 do not know these modes.
            Err(_) => IoUring::builder()
                .setup_cqsize(ENTRIES * 8)
                .build(ENTRIES)?,
        };
        Ok(Self {
            ring,
            in_flight: 0,
            pinned: 0..0,
        })
    }

    /// Pins `memory`, which is written from often; without success where the kernel does not want to, which is no
    /// error. It stays mapped while the ring lives.
    pub(super) fn pin(&mut self, memory: &Memory) {
        let base = memory.at(0);
        let whole = libc::iovec {
            iov_base: base.cast(),
            iov_len: memory.len(),
        };
        // SAFETY: the range is mapped, and the engine, which owns both, waits for its I/O before it ends.
        if unsafe { self.ring.submitter().register_buffers(&[whole]) }.is_ok() {
            self.pinned = base.addr()..base.addr() + memory.len();
        }
    }

    /// Number of operations in flight, polls not counted.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Hands over what was queued and waits for a completion, at most `wait`.
    pub(super) fn enter(&mut self, wait: Duration) -> io::Result<()> {
        let want = usize::from(!wait.is_zero());
        let time = Timespec::from(wait);
        let args = SubmitArgs::new().timespec(&time);
        match self.ring.submitter().submit_with_args(want, &args) {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Hands over what was queued, without waiting.
    pub(super) fn submit(&mut self) {
        // An error comes back at the next `enter`.
        let _ = self.ring.submit();
    }

    /// The next completion: operation, result, and whether this operation will complete again.
    pub(super) fn next_completion(&mut self) -> Option<(Op, i32, bool)> {
        let entry = self.ring.completion().next()?;
        let op = Op::decode(entry.user_data());
        if !matches!(op, Op::Wake | Op::FusePoll) {
            self.in_flight -= 1;
        }
        Some((op, entry.result(), cqueue::more(entry.flags())))
    }

    /// Reports whenever `fd` becomes readable.
    pub(super) fn poll(&mut self, op: Op, fd: RawFd) {
        #[allow(clippy::cast_sign_loss)] // a small positive flag
        let events = libc::POLLIN as u32;
        let entry = opcode::PollAdd::new(Fd(fd), events).multi(true).build();
        self.push(op, entry);
    }

    /// Reads `len` bytes at `offset` of `file` to `to`, which stays valid and unused until completion.
    pub(super) fn read(&mut self, op: Op, file: &impl AsRawFd, to: *mut u8, len: u32, offset: u64) {
        let entry = opcode::Read::new(Fd(file.as_raw_fd()), to, len).offset(offset);
        self.push_io(op, entry.build());
    }

    /// Writes `len` bytes from `from`, which stays valid and unchanged until completion, at `offset` of `file`.
    pub(super) fn write(
        &mut self,
        op: Op,
        file: &impl AsRawFd,
        from: *const u8,
        len: u32,
        offset: u64,
    ) {
        self.write_with(op, file, (from, len), offset, 0);
    }

    /// The same; what was written is on stable storage when it completes.
    pub(super) fn write_durable(
        &mut self,
        op: Op,
        file: &impl AsRawFd,
        from: *const u8,
        len: u32,
        offset: u64,
    ) {
        self.write_with(op, file, (from, len), offset, libc::RWF_DSYNC);
    }

    fn write_with(
        &mut self,
        op: Op,
        file: &impl AsRawFd,
        (from, len): (*const u8, u32),
        offset: u64,
        flags: i32,
    ) {
        let fd = Fd(file.as_raw_fd());
        let end = from.addr() + len as usize;
        let entry = if self.pinned.contains(&from.addr()) && end <= self.pinned.end {
            opcode::WriteFixed::new(fd, from, len, 0)
                .offset(offset)
                .rw_flags(flags)
                .build()
        } else {
            opcode::Write::new(fd, from, len)
                .offset(offset)
                .rw_flags(flags)
                .build()
        };
        self.push_io(op, entry);
    }

    /// Writes the bytes of `iovecs` at `offset`; they and what they point to stay valid until completion.
    pub(super) fn writev(
        &mut self,
        op: Op,
        file: &impl AsRawFd,
        iovecs: &[libc::iovec],
        offset: u64,
    ) {
        let count = u32::try_from(iovecs.len()).unwrap_or(0);
        let fd = Fd(file.as_raw_fd());
        let entry = opcode::Writev::new(fd, iovecs.as_ptr(), count).offset(offset);
        self.push_io(op, entry.build());
    }

    /// fdatasync of `file`.
    pub(super) fn datasync(&mut self, op: Op, file: &impl AsRawFd) {
        let entry = opcode::Fsync::new(Fd(file.as_raw_fd())).flags(FsyncFlags::DATASYNC);
        self.push_io(op, entry.build());
    }

    fn push_io(&mut self, op: Op, entry: squeue::Entry) {
        copies_done();
        self.in_flight += 1;
        self.push(op, entry);
    }

    fn push(&mut self, op: Op, entry: squeue::Entry) {
        let entry = entry.user_data(op.encode());
        loop {
            // SAFETY: the callers' memory and descriptors live until the completion: the engine owns both and waits
            // for everything in flight before it ends.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_kernel() {
        for op in [
            Op::Wake,
            Op::FusePoll,
            Op::LogWrite,
            Op::ZeroAhead,
            Op::LogSync,
            Op::DiskWrite(u32::MAX),
            Op::DiskSync,
            Op::Job(77),
            Op::PassZero,
            Op::PassSync,
        ] {
            assert_eq!(Op::decode(op.encode()), op);
        }
    }
}
