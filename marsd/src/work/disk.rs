//! The data disk as workers see it: exclusive or shared, past the page cache where the disk allows it.
//!
//! Everything aligned goes through `O_DIRECT`, several requests at a time. What is not aligned to the disk's blocks
//! goes through the page cache, which the kernel keeps coherent with direct requests, and is flushed with the rest.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::disk_queue::WriteQueue;
use super::extents::Extent;
use super::{as_len, as_u64};

/// Alignment of buffers in memory, which every disk accepts, and the largest block size of disks.
pub(super) const MEM_ALIGN: usize = 4096;
/// How long a disk that is held is waited for, and how often it is looked at.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);
const RELEASE_RETRY: Duration = Duration::from_millis(20);
/// Writes in flight where there is no io_uring.
const WRITERS: usize = 8;

/// A disk operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} disk {}: {cause}", path.display())]
pub struct DiskError {
    /// What was tried.
    pub op: &'static str,
    /// The disk.
    pub path: PathBuf,
    /// Why it failed.
    pub cause: io::Error,
}

/// An open disk: a block device or a regular file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    buffered: File,
    direct: Option<Direct>,
}

#[derive(Debug)]
struct Direct {
    file: File,
    align: usize,
    /// For disks that are written; `None` where threads do it.
    queue: Mutex<Option<WriteQueue>>,
}

impl Disk {
    /// Opens a disk for writing. A block device is claimed exclusively: if it is mounted or held by another program
    /// that is an error. The disk must have at least `size` bytes.
    pub fn open_exclusive(path: &Path, size: u64) -> Result<Self, DiskError> {
        let fail = |cause| error("open", path, cause);
        let meta = std::fs::metadata(path).map_err(fail)?;
        let excl = match meta.file_type().is_block_device() {
            true => libc::O_EXCL,
            false => 0,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let deadline = Instant::now() + RELEASE_PATIENCE;
        let buffered = loop {
            match options.clone().custom_flags(excl).open(path) {
                Ok(file) => break file,
                // Another worker, or the shim, is about to let go of it.
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(RELEASE_RETRY);
                }
                Err(e) => return Err(fail(explain_busy(e))),
            }
        };
        let disk = Self::finish(path, buffered, &options, size)?;
        if let Some(direct) = &disk.direct {
            *direct.queue() = WriteQueue::new();
        }
        Ok(disk)
    }

