//! Takes FUSE requests in and sends the answers.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::read::ReadRequest;
use super::write::{PendingWrite, ZeroJob};
use super::{Engine, Fuse, Mode, Op, Reply};
use crate::error::ShimError;
use crate::fuse_proto::{self as proto, MAX_IO, Operation, Request, parse_request};
use crate::map::SECTOR;

/// After a write of so many bytes ...
const POLL_MIN: u32 = 512 * 1024;
/// ... the next one is expected within this time, and not slept for: to be woken up takes longer on a busy machine.
const POLL: Duration = Duration::from_micros(200);
/// Requests taken in before the ring is looked at again.
const AT_ONCE: usize = 128;
/// Bytes of the longest answer that is put together before it is written.
const SMALL_REPLY: usize = 128;

impl Engine {
    /// Serves the connection `fd`; with `resend`, as the successor of a killed process.
    pub(super) fn serve_fuse(&mut self, fd: OwnedFd, resend: bool, reply: Reply) {
        let path = std::path::Path::new("/dev/fuse");
        // The engine never waits in a read; readiness comes from the ring.
        if let Err(e) = fcntl(fd.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)) {
            let error = ShimError::io("set the mode of", path, e.into());
            return self.answer(&reply, Err(error));
        }
        if resend && let Err(e) = nix::unistd::write(fd.as_fd(), &proto::format_resend()) {
            let error = ShimError::io("ask for unanswered requests at", path, e.into());
            return self.answer(&reply, Err(error));
        }
        self.ring.poll(Op::FusePoll, fd.as_raw_fd());
        let mut fuse = Fuse {
            fd,
            readable: true,
            ready: None,
            gone: false,
        };
        if resend {
            self.shared.set_resendable();
            self.fuse = Some(fuse);
            self.answer(&reply, Ok(()));
        } else {
            fuse.ready = Some(reply);
            self.fuse = Some(fuse);
        }
    }

    pub(super) fn fuse_ready(&mut self, more: bool) {
        if let Some(fuse) = self.fuse.as_mut().filter(|f| !f.gone) {
            fuse.readable = true;
            if !more {
                self.ring.poll(Op::FusePoll, fuse.fd.as_raw_fd());
            }
        }
    }

    /// Whether requests may be taken in now.
    pub(super) fn intake_open(&self) -> bool {
        self.pending.is_none()
            && !self.log.switching()
            && match self.mode {
                Mode::Logging | Mode::PassThrough | Mode::Failed => true,
                // The device is being made: only INIT can come.
                Mode::Idle => true,
                Mode::Loading(_) | Mode::Draining => false,
            }
    }

    /// Takes requests in until there are none or they have to wait.
    pub(super) fn pump_intake(&mut self) {
        self.stage_pending();
        for _ in 0..AT_ONCE {
            if !self.intake_open() {
                return;
            }
            if self.fuse.as_ref().is_none_or(|f| !f.readable) {
                return;
            }
            let read = self.read_request();
            let Some(fuse) = self.fuse.as_mut() else {
                return;
            };
            match read {
                Ok(len) => {
                    self.take_request(len);
                    if self.log.worth_writing() {
                        self.pump_log();
                    }
                }
                Err(Errno::EAGAIN) => {
                    fuse.readable = self.now < self.poll_until;
                    return;
                }
                Err(Errno::EINTR | Errno::ENOENT) => {}
                Err(e) => {
                    // Unmounted at the end, or aborted by somebody.
                    tracing::warn!("the FUSE connection has ended: {e}");
                    fuse.readable = false;
                    fuse.gone = true;
                    return;
                }
            }
        }
    }

    fn read_request(&mut self) -> nix::Result<usize> {
        let Some(fuse) = &self.fuse else {
            return Err(Errno::EAGAIN);
        };
        nix::unistd::read(fuse.fd.as_fd(), self.log.area.requests.target())
    }

    fn take_request(&mut self, len: usize) {
        let Some(request) = parse_request(self.log.area.requests.request(len)) else {
            tracing::error!("/dev/fuse: a request of {len} bytes is shorter than it says");
            return;
        };
        let unique = request.unique;
        match request.operation {
            Operation::Init { .. } => self.init(request),
            Operation::GetAttr | Operation::SetAttr { .. } => {
                self.reply(unique, 0, &proto::format_attr(self.size_bytes));
            }
            Operation::Open => self.reply(unique, 0, &proto::format_open()),
            Operation::StatFs => self.reply(unique, 0, &proto::format_statfs(self.size_bytes)),
            Operation::Nothing | Operation::Destroy => self.reply(unique, 0, &[]),
            Operation::Silent => {}
            Operation::Unsupported => self.reply(unique, libc::EOPNOTSUPP, &[]),
            _ if matches!(self.mode, Mode::Failed | Mode::Idle) => {
                self.reply(unique, libc::EIO, &[]);
            }
            Operation::Read { offset, len } => self.take_read(unique, offset, len),
            Operation::Write { offset, len } => self.take_write(unique, offset, len),
            Operation::WriteZeroes { offset, len } => self.take_zeroes(unique, offset, len),
            Operation::Fsync => self.take_flush(unique),
        }
    }

    fn init(&mut self, request: Request) {
        let Operation::Init {
            major,
            minor,
            max_readahead,
            flags,
        } = request.operation
        else {
            return;
        };
        if major != 7 || minor < 31 {
            let why = format!("FUSE protocol {major}.{minor} is too old: 7.31 is needed");
            self.reply(request.unique, libc::EPROTO, &[]);
            if let Some(reply) = self.fuse.as_mut().and_then(|f| f.ready.take()) {
                self.answer(&reply, Err(ShimError::Invalid(why)));
            }
            return;
        }
        let (answer, resendable) = proto::format_init(minor, max_readahead, flags);
        if resendable {
            self.shared.set_resendable();
        } else {
            tracing::warn!(
                "this kernel cannot resend requests: the device fails if this process is killed"
            );
        }
        self.reply(request.unique, 0, &answer);
        if let Some(reply) = self.fuse.as_mut().and_then(|f| f.ready.take()) {
            self.answer(&reply, Ok(()));
        }
    }

    fn take_read(&mut self, unique: u64, offset: u64, len: u32) {
        let len = u64::from(len).min(self.size_bytes.saturating_sub(offset));
        if !self.aligned(offset, len) {
            return self.reply(unique, libc::EINVAL, &[]);
        }
        if len == 0 {
            return self.reply(unique, 0, &[]);
        }
        self.counters.reads += 1;
        self.read(ReadRequest {
            unique,
            offset,
            len,
        });
    }

    fn take_write(&mut self, unique: u64, offset: u64, len: u32) {
        let inside = offset
            .checked_add(u64::from(len))
            .is_some_and(|end| end <= self.size_bytes);
        if !inside || len == 0 || len as usize > MAX_IO || !self.aligned(offset, u64::from(len)) {
            return self.reply(unique, libc::EINVAL, &[]);
        }
        self.counters.writes += 1;
        let mut write = PendingWrite {
            unique,
            offset,
            len,
            done: 0,
            stamp: self.log.clock.tick(mars_tree::wall_clock()),
            acknowledged: false,
        };
        self.acknowledge_early(&mut write);
        self.pending = Some(write);
        self.stage_pending();
        if len >= POLL_MIN {
            self.poll_until = Instant::now() + POLL;
        }
    }

    fn take_zeroes(&mut self, unique: u64, offset: u64, len: u64) {
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.size_bytes);
        if !inside || !self.aligned(offset, len) {
            return self.reply(unique, libc::EINVAL, &[]);
        }
        if len == 0 {
            return self.reply(unique, 0, &[]);
        }
        self.counters.writes += 1;
        self.zeroes.push_back(ZeroJob {
            unique,
            offset,
            left: len,
        });
    }

    fn take_flush(&mut self, unique: u64) {
        self.counters.flushes += 1;
        self.log.flush_habit.note_flush();
        if matches!(self.mode, Mode::PassThrough) {
            return self.flush_pass(unique);
        }
        let target = self.log.acknowledged();
        if self.log.marks.durable >= target {
            self.reply(unique, 0, &[]);
        } else {
            self.flushes.push((target, unique));
        }
    }

    fn aligned(&self, offset: u64, len: u64) -> bool {
        let unit = SECTOR.max(u64::from(self.disk.sector));
        offset.is_multiple_of(unit) && len.is_multiple_of(unit)
    }

    /// Answers a request.
    pub(super) fn reply(&self, unique: u64, errno: i32, body: &[u8]) {
        // One piece costs the kernel less than two.
        let mut whole = [0; SMALL_REPLY];
        let (header, rest) = whole.split_at_mut(proto::OUT_HEADER);
        let Some(target) = rest.get_mut(..body.len()) else {
            return self.reply_slices(unique, errno, body.len(), &[IoSlice::new(body)]);
        };
        target.copy_from_slice(body);
        header.copy_from_slice(&proto::format_header(unique, errno, body.len()));
        let len = proto::OUT_HEADER + body.len();
        self.send(unique, |fd| nix::unistd::write(fd, &whole[..len]));
    }

    /// Answers a request with `len` bytes that stand in several places.
    pub(super) fn reply_slices(&self, unique: u64, errno: i32, len: usize, body: &[IoSlice<'_>]) {
        let header = proto::format_header(unique, errno, len);
        let mut all = Vec::with_capacity(1 + body.len());
        all.push(IoSlice::new(&header));
        all.extend_from_slice(body);
        self.send(unique, |fd| nix::sys::uio::writev(fd, &all));
    }

    fn send(&self, unique: u64, write: impl FnOnce(BorrowedFd<'_>) -> nix::Result<usize>) {
        let Some(fuse) = &self.fuse else { return };
        match write(fuse.fd.as_fd()) {
            // ENOENT: the request was given up meanwhile. ENODEV: unmounted.
            Ok(_) | Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(e) => tracing::error!("answer to request {unique}: {e}"),
        }
    }

    /// Answers everything that waits with EIO.
    pub(super) fn fail_requests(&mut self) {
        if let Some(write) = self.pending.take_if(|write| !write.acknowledged) {
            self.reply(write.unique, libc::EIO, &[]);
        }
        for job in std::mem::take(&mut self.zeroes) {
            self.reply(job.unique, libc::EIO, &[]);
        }
        for (_, unique) in std::mem::take(&mut self.flushes) {
            self.reply(unique, libc::EIO, &[]);
        }
        for read in std::mem::take(&mut self.waiting_reads) {
            self.reply(read.unique, libc::EIO, &[]);
        }
        self.fail_pass_flushes();
    }
}
