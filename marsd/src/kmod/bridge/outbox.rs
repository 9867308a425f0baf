//! What marsd is told: replies in their order, and the newest status when it has taken all of them. What it does not take
//! at once is kept and offered again.

use std::collections::VecDeque;

use mars_core::control::{Message, Reply, ShimStatus};
use mars_tree::control_socket::{ControlError, ControlSocket};

/// What is to be told; see the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Not taken yet.
    replies: VecDeque<Message>,
    /// The status that was taken last; `None` if a newer one was not.
    told: Option<ShimStatus>,
}

impl Outbox {
    /// Whether replies wait for [`Self::flush`].
    pub(super) fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Whether a status is to be told, or was not taken.
    pub(super) fn needs_status(&self) -> bool {
        self.told.is_none()
    }

    /// Sends a reply, now or later.
    pub(super) fn reply(
        &mut self,
        socket: &ControlSocket,
        reply: Reply,
    ) -> Result<(), ControlError> {
        self.replies.push_back(Message::Reply(reply));
        self.flush(socket)
    }

    /// Sends the replies that wait, as far as marsd takes them.
    pub(super) fn flush(&mut self, socket: &ControlSocket) -> Result<(), ControlError> {
        while let Some(message) = self.replies.front() {
            match socket.send_message(message, None) {
                Ok(()) => {}
                Err(ControlError::TimedOut { .. }) => return Ok(()),
                Err(e) => return Err(e),
            }
            self.replies.pop_front();
        }
        Ok(())
    }

    /// Tells the status if it is new. One that is not taken is not kept: it is to be made anew.
    pub(super) fn tell(
        &mut self,
        socket: &ControlSocket,
        status: ShimStatus,
    ) -> Result<(), ControlError> {
        if self.told.as_ref() == Some(&status) {
            return Ok(());
        }
        self.told = None;
        self.flush(socket)?;
        if !self.replies.is_empty() {
            return Ok(());
        }
        match socket.send_message(&Message::Status(status.clone()), None) {
            Ok(()) => self.told = Some(status),
            Err(ControlError::TimedOut { .. }) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Says a status once more, new or not, as a sign of life; nothing is lost if marsd does not take it.
    pub(super) fn repeat(&self, socket: &ControlSocket, status: &ShimStatus) {
        let _ = socket.send_message(&Message::Status(status.clone()), None);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mars_core::control::{Counters, Refusal, ShimState};

    use super::*;

    fn status(size_bytes: u64) -> ShimStatus {
        ShimStatus {
            state: ShimState::Logging,
            device: None,
            size_bytes,
            logs: Vec::new(),
            error: None,
            counters: Counters::default(),
        }
    }

    fn reply(id: u64) -> Reply {
        let why = "x".repeat(10_000);
        Reply {
            id,
            result: Err(Refusal::Invalid { why }),
        }
    }

    #[test]
    fn what_is_not_taken_at_once_is_told_later_in_order() {
        let (marsd, bridge) = ControlSocket::pair(Path::new("test")).unwrap();
        let mut outbox = Outbox::default();
        let mut asked = 0;
        while outbox.replies.len() < 3 {
            outbox.reply(&bridge, reply(asked)).unwrap();
            asked += 1;
        }
        outbox.tell(&bridge, status(1)).unwrap();
        assert!(outbox.has_replies() && outbox.needs_status());
        let mut answered = 0;
        while answered < asked {
            outbox.flush(&bridge).unwrap();
            let (message, _) = marsd.recv().unwrap();
            assert!(
                matches!(message, Message::Reply(Reply { id, .. }) if id == answered),
                "{answered}"
            );
            answered += 1;
        }
        outbox.tell(&bridge, status(2)).unwrap();
        assert_eq!(marsd.recv().unwrap().0, Message::Status(status(2)));
        assert!(!outbox.has_replies() && !outbox.needs_status());
        drop(marsd);
        outbox.tell(&bridge, status(2)).unwrap();
        assert!(outbox.tell(&bridge, status(3)).is_err());
    }
}