    /// Opens a disk for reading, also while others write to it. It must have at least `size` bytes.
    pub fn open_shared(path: &Path, size: u64) -> Result<Self, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true);
        let buffered = options.open(path).map_err(|e| error("open", path, e))?;
        Self::finish(path, buffered, &options, size)
    }

    /// For one whose end is still written: what stands behind the bytes that are asked for is not read.
    pub fn without_readahead(self) -> Self {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        // Advice only: without it everything works, a little slower.
        let _ = posix_fadvise(&self.buffered, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        self
    }

    fn finish(
        path: &Path,
        buffered: File,
        options: &OpenOptions,
        size: u64,
    ) -> Result<Self, DiskError> {
        let disk = Self {
            path: path.to_path_buf(),
            direct: Direct::open(path, options),
            buffered,
        };
        let real = disk.size()?;
        if real < size {
            let why = format!("it has {real} bytes, but the resource needs {size}");
            return Err(disk.fail("use", io::Error::other(why)));
        }
        Ok(disk)
    }

    /// Size in bytes.
    pub fn size(&self) -> Result<u64, DiskError> {
        use std::io::{Seek, SeekFrom};
        let end = (&self.buffered).seek(SeekFrom::End(0));
        end.map_err(|e| self.fail("find the size of", e))
    }

    /// Reads `len` bytes at `pos`.
    pub fn read(&self, pos: u64, len: usize) -> Result<AlignedBuf, DiskError> {
        let mut buf = AlignedBuf::new(len);
        let mut done = 0;
        if let Some(direct) = self.direct.as_ref().filter(|d| d.fits(pos)) {
            match direct.file.read_at(buf.whole_mut(), pos) {
                Ok(n) => done = n.min(len),
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) => return Err(self.fail("read", e)),
            }
        }
        if let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            let at = pos + as_u64(done);
            let read = self.buffered.read_exact_at(rest, at);
            read.map_err(|e| self.fail("read", e))?;
        }
        Ok(buf)
    }

    /// Reads `len` bytes at `pos`, which need not be aligned, and returns where they stand in `buf`, which grows if it
    /// has to. What is not in the page cache does not come into it; what is read is more by up to a block on both sides.
    pub fn read_into(
        &self,
        pos: u64,
        len: usize,
        buf: &mut AlignedBuf,
    ) -> Result<Range<usize>, DiskError> {
        let skip = as_len(pos % as_u64(MEM_ALIGN), MEM_ALIGN);
        let range = skip..skip + len;
        if buf.len() < range.end.next_multiple_of(MEM_ALIGN) {
            *buf = AlignedBuf::new(range.end.next_multiple_of(MEM_ALIGN));
        }
        let uncached = |_: &&Direct| !is_cached(&self.buffered, pos, len);
        if let Some(direct) = self.direct.as_ref().filter(uncached) {
            let around = &mut buf[..range.end.next_multiple_of(MEM_ALIGN)];
            match direct.file.read_at(around, pos - as_u64(skip)) {
                Ok(n) if n >= range.end => return Ok(range),
                Err(e) if e.raw_os_error() != Some(libc::EINVAL) => {
                    return Err(self.fail("read", e));
                }
                _ => {}
            }
        }
        let read = self.buffered.read_exact_at(&mut buf[range.clone()], pos);
        read.map_err(|e| self.fail("read", e))?;
        Ok(range)
    }

    /// Writes disjoint extents, whose data stands in `source`; nothing is durable before [`Self::flush`].
    pub fn write(&self, extents: &[Extent], source: &[u8]) -> Result<(), DiskError> {
        let (direct, rest): (Vec<_>, Vec<_>) = extents.iter().partition(|e| self.goes_direct(e));
        let written = match &self.direct {
            Some(past) if direct.len() > 1 => self.write_many(past, &direct, source),
            _ => self.write_by_threads(&direct, source),
        };
        written.map_err(|e| self.fail("write", e))?;
        for extent in rest {
            let done = self.write_buffered(extent, source);
            done.map_err(|e| self.fail("write", e))?;
        }
        Ok(())
    }

    /// Makes everything that was written durable.
    pub fn flush(&self) -> Result<(), DiskError> {
        self.buffered.sync_data().map_err(|e| self.fail("flush", e))
    }

    fn goes_direct(&self, extent: &Extent) -> bool {
        let fits = |d: &Direct| d.fits(extent.pos) && extent.len.is_multiple_of(d.align);
        self.direct.as_ref().is_some_and(fits)
    }

    fn write_many(&self, direct: &Direct, extents: &[&Extent], source: &[u8]) -> io::Result<()> {
        let mut slot = direct.queue();
        let Some(queue) = slot.as_mut() else {
            return self.write_by_threads(extents, source);
        };
        let written = queue.write(
            &direct.file,
            extents,
            source,
            |extent, result| match result {
                Ok(written) if written == extent.len => Ok(()),
                Err(e) if !is_for_another_try(&e) => Err(e),
                _ => self.write_one(extent, source),
            },
        );
        if queue.is_lost() {
            *slot = None;
        }
        written
    }

    fn write_by_threads(&self, extents: &[&Extent], source: &[u8]) -> io::Result<()> {
        let next = AtomicUsize::new(0);
        let run = || -> io::Result<()> {
            while let Some(extent) = extents.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.write_one(extent, source)?;
            }
            Ok(())
        };
        match extents.len().min(WRITERS) {
            0 | 1 => run(),
            threads => run_threads(threads, &run),
        }
    }

    fn write_one(&self, extent: &Extent, source: &[u8]) -> io::Result<()> {
        let Some(direct) = &self.direct else {
            return self.write_buffered(extent, source);
        };
        let buf = gather(extent, source)?;
        match direct.file.write_all_at(&buf, extent.pos) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                self.buffered.write_all_at(&buf, extent.pos)
            }
            other => other,
        }
    }

    fn write_buffered(&self, extent: &Extent, source: &[u8]) -> io::Result<()> {
        self.buffered
            .write_all_at(&gather(extent, source)?, extent.pos)
    }

    fn fail(&self, op: &'static str, cause: io::Error) -> DiskError {
        error(op, &self.path, cause)
    }
}

