//! rsync over our ssh session: the real rsync gets this program (`marsadm ssh-pipe SOCKET`) as its remote shell, which joins
//! rsync to a socket, and the socket is joined to a channel of the session.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::poll::{PollFd, PollFlags, poll};
use ssh2::{BlockDirections, Channel, Session};

use super::Peer;
use crate::error::{AdmError, Result};
use crate::exit::Exit;

const BUFFER: usize = 64 * 1024;
const COMMAND_MAX: u32 = 64 * 1024;
const POLL_MILLIS: u8 = 200;

/// Runs the local rsync with `args`, in which `peer:` stands for the peer.
pub(crate) fn rsync(peer: &Peer, args: &[OsString]) -> Result<()> {
    let home = Private::new()?;
    let socket = home.0.join("socket");
    let listener = UnixListener::bind(&socket)
        .map_err(|e| AdmError::system("listen on", socket.display(), e))?;
    // By way of /proc the program is found even if it was replaced on disk meanwhile, and no name needs quoting.
    let shell = format!(
        "/proc/{}/exe ssh-pipe '{}'",
        std::process::id(),
        socket.display()
    );
    let mut child = Command::new("rsync")
        .arg("-e")
        .arg(shell)
        .args(args)
        .spawn()
        .map_err(|e| AdmError::system("run", "rsync", e).remedy("install rsync on this node"))?;
    let bridged = accept(&listener, &mut child).and_then(|stream| match stream {
        Some(stream) => bridge(&peer.session, stream),
        None => Ok(()),
    });
    peer.session.set_blocking(true);
    let status = child
        .wait()
        .map_err(|e| AdmError::system("wait for", "rsync", e))?;
    bridged.map_err(|e| AdmError::new(Exit::Peer, format!("rsync over ssh failed: {e}")))?;
    if status.success() {
        return Ok(());
    }
    Err(AdmError::new(
        Exit::Peer,
        format!("rsync failed ({status}), see its messages above"),
    )
    .remedy("is rsync installed on the peer, and is /mars writable there?"))
}

/// A directory that only we can enter.
struct Private(PathBuf);

impl Private {
    fn new() -> Result<Self> {
        let template = std::env::temp_dir().join("marsadm-XXXXXX");
        nix::unistd::mkdtemp(&template)
            .map(Self)
            .map_err(|e| AdmError::system("create directory", template.display(), e))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What stays in the temporary directory is an empty socket.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The connection of the pipe; `None` if rsync ended without one.
fn accept(listener: &UnixListener, child: &mut Child) -> io::Result<Option<UnixStream>> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, POLL_MILLIS);
    }
}

/// Runs the command that the pipe asks for and carries its streams until it ends.
fn bridge(session: &Session, mut stream: UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let command = read_command(&mut stream)?;
    let mut channel = session.channel_session()?;
    channel.exec(&command)?;
    session.set_blocking(false);
    stream.set_nonblocking(true)?;
    let mut joint = Joint {
        up: Vec::new(),
        down: Vec::new(),
        stream_ended: false,
        eof_sent: false,
    };
    while !joint.step(&mut channel, &mut stream)? {
        joint.wait(session, &stream);
    }
    session.set_blocking(true);
    channel.close()?;
    channel.wait_close()?;
    Ok(())
}

fn read_command(stream: &mut UnixStream) -> io::Result<String> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > COMMAND_MAX {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the command of rsync is too long",
        ));
    }
    let mut command = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut command)?;
    String::from_utf8(command).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
}

/// Bytes under way between socket (rsync here) and channel (rsync there).
struct Joint {
    up: Vec<u8>,
    down: Vec<u8>,
    stream_ended: bool,
    eof_sent: bool,
}

