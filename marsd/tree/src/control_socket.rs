//! The packets between marsd and a shim: JSON over a `SOCK_SEQPACKET` unix socket, at most one descriptor beside each
//! (`symlink-spec.md` section 9).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mars_core::control::{MESSAGE_MAX, Message, Request};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    accept_with, bind, connect, listen, recvmsg, sendmsg, socket_with, socketpair,
};

/// Why a packet was not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A system call failed.
    #[error("{operation} {path}: {cause}")]
    Io {
        /// What was tried, such as "connect to".
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// Another process listens there.
    #[error("another shim serves {path} already")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The other side is gone.
    #[error("{path}: the other side closed the connection")]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// Nothing came (or could be sent) within the timeout; for a non-blocking call: nothing is there now.
    #[error("{path}: no message in time")]
    TimedOut {
        /// The socket.
        path: PathBuf,
    },
    /// A packet that is not a message of this protocol.
    #[error("{path}: bad message: {why}")]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// One connection, of either side; every call moves one whole packet.
#[derive(Debug)]
pub struct ControlSocket {
    fd: OwnedFd,
    path: PathBuf,
}

impl ControlSocket {
    /// Connects to the shim that listens at `path`; blocking, without timeout.
    pub fn connect(path: &Path) -> Result<Self, ControlError> {
        let operation = "connect to";
        let address = address(path, operation)?;
        let fd = new_socket().map_err(|e| io(operation, path, e))?;
        connect(&fd, &address).map_err(|e| io(operation, path, e))?;
        Ok(Self {
            fd,
            path: path.into(),
        })
    }

    /// Both ends of a connection within one process; `path` is for messages only.
    pub fn pair(path: &Path) -> Result<(Self, Self), ControlError> {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| io("make a socket pair for", path, e))?;
        let end = |fd| Self {
            fd,
            path: path.into(),
        };
        Ok((end(a), end(b)))
    }

    /// A second handle of the same connection, for a thread that only receives or only sends.
    pub fn try_clone(&self) -> Result<Self, ControlError> {
        let fd = self.fd.try_clone().map_err(|cause| ControlError::Io {
            operation: "duplicate the descriptor of",
            path: self.path.clone(),
            cause,
        })?;
        Ok(Self {
            fd,
            path: self.path.clone(),
        })
    }

    /// Longest time that one `send` or `recv` may take (of all handles of this connection); `None` for no limit.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ControlError> {
        for id in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&self.fd, id, timeout)
                .map_err(|e| io("set the timeout of", &self.path, e))?;
        }
        Ok(())
    }

    /// marsd's side: sends a request, with `fd` beside it.
    pub fn send(&self, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<(), ControlError> {
        let json = serde_json::to_vec(request).map_err(|e| self.malformed(&e.to_string()))?;
        self.send_packet(&json, fd, SendFlags::NOSIGNAL)
    }

    /// marsd's side: receives a message and the descriptor beside it.
    pub fn recv(&self) -> Result<(Message, Option<OwnedFd>), ControlError> {
        let (json, fd) = self.recv_packet(RecvFlags::CMSG_CLOEXEC)?;
        let message = serde_json::from_slice(&json).map_err(|e| self.malformed(&e.to_string()))?;
        Ok((message, fd))
    }

    /// The shim's side: sends a message, with `fd` beside it. Never waits: [`ControlError::TimedOut`] if the
    /// receiver does not keep up.
    pub fn send_message(
        &self,
        message: &Message,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), ControlError> {
        let json = serde_json::to_vec(message).map_err(|e| self.malformed(&e.to_string()))?;
        self.send_packet(&json, fd, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// The shim's side: takes a request and the descriptor beside it. Never waits: [`ControlError::TimedOut`] if
    /// none is there.
    pub fn recv_request(&self) -> Result<(Request, Option<OwnedFd>), ControlError> {
        let (json, fd) = self.recv_packet(RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)?;
        let request = serde_json::from_slice(&json).map_err(|e| self.malformed(&e.to_string()))?;
        Ok((request, fd))
    }

    fn send_packet(
        &self,
        json: &[u8],
        fd: Option<BorrowedFd<'_>>,
        flags: SendFlags,
    ) -> Result<(), ControlError> {
        if json.len() > MESSAGE_MAX {
            return Err(
                self.malformed(&format!("{} bytes are more than {MESSAGE_MAX}", json.len()))
            );
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(self.malformed("no room for the descriptor"));
        }
        loop {
            match sendmsg(&self.fd, &[IoSlice::new(json)], &mut ancillary, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(self.closed()),
                Err(Errno::AGAIN) => return Err(self.timed_out()),
                Err(e) => return Err(io("send to", &self.path, e)),
            }
        }
    }

    fn recv_packet(&self, flags: RecvFlags) -> Result<(Vec<u8>, Option<OwnedFd>), ControlError> {
        let mut data = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut reset = false;
        loop {
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut iov = [IoSliceMut::new(&mut data)];
            let got = match recvmsg(&self.fd, &mut iov, &mut ancillary, flags) {
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                // The other end has gone with requests untaken. What it had sent before is still to be had.
                Err(Errno::CONNRESET) if !reset => {
                    reset = true;
                    continue;
                }
                Err(Errno::CONNRESET) => return Err(self.closed()),
                Err(Errno::AGAIN) => return Err(self.timed_out()),
                Err(e) => return Err(io("receive from", &self.path, e)),
            };
            // Surplus descriptors are closed here.
            let fd = ancillary.drain().find_map(|m| match m {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            if got.bytes == 0 {
                return Err(self.closed());
            }
            if got.flags.contains(ReturnFlags::TRUNC) {
                return Err(self.malformed(&format!("longer than {MESSAGE_MAX} bytes")));
            }
            data.truncate(got.bytes);
            return Ok((data, fd));
        }
    }

    fn malformed(&self, why: &str) -> ControlError {
        ControlError::Malformed {
            path: self.path.clone(),
            why: why.into(),
        }
    }

    fn closed(&self) -> ControlError {
        ControlError::Closed {
            path: self.path.clone(),
        }
    }

    fn timed_out(&self) -> ControlError {
        ControlError::TimedOut {
            path: self.path.clone(),
        }
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The listening side; removes its socket file when dropped.
#[derive(Debug)]
pub struct ControlListener {
    fd: OwnedFd,
    path: PathBuf,
}

impl ControlListener {
    /// Listens at `path` (mode 0600). A socket file that nobody listens on is replaced;
    /// [`ControlError::InUse`] if somebody does.
    pub fn listen(path: &Path) -> Result<Self, ControlError> {
        let operation = "listen on";
        let address = address(path, operation)?;
        match ControlSocket::connect(path) {
            Ok(_) => return Err(ControlError::InUse { path: path.into() }),
            Err(ControlError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => {
            }
            Err(_) => std::fs::remove_file(path).map_err(|cause| ControlError::Io {
                operation: "remove the stale socket",
                path: path.into(),
                cause,
            })?,
        }
        let fd = new_socket().map_err(|e| io(operation, path, e))?;
        bind(&fd, &address).map_err(|e| io(operation, path, e))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, mode).map_err(|cause| ControlError::Io {
            operation: "set the mode of",
            path: path.into(),
            cause,
        })?;
        listen(&fd, 16).map_err(|e| io(operation, path, e))?;
        Ok(Self {
            fd,
            path: path.into(),
        })
    }

    /// Waits for the next client.
    pub fn accept(&self) -> Result<ControlSocket, ControlError> {
        let fd = accept_with(&self.fd, SocketFlags::CLOEXEC)
            .map_err(|e| io("accept on", &self.path, e))?;
        Ok(ControlSocket {
            fd,
            path: self.path.clone(),
        })
    }
}

impl AsFd for ControlListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        // Best effort: a stale file is replaced by the next listener.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

fn address(path: &Path, operation: &'static str) -> Result<SocketAddrUnix, ControlError> {
    SocketAddrUnix::new(path).map_err(|e| io(operation, path, e))
}

fn io(operation: &'static str, path: &Path, errno: Errno) -> ControlError {
    ControlError::Io {
        operation,
        path: path.into(),
        cause: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use mars_core::control::{PROTOCOL, Resume, Verb};

    use super::*;

    fn pair() -> (
        tempfile::TempDir,
        ControlListener,
        ControlSocket,
        ControlSocket,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shim-r.sock");
        let listener = ControlListener::listen(&path).unwrap();
        let client = ControlSocket::connect(&path).unwrap();
        let server = listener.accept().unwrap();
        (dir, listener, client, server)
    }

    fn hello() -> Request {
        let verb = Verb::Hello { protocol: PROTOCOL };
        Request { id: 7, verb }
    }

    #[test]
    fn requests_messages_and_descriptors_cross() {
        let (_dir, _listener, client, server) = pair();
        assert!(matches!(
            server.recv_request(),
            Err(ControlError::TimedOut { .. })
        ));
        client.send(&hello(), None).unwrap();
        let (request, fd) = server.recv_request().unwrap();
        assert_eq!((request, fd.is_none()), (hello(), true));

        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"held").unwrap();
        let loop_device = "/dev/loop9".to_string();
        let hold = Message::Hold(Resume { loop_device });
        server.send_message(&hold, Some(file.as_fd())).unwrap();
        let (message, fd) = client.recv().unwrap();
        assert_eq!(message, hold);
        let mut text = String::new();
        let mut got = std::fs::File::from(fd.unwrap());
        std::io::Seek::rewind(&mut got).unwrap();
        got.read_to_string(&mut text).unwrap();
        assert_eq!(text, "held");
    }

    #[test]
    fn a_dead_peer_a_deadline_and_rubbish_are_told_apart() {
        let (_dir, _listener, client, server) = pair();
        client.set_timeout(Some(Duration::from_millis(10))).unwrap();
        assert!(matches!(client.recv(), Err(ControlError::TimedOut { .. })));
        rustix::io::write(&server, b"{rubbish").unwrap();
        assert!(matches!(client.recv(), Err(ControlError::Malformed { .. })));
        drop(server);
        assert!(matches!(client.recv(), Err(ControlError::Closed { .. })));
    }

    #[test]
    fn the_last_words_of_a_peer_arrive_though_it_left_requests_untaken() {
        let (_dir, _listener, client, server) = pair();
        client.send(&hello(), None).unwrap();
        client.send(&hello(), None).unwrap();
        server.recv_request().unwrap();
        let why = "last".to_string();
        let result = Err(mars_core::control::Refusal::Invalid { why });
        let last = Message::Reply(mars_core::control::Reply { id: 7, result });
        server.send_message(&last, None).unwrap();
        drop(server);
        assert_eq!(client.recv().unwrap().0, last);
        assert!(matches!(client.recv(), Err(ControlError::Closed { .. })));
    }

    #[test]
    fn a_live_listener_is_respected_and_a_stale_socket_replaced() {
        let (dir, listener, _client, _server) = pair();
        let path = dir.path().join("shim-r.sock");
        assert!(matches!(
            ControlListener::listen(&path),
            Err(ControlError::InUse { .. })
        ));
        // As a killed process leaves it: the file stays, nobody listens.
        let ControlListener { .. } = &listener;
        let stale = dir.path().join("stale.sock");
        std::fs::hard_link(&path, &stale).unwrap();
        drop(listener);
        ControlListener::listen(&stale).unwrap();
    }
}