impl Direct {
    /// `None` if the file system refuses direct I/O.
    fn open(path: &Path, options: &OpenOptions) -> Option<Self> {
        let file = options
            .clone()
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .ok()?;
        let accepts = |align: usize| {
            let mut buf = AlignedBuf::new(align);
            let part = buf.get_mut(..align)?;
            file.read_at(part, as_u64(align)).ok()?;
            Some(align)
        };
        let align = accepts(512).or_else(|| accepts(MEM_ALIGN))?;
        Some(Self {
            file,
            align,
            queue: Mutex::default(),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Option<WriteQueue>> {
        // A queue that was left in the middle says so itself.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(&self, pos: u64) -> bool {
        pos.is_multiple_of(as_u64(self.align))
    }
}

fn run_threads(threads: usize, work: &(impl Fn() -> io::Result<()> + Sync)) -> io::Result<()> {
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for _ in 1..threads {
            let builder = std::thread::Builder::new().name("disk-write".into());
            // Fewer threads than wanted only means fewer writes in flight.
            running.extend(builder.spawn_scoped(scope, work));
        }
        let mut result = work();
        for thread in running {
            let other = thread.join();
            let other = other.unwrap_or_else(|_| Err(io::Error::other("writer thread panicked")));
            result = result.and(other);
        }
        result
    })
}

/// Of Linux, on all processors but Alpha.
const SYS_CACHESTAT: libc::c_long = 451;

/// Whether a part of a file stands wholly in the page cache, as far as the kernel (from 6.5 on) tells.
fn is_cached(file: &File, pos: u64, len: usize) -> bool {
    let range = [pos, as_u64(len)];
    let mut stat = [0u64; 5];
    // SAFETY: two numbers are read and five written, as `struct cachestat_range` and `struct cachestat` have them.
    let answer = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            range.as_ptr(),
            stat.as_mut_ptr(),
            0,
        )
    };
    let page = as_u64(MEM_ALIGN);
    let pages = (pos + as_u64(len)).div_ceil(page) - pos / page;
    answer == 0 && stat[0] >= pages
}

/// Whether what a queued write says need not be the last word: a single write knows what to do then.
fn is_for_another_try(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EINVAL | libc::EAGAIN | libc::EINTR | libc::EOPNOTSUPP | libc::ECANCELED)
    )
}

fn gather(extent: &Extent, source: &[u8]) -> io::Result<AlignedBuf> {
    let mut buf = AlignedBuf::new(extent.len);
    gather_into(extent, source, &mut buf)?;
    Ok(buf)
}

/// Puts the pieces of an extent together in `buf`, which has its length.
pub(super) fn gather_into(extent: &Extent, source: &[u8], buf: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    for piece in &extent.pieces {
        let end = done + piece.len();
        match (buf.get_mut(done..end), source.get(piece.clone())) {
            (Some(to), Some(from)) => to.copy_from_slice(from),
            _ => return Err(io::Error::other("internal error: extent outside its data")),
        }
        done = end;
    }
    Ok(())
}

fn explain_busy(cause: io::Error) -> io::Error {
    if cause.raw_os_error() == Some(libc::EBUSY) {
        return io::Error::new(
            io::ErrorKind::ResourceBusy,
            "it is in use: mounted, or held by another program",
        );
    }
    cause
}

fn error(op: &'static str, path: &Path, cause: io::Error) -> DiskError {
    DiskError {
        op,
        path: path.to_path_buf(),
        cause,
    }
}

/// Zeroed memory that `O_DIRECT` accepts: aligned, and padded behind its length.
#[derive(Debug, Default)]
pub struct AlignedBuf {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes.
    pub fn new(len: usize) -> Self {
        let padded = len.next_multiple_of(MEM_ALIGN);
        let memory = vec![0; padded + MEM_ALIGN];
        // The heap block of a vector that never grows does not move.
        let start = as_len(as_u64(memory.as_ptr().align_offset(MEM_ALIGN)), MEM_ALIGN);
        Self { memory, start, len }
    }

    /// All of it, a multiple of the alignment.
    fn whole_mut(&mut self) -> &mut [u8] {
        let padded = self.len.next_multiple_of(MEM_ALIGN);
        &mut self.memory[self.start..self.start + padded]
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(size).unwrap();
        (dir, path)
    }