impl Joint {
    /// Carries whatever can be carried; true when the other side has ended and all of it was handed over.
    fn step(&mut self, channel: &mut Channel, stream: &mut UnixStream) -> io::Result<bool> {
        loop {
            let mut moved = false;
            if self.up.is_empty() && !self.stream_ended {
                match fill(&mut self.up, stream)? {
                    Some(0) => self.stream_ended = true,
                    read => moved |= read.is_some(),
                }
            }
            moved |= drain(&mut self.up, channel)?;
            if self.stream_ended && self.up.is_empty() && !self.eof_sent {
                match channel.send_eof() {
                    Ok(()) => self.eof_sent = true,
                    Err(e) => would_block(io::Error::from(e))?,
                }
            }
            if self.down.is_empty() {
                moved |= fill(&mut self.down, channel)?.is_some_and(|n| n > 0);
            }
            match drain(&mut self.down, stream) {
                Ok(done) => moved |= done,
                // rsync here has ended: what still comes is not wanted.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => self.down.clear(),
                Err(e) => return Err(e),
            }
            moved |= pass_errors(channel)?;
            if !moved {
                break;
            }
        }
        let ended = channel.eof() && self.down.is_empty();
        if ended {
            // The socket may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        Ok(ended)
    }

    /// Sleeps until one side can go on.
    fn wait(&self, session: &Session, stream: &UnixStream) {
        let mut of_stream = PollFlags::empty();
        of_stream.set(PollFlags::POLLIN, self.up.is_empty() && !self.stream_ended);
        of_stream.set(PollFlags::POLLOUT, !self.down.is_empty());
        let mut of_session = PollFlags::POLLIN;
        let outward = matches!(
            session.block_directions(),
            BlockDirections::Outbound | BlockDirections::Both
        );
        of_session.set(PollFlags::POLLOUT, outward || !self.up.is_empty());
        let session = SessionFd(session);
        let mut fds = vec![PollFd::new(session.as_fd(), of_session)];
        if !of_stream.is_empty() {
            fds.push(PollFd::new(stream.as_fd(), of_stream));
        }
        let _ = poll(&mut fds, POLL_MILLIS);
    }
}

struct SessionFd<'a>(&'a Session);

impl AsFd for SessionFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the session owns its socket, which stays open at least as long as the session is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// Reads once; `None` if nothing is there now, 0 at the end.
fn fill(buffer: &mut Vec<u8>, from: &mut impl Read) -> io::Result<Option<usize>> {
    buffer.resize(BUFFER, 0);
    let read = from.read(buffer);
    buffer.truncate(*read.as_ref().unwrap_or(&0));
    match read {
        Ok(count) => Ok(Some(count)),
        Err(e) => would_block(e).map(|()| None),
    }
}

/// Writes as much as goes; true if any went.
fn drain(buffer: &mut Vec<u8>, to: &mut impl Write) -> io::Result<bool> {
    if buffer.is_empty() {
        return Ok(false);
    }
    match to.write(buffer) {
        Ok(count) => {
            buffer.drain(..count);
            Ok(count > 0)
        }
        Err(e) => would_block(e).map(|()| false),
    }
}

fn would_block(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

/// What the command there says on stderr is said here.
fn pass_errors(channel: &mut Channel) -> io::Result<bool> {
    let mut text = Vec::new();
    let read = fill(&mut text, &mut channel.stderr())?;
    let _ = io::stderr().write_all(&text);
    Ok(read.is_some_and(|n| n > 0))
}

/// The hidden command `ssh-pipe SOCKET HOST COMMAND...`, as rsync calls it.
pub(crate) fn pipe_main(args: &[OsString]) -> Result<()> {
    let (Some(socket), Some(command)) = (args.first(), args.get(2..)) else {
        return Err(AdmError::new(Exit::Usage, "ssh-pipe is for rsync only"));
    };
    let words: Vec<String> = command
        .iter()
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    pipe(Path::new(socket), &words.join(" "))
        .map_err(|e| AdmError::new(Exit::Peer, format!("connection to the ssh session: {e}")))
}

fn pipe(socket: &Path, command: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    let length = u32::try_from(command.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(command.as_bytes())?;
    let mut upward = stream.try_clone()?;
    // This thread ends with the process at the latest: rsync may keep our stdin open.
    std::thread::spawn(move || {
        let _ = copy(&mut io::stdin().lock(), &mut upward);
        let _ = upward.shutdown(Shutdown::Write);
    });
    copy(&mut stream, &mut io::stdout().lock())
}

/// Copies and flushes after every piece: rsync waits for answers.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(&buffer[..count])?;
        to.flush()?;
    }
}
