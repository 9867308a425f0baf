//! ssh to a peer, as `join-cluster` and `invalidate-remote` need it: one command, or rsync through the session.

mod bridge;
mod session;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

pub(crate) use bridge::{pipe_main, rsync};
pub(crate) use session::Peer;

use crate::error::{AdmError, Result};
use crate::exit::Exit;

/// How to reach the peer by ssh.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SshOptions {
    /// Port of sshd on the peer.
    #[arg(long = "ssh-port", value_name = "PORT", default_value_t = 22)]
    pub(crate) port: u16,
    /// User on the peer; must be able to write /mars there.
    #[arg(long = "ssh-user", value_name = "USER", default_value = "root")]
    pub(crate) user: String,
    /// Private key [default: the keys of the agent (ssh -A), then ~/.ssh/id_*].
    #[arg(long = "ssh-key", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Accept the host key of a peer that is not in known_hosts, and add it there.
    #[arg(long = "accept-new-host-key")]
    pub(crate) accept_new: bool,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            port: 22,
            user: "root".into(),
            key: None,
            accept_new: false,
        }
    }
}

/// Runs one command on the node with this address (the value of its `ip-` link) and returns what it prints.
pub(crate) fn run_remote(address: &str, command: &str, options: &SshOptions) -> Result<String> {
    let peer = Peer::connect(&host_part(address), options)?;
    let done = peer.exec(command)?;
    if done.status == 0 {
        return Ok(done.output);
    }
    let text = format!(
        "'{command}' ended with code {}: {}",
        done.status,
        done.errors.trim_end()
    );
    Err(AdmError::new(Exit::Peer, text))
}

/// An address without its port.
fn host_part(address: &str) -> String {
    if let Ok(socket) = address.parse::<SocketAddr>() {
        return socket.ip().to_string();
    }
    if address.parse::<IpAddr>().is_ok() {
        return address.into();
    }
    address.split(':').next().unwrap_or(address).into()
}