    #[test]
    fn aligned_and_unaligned_extents_arrive() {
        let (_dir, path) = file(1 << 20);
        let disk = Disk::open_exclusive(&path, 1 << 20).unwrap();
        let source: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8 + 1).collect();
        let extent = |pos, at: usize, len| Extent {
            pos,
            len,
            pieces: vec![at..at + len / 2, at + len / 2..at + len],
        };
        let extents = [
            extent(0, 0, 4096),
            extent(8192, 5000, 512),
            extent(8704, 6000, 77),
            extent(65536, 10_000, 65536),
        ];
        disk.write(&extents, &source).unwrap();
        disk.flush().unwrap();
        let mut want = vec![0; 1 << 20];
        want[..4096].copy_from_slice(&source[..4096]);
        want[8192..8704].copy_from_slice(&source[5000..5512]);
        want[8704..8781].copy_from_slice(&source[6000..6077]);
        want[65536..131_072].copy_from_slice(&source[10_000..75_536]);
        assert!(std::fs::read(&path).unwrap() == want);
        assert!(disk.read(0, 1 << 20).unwrap()[..] == want[..]);
        assert_eq!(&disk.read(8700, 10).unwrap()[..], &want[8700..8710]);
    }

    #[test]
    fn what_is_not_aligned_is_read_from_the_page_cache_and_from_the_disk() {
        let (_dir, path) = file(1 << 20);
        let want: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &want).unwrap();
        let disk = Disk::open_shared(&path, 1 << 20).unwrap();
        let mut buf = AlignedBuf::default();
        for is_dropped in [false, true] {
            if is_dropped {
                use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
                disk.flush().unwrap();
                posix_fadvise(
                    &disk.buffered,
                    0,
                    0,
                    PosixFadviseAdvice::POSIX_FADV_DONTNEED,
                )
                .unwrap();
            }
            for (pos, len) in [
                (0, 10),
                (4095, 2),
                (8192, 4096),
                (5000, 300_000),
                (1_048_500, 76),
            ] {
                let place = disk.read_into(pos as u64, len, &mut buf).unwrap();
                assert!(buf[place] == want[pos..pos + len], "{len} at {pos}");
            }
        }
        assert!(disk.read_into(1_048_500, 77, &mut buf).is_err());
    }

    #[test]
    fn many_writes_arrive_with_a_queue_and_without() {
        let (_dir, path) = file(16 << 20);
        let disk = Disk::open_exclusive(&path, 16 << 20).unwrap();
        let queue = || disk.direct.as_ref().unwrap().queue();
        assert!(queue().is_some());
        let source: Vec<u8> = (0..12u32 << 20).map(|i| (i % 253) as u8 + 1).collect();
        for round in 0..2usize {
            // 700 small ones, and one that is longer than the buffer of the queue.
            let mut extents: Vec<_> = (0..700)
                .map(|n| (n as u64 * 8192, 4096 * (1 + round) / 2, n * 4096 + round))
                .collect();
            extents.push((8 << 20, 3 << 20, 7 + round));
            let extents: Vec<_> = extents
                .into_iter()
                .map(|(pos, len, at)| Extent {
                    pos,
                    len,
                    pieces: vec![at..at + 512, at + 512..at + len],
                })
                .collect();
            disk.write(&extents, &source).unwrap();
            for e in &extents {
                let at = e.pieces[0].start;
                assert!(disk.read(e.pos, e.len).unwrap()[..] == source[at..at + e.len]);
            }
            assert_eq!(queue().is_some(), round == 0);
            *queue() = None;
        }
    }

    #[test]
    fn short_disks_and_reads_behind_the_end_are_errors() {
        let (_dir, path) = file(1536);
        let message = Disk::open_exclusive(&path, 2048).unwrap_err().to_string();
        assert!(
            message.contains("1536") && message.contains("2048"),
            "{message}"
        );
        let disk = Disk::open_shared(&path, 1536).unwrap();
        assert_eq!(disk.read(1024, 512).unwrap().len(), 512);
        assert!(disk.read(1024, 1024).is_err());
        assert!(Disk::open_shared(Path::new("/nonexistent"), 0).is_err());
    }

    #[test]
    fn a_block_device_is_claimed_and_a_second_claim_says_so() {
        let (_dir, path) = file(1 << 20);
        let losetup = |args: &[&str]| {
            let out = std::process::Command::new("losetup")
                .args(args)
                .output()
                .unwrap();
            assert!(out.status.success(), "{out:?}");
            PathBuf::from(String::from_utf8(out.stdout).unwrap().trim())
        };
        let device = losetup(&["--find", "--show", path.to_str().unwrap()]);
        let first = Disk::open_exclusive(&device, 1 << 20).unwrap();
        let second = Disk::open_exclusive(&device, 1 << 20)
            .unwrap_err()
            .to_string();
        let shared = Disk::open_shared(&device, 1 << 20).unwrap();
        let extent = Extent {
            pos: 512,
            len: 512,
            pieces: vec![0..256, 256..512],
        };
        first.write(&[extent], &[7; 512]).unwrap();
        first.flush().unwrap();
        let seen = shared.read(0, 1024).unwrap();
        assert!(first.direct.is_some() && first.size().unwrap() == 1 << 20);
        drop((first, shared));
        losetup(&["--detach", device.to_str().unwrap()]);
        assert!(
            second.contains("in use") && second.contains("loop"),
            "{second}"
        );
        assert!(seen[..512] == [0; 512] && seen[512..] == [7; 512]);
    }
}
