//! The control socket: takes requests, answers them, tells status changes, hands out the descriptor to hold.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use mars_core::control::{Message, Reply, Request, ShimStatus, Verb};
use mars_tree::control_socket::{ControlError, ControlListener, ControlSocket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::error::ShimError;
use crate::service::Service;

/// Shortest time between two status messages.
const PAUSE: Duration = Duration::from_millis(3);
/// A status that a client could not take is sent again after this.
const RETRY: Duration = Duration::from_millis(50);
/// Replies that a client may leave untaken.
const OUTBOX_MAX: usize = 64;

struct Client {
    socket: ControlSocket,
    greeted: bool,
    holds: bool,
    /// It could not take everything; what it did not take is sent later.
    behind: bool,
    /// Replies that it could not take yet.
    outbox: VecDeque<Message>,
    dead: bool,
}

impl Client {
    /// Sends the replies that wait, then the status.
    fn tell(&mut self, status: &ShimStatus) {
        if !self.greeted || self.dead {
            return;
        }
        self.flush();
        if self.outbox.is_empty() {
            self.outbox.push_back(Message::Status(status.clone()));
            self.flush();
            // A status that was not taken is made anew, not kept.
            self.outbox.clear();
        }
    }

    fn reply(&mut self, reply: Reply) {
        if self.outbox.len() >= OUTBOX_MAX {
            tracing::warn!("a client takes no replies: it is disconnected");
            self.dead = true;
            return;
        }
        self.outbox.push_back(Message::Reply(reply));
        self.flush();
    }

    fn flush(&mut self) {
        self.behind = false;
        while let Some(message) = self.outbox.front() {
            match self.socket.send_message(message, None) {
                Ok(()) => {}
                Err(ControlError::TimedOut { .. }) => {
                    self.behind = true;
                    return;
                }
                Err(_) => {
                    self.dead = true;
                    return;
                }
            }
            self.outbox.pop_front();
        }
    }
}

/// Why the process ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stopped,
    /// A signal came while nothing was served.
    Signal,
}

/// The control side.
pub struct Server {
    listener: ControlListener,
    signals: SignalFd,
    service: Service,
    clients: Vec<Client>,
    told: Option<Instant>,
}

impl Server {
    /// Serves `service` at `socket`.
    pub fn new(service: Service, socket: &Path, signals: SignalFd) -> Result<Self, ControlError> {
        Ok(Self {
            listener: ControlListener::listen(socket)?,
            signals,
            service,
            clients: Vec::new(),
            told: None,
        })
    }

    /// Serves until told to stop. An error means that the data path has died.
    pub fn run(&mut self) -> Result<End, ShimError> {
        loop {
            let ready = self.wait()?;
            if ready.signal && self.take_signal() {
                return Ok(End::Signal);
            }
            if ready.changed {
                self.service.clear_changed()?;
                let status = self.service.status();
                for client in &mut self.clients {
                    client.tell(&status);
                }
                self.told = Some(Instant::now());
            } else if self.clients.iter().any(|c| c.behind) {
                let status = self.service.status();
                for client in self.clients.iter_mut().filter(|c| c.behind) {
                    client.tell(&status);
                }
            }
            for index in ready.clients {
                self.serve_client(index);
                if self.service.stopped() {
                    return Ok(End::Stopped);
                }
            }
            self.hand_out();
            self.clients.retain(|c| !c.dead);
            if ready.listener {
                self.accept();
            }
        }
    }

    /// Waits until something is to be done. Status changes are noticed only after a pause behind the last message.
    fn wait(&self) -> Result<Ready, ShimError> {
        let quiet = self.told.and_then(|at| PAUSE.checked_sub(at.elapsed()));
        let changed = self.service.changed_fd().filter(|_| quiet.is_none());
        let behind = self.clients.iter().any(|c| c.behind);
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        for client in &self.clients {
            fds.push(PollFd::new(client.socket.as_fd(), PollFlags::POLLIN));
        }
        if let Some(fd) = changed {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        let timeout = match (quiet, behind) {
            // Milliseconds; rounded up.
            (Some(left), _) => u16::try_from(left.as_millis() + 1).unwrap_or(3).into(),
            (None, true) => u16::try_from(RETRY.as_millis()).unwrap_or(50).into(),
            (None, false) => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => {
                return Err(ShimError::io("poll", Path::new("control socket"), e.into()));
            }
        }
        let is_ready = |fd: &PollFd<'_>| fd.any() == Some(true);
        let count = self.clients.len();
        Ok(Ready {
            listener: is_ready(&fds[0]),
            signal: is_ready(&fds[1]),
            clients: (0..count).filter(|n| is_ready(&fds[2 + n])).collect(),
            changed: fds.get(2 + count).is_some_and(is_ready),
        })
    }

    fn take_signal(&mut self) -> bool {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if !self.service.serving() {
                return true;
            }
            tracing::warn!(
                "signal {} is ignored while a device is served: stop the resource instead",
                signal.ssi_signo
            );
        }
        false
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok(socket) => self.clients.push(Client {
                socket,
                greeted: false,
                holds: false,
                behind: false,
                outbox: VecDeque::new(),
                dead: false,
            }),
            Err(e) => tracing::warn!("{e}"),
        }
    }

    /// Gives the descriptor to every greeted client that does not have it.
    fn hand_out(&mut self) {
        let Some((resume, fd)) = self.service.hold() else {
            return;
        };
        for client in &mut self.clients {
            if !client.greeted || client.holds || client.dead {
                continue;
            }
            match client
                .socket
                .send_message(&Message::Hold(resume.clone()), Some(fd))
            {
                Ok(()) => client.holds = true,
                // Its socket is full: later.
                Err(ControlError::TimedOut { .. }) => client.behind = true,
                Err(e) => {
                    tracing::warn!("{e}");
                    client.dead = true;
                }
            }
        }
    }

    fn serve_client(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        match client.socket.recv_request() {
            Ok((request, fd)) => self.serve_request(index, &request, fd),
            Err(ControlError::TimedOut { .. }) => {}
            Err(ControlError::Closed { .. }) => client.dead = true,
            Err(e) => {
                tracing::warn!("{e}");
                client.dead = true;
            }
        }
    }

    fn serve_request(&mut self, index: usize, request: &Request, fd: Option<OwnedFd>) {
        let greeting = matches!(request.verb, Verb::Hello { .. });
        let clients = &mut self.clients;
        let result = if greeting || clients[index].greeted {
            let mut tick = |status: &ShimStatus| {
                for client in clients.iter_mut() {
                    client.tell(status);
                }
            };
            self.service.carry_out(&request.verb, fd, &mut tick)
        } else {
            Err(ShimError::Invalid("the first message must be hello".into()))
        };
        let client = &mut self.clients[index];
        client.greeted |= greeting && result.is_ok();
        client.reply(Reply {
            id: request.id,
            result: result.map_err(|e| e.refusal()),
        });
    }
}

struct Ready {
    listener: bool,
    signal: bool,
    changed: bool,
    clients: Vec<usize>,
}
