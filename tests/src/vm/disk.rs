//! A disk with a volatile write cache: after a power cut each block that was not flushed is as it was, or new.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Context, Result, fail};
use crate::vm::nbd::{Backend, serve};

/// Bytes that are written completely or not at all.
const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = BLOCK as u64;
/// Most blocks that are copied at once.
const RUN_MAX: usize = 256;

/// A disk of a virtual machine.
#[derive(Debug)]
pub struct Disk {
    socket: PathBuf,
    server: Arc<Server>,
}

#[derive(Debug)]
struct Server {
    content: Mutex<Content>,
    /// The client has gone.
    left: Condvar,
}

#[derive(Debug)]
struct Content {
    size_bytes: u64,
    /// A client is connected.
    connected: bool,
    /// No request is carried out any more.
    off: bool,
    /// All writes.
    current: File,
    /// What is left if the power fails and the cache is lost.
    durable: File,
    /// Blocks in which the two differ.
    cached: BTreeSet<u64>,
}

impl Disk {
    /// Makes an empty disk of `bytes` bytes in `dir` and serves it at the socket `NAME.sock`.
    ///
    /// # Errors
    /// A file or the socket cannot be made.
    pub(crate) fn create(dir: &Path, name: &str, bytes: u64) -> Result<Self> {
        if !bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(fail(format!("a disk of {bytes} bytes has no whole blocks")));
        }
        let file = |suffix: &str| {
            let path = dir.join(format!("{name}.{suffix}"));
            let file = File::create_new(&path);
            file.and_then(|f| f.set_len(bytes).map(|()| f))
                .and_then(|_| File::options().read(true).write(true).open(&path))
                .context(format!("create {}", path.display()))
        };
        let content = Content {
            size_bytes: bytes,
            connected: false,
            off: false,
            current: file("current")?,
            durable: file("durable")?,
            cached: BTreeSet::new(),
        };
        let socket = dir.join(format!("{name}.sock"));
        let listener =
            UnixListener::bind(&socket).context(format!("listen at {}", socket.display()))?;
        let server = Arc::new(Server {
            content: Mutex::new(content),
            left: Condvar::new(),
        });
        let serving = Arc::clone(&server);
        std::thread::spawn(move || accept(&listener, &serving));
        Ok(Self { socket, server })
    }

    /// Where it is served.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether blocks are in the cache.
    pub(crate) fn has_cached(&self) -> bool {
        !self.server.lock().cached.is_empty()
    }

    /// The power fails: what the client has sent and was not answered is not carried out.
    pub(crate) fn power_off(&self) {
        self.server.lock().off = true;
    }

    /// The end of a power cut, after [`Self::power_off`] and the end of the client: of every block in the cache the
    /// random numbers of `seed` say whether it reached the disk.
    ///
    /// Returns how many blocks were lost and how many were kept.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub(crate) fn lose_cache(&self, seed: u64) -> Result<(usize, usize)> {
        let content = self.server.lock();
        let gone = self.server.left.wait_while(content, |c| c.connected);
        let mut content = gone.unwrap_or_else(PoisonError::into_inner);
        content.off = false;
        let (mut lost, mut kept) = (0, 0);
        let mut state = seed | 1;
        for block in std::mem::take(&mut content.cached) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state & 1 == 0 {
                kept += 1;
                copy(&content.current, &content.durable, block, 1)
            } else {
                lost += 1;
                copy(&content.durable, &content.current, block, 1)
            }
            .context(format!("settle block {block}"))?;
        }
        Ok((lost, kept))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The thread that serves ends with the process; without its socket nobody finds it.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content, for a request.
    fn powered(&self) -> std::io::Result<MutexGuard<'_, Content>> {
        let content = self.lock();
        if content.off {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        Ok(content)
    }
}

fn accept(listener: &UnixListener, server: &Arc<Server>) {
    for stream in listener.incoming() {
        let done = stream.context("accept a client").and_then(|mut stream| {
            server.lock().connected = true;
            serve(&mut stream, &mut Client(Arc::clone(server)))
        });
        let is_cut = {
            let mut content = server.lock();
            content.connected = false;
            content.off
        };
        server.left.notify_all();
        match done {
            // In the middle of a request.
            Err(_) if is_cut => {}
            Err(error) => eprintln!("disk of the virtual machine: {error}"),
            Ok(()) => {}
        }
    }
}

/// Copies `count` blocks from block number `first` on.
fn copy(from: &File, to: &File, first: u64, count: usize) -> std::io::Result<()> {
    let mut buffer = vec![0; count * BLOCK];
    from.read_exact_at(&mut buffer, first * BLOCK_BYTES)?;
    to.write_all_at(&buffer, first * BLOCK_BYTES)
}

struct Client(Arc<Server>);

impl Backend for Client {
    fn size_bytes(&self) -> u64 {
        self.0.lock().size_bytes
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.0.powered()?.current.read_exact_at(buffer, offset)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let mut content = self.0.powered()?;
        content.current.write_all_at(data, offset)?;
        let end = offset + data.len() as u64;
        content
            .cached
            .extend(offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES));
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let mut content = self.0.powered()?;
        let mut blocks = std::mem::take(&mut content.cached).into_iter().peekable();
        while let Some(first) = blocks.next() {
            let mut count = 1;
            while count < RUN_MAX && blocks.next_if_eq(&(first + count as u64)).is_some() {
                count += 1;
            }
            copy(&content.current, &content.durable, first, count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_bytes(disk: &Disk, blocks: u64) -> Vec<u8> {
        let mut client = Client(Arc::clone(&disk.server));
        (0..blocks)
            .map(|block| {
                let mut byte = [0];
                client.read(block * BLOCK_BYTES, &mut byte).unwrap();
                byte[0]
            })
            .collect()
    }

    #[test]
    fn a_power_cut_loses_some_of_what_was_not_flushed_and_nothing_else() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let disk = Disk::create(dir.path(), "a", 64 * BLOCK_BYTES).unwrap();
        let mut client = Client(Arc::clone(&disk.server));
        client.write(0, &[1; 64 * BLOCK]).unwrap();
        client.flush().unwrap();
        client.write(16 * BLOCK_BYTES, &[2; 48 * BLOCK]).unwrap();
        assert!(first_bytes(&disk, 64)[16..].iter().all(|b| *b == 2));
        disk.power_off();
        assert!(client.flush().is_err());
        let (lost, kept) = disk.lose_cache(7).unwrap();
        assert!(lost > 0 && kept > 0 && lost + kept == 48, "{lost} {kept}");
        let after = first_bytes(&disk, 64);
        assert!(after[..16].iter().all(|b| *b == 1), "flushed");
        assert_eq!(after.iter().filter(|b| **b == 2).count(), kept);
        assert_eq!(disk.lose_cache(9).unwrap(), (0, 0), "settled");
        assert_eq!(first_bytes(&disk, 64), after);
    }
}
