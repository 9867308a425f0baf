//! An authenticated ssh session: the peer's host key is checked against known_hosts, we are authenticated by the agent
//! or by a key file.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ssh2::{CheckResult, HashType, HostKeyType, KnownHostFileKind, MethodType, Session};

use super::SshOptions;
use crate::context::say;
use crate::error::{AdmError, Result};
use crate::exit::Exit;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT_MILLIS: u32 = 30_000;
/// Tried in this order: a peer has several host keys, known_hosts may hold any of them.
const HOST_KEYS: [&str; 3] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521",
    "rsa-sha2-512,rsa-sha2-256,ssh-rsa",
];
const KEY_FILES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// A node that we are logged in to.
pub(crate) struct Peer {
    /// The session.
    pub(crate) session: Session,
    /// Address of this end of the connection.
    pub(crate) local_ip: IpAddr,
}

/// What a command on the peer did.
pub(crate) struct Done {
    /// Exit code.
    pub(crate) status: i32,
    /// What it printed on stdout.
    pub(crate) output: String,
    /// What it printed on stderr.
    pub(crate) errors: String,
}

fn failed(what: impl Into<String>) -> AdmError {
    AdmError::new(Exit::Peer, what)
}

impl Peer {
    /// Connects, checks the host key, logs in.
    pub(crate) fn connect(host: &str, options: &SshOptions) -> Result<Self> {
        let mut unknown: Option<(Session, IpAddr)> = None;
        let mut mismatch = false;
        let mut last = None;
        for method in HOST_KEYS {
            let stream = connect_tcp(host, options.port)?;
            let local_ip = stream
                .local_addr()
                .map_err(|e| failed(format!("connection to {host}: {e}")))?
                .ip();
            let session = match handshake(stream, method) {
                Ok(session) => session,
                Err(e) => {
                    last = Some(e);
                    continue;
                }
            };
            match check_host_key(&session, host, options.port)? {
                CheckResult::Match => return login(session, local_ip, host, options),
                CheckResult::Mismatch => mismatch = true,
                _ => unknown = unknown.or(Some((session, local_ip))),
            }
        }
        let port = options.port;
        if mismatch {
            return Err(failed(format!(
                "the host key of {host} is not the one in known_hosts: this may be another machine, or an attack"
            ))
            .remedy(format!("if the key was changed on purpose: ssh-keygen -R '{}'", entry_name(host, port))));
        }
        let Some((session, local_ip)) = unknown else {
            let cause = last.map_or_else(String::new, |e| format!(": {e}"));
            return Err(failed(format!(
                "no ssh connection to {host} port {port}{cause}"
            )));
        };
        if !options.accept_new {
            return Err(failed(format!("the host key of {host} is not known: {}", fingerprint(&session)))
                .remedy(format!(
                    "compare the fingerprint, then repeat with --accept-new-host-key, or: ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts"
                )));
        }
        remember_host_key(&session, host, port)?;
        login(session, local_ip, host, options)
    }

    /// Runs a command.
    pub(crate) fn exec(&self, command: &str) -> Result<Done> {
        let run = || -> std::result::Result<Done, Box<dyn std::error::Error>> {
            let mut channel = self.session.channel_session()?;
            channel.exec(command)?;
            let (mut output, mut errors) = (String::new(), String::new());
            channel.read_to_string(&mut output)?;
            channel.stderr().read_to_string(&mut errors)?;
            channel.wait_close()?;
            let status = channel.exit_status()?;
            Ok(Done {
                status,
                output,
                errors,
            })
        };
        run().map_err(|e| failed(format!("cannot run '{command}' on the peer: {e}")))
    }
}

fn connect_tcp(host: &str, port: u16) -> Result<TcpStream> {
    let addresses = (host, port).to_socket_addrs().map_err(|e| {
        failed(format!("cannot resolve '{host}': {e}"))
            .remedy("give an address, or mend /etc/hosts")
    })?;
    let mut cause = "it has no address".to_string();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(e) => cause = format!("{address}: {e}"),
        }
    }
    Err(failed(format!(
        "oops, no connection to {host} port {port}: {cause}"
    ))
    .remedy("does sshd run there? Another port is given with --ssh-port"))
}

fn handshake(stream: TcpStream, host_keys: &str) -> std::result::Result<Session, ssh2::Error> {
    let mut session = Session::new()?;
    session.set_timeout(ANSWER_TIMEOUT_MILLIS);
    session.set_tcp_stream(stream);
    session.method_pref(MethodType::HostKey, host_keys)?;
    session.handshake()?;
    Ok(session)
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from)
}

fn check_host_key(session: &Session, host: &str, port: u16) -> Result<CheckResult> {
    let text = |e: ssh2::Error| failed(format!("cannot check the host key: {e}"));
    let mut known = session.known_hosts().map_err(text)?;
    for file in [
        home().join(".ssh/known_hosts"),
        "/etc/ssh/ssh_known_hosts".into(),
    ] {
        for line in fs::read_to_string(&file).unwrap_or_default().lines() {
            // Lines that the library does not understand (markers, new key types) match nothing.
            let _ = known.read_str(line, KnownHostFileKind::OpenSSH);
        }
    }
    let (key, _) = session
        .host_key()
        .ok_or_else(|| failed(format!("{host} shows no host key")))?;
    Ok(known.check_port(host, port, key))
}

fn fingerprint(session: &Session) -> String {
    let hash = session.host_key_hash(HashType::Sha256);
    hash.map_or_else(
        || "no fingerprint".into(),
        |h| format!("SHA256:{}", base64(h).trim_end_matches('=')),
    )
}

/// The name under which known_hosts holds a host.
fn entry_name(host: &str, port: u16) -> String {
    if port == 22 {
        host.into()
    } else {
        format!("[{host}]:{port}")
    }
}

fn remember_host_key(session: &Session, host: &str, port: u16) -> Result<()> {
    let (key, kind) = session
        .host_key()
        .ok_or_else(|| failed(format!("{host} shows no host key")))?;
    let kind = match kind {
        HostKeyType::Ed25519 => "ssh-ed25519",
        HostKeyType::Ecdsa256 => "ecdsa-sha2-nistp256",
        HostKeyType::Ecdsa384 => "ecdsa-sha2-nistp384",
        HostKeyType::Ecdsa521 => "ecdsa-sha2-nistp521",
        HostKeyType::Rsa => "ssh-rsa",
        _ => {
            return Err(failed(format!(
                "{host} shows a host key of an unsupported kind"
            )));
        }
    };
    let file = home().join(".ssh/known_hosts");
    let line = format!("{} {kind} {}\n", entry_name(host, port), base64(key));
    let written = fs::create_dir_all(home().join(".ssh")).and_then(|()| {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).mode(0o600).open(&file)?;
        file.write_all(line.as_bytes())
    });
    written.map_err(|e| AdmError::system("append to", file.display(), e))?;
    say(&format!(
        "host key of {host} added to {}: {}",
        file.display(),
        fingerprint(session)
    ));
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = usize::try_from(word >> (18 - 6 * place) & 63).unwrap_or(0);
            out.push(if place <= chunk.len() {
                char::from(DIGITS[digit])
            } else {
                '='
            });
        }
    }
    out
}

fn login(session: Session, local_ip: IpAddr, host: &str, options: &SshOptions) -> Result<Peer> {
    let user = &options.user;
    let mut tried = Vec::new();
    if options.key.is_none() {
        match login_by_agent(&session, user) {
            Ok(true) => return Ok(Peer { session, local_ip }),
            Ok(false) => tried.push("the agent has no accepted key".to_string()),
            Err(e) => tried.push(format!("agent: {e}")),
        }
    }
    let files = match &options.key {
        Some(file) => vec![file.clone()],
        None => KEY_FILES
            .map(|name| home().join(".ssh").join(name))
            .to_vec(),
    };
    for file in files {
        if options.key.is_none() && !file.exists() {
            continue;
        }
        match login_by_file(&session, user, &file) {
            Ok(()) => return Ok(Peer { session, local_ip }),
            Err(e) => tried.push(format!("{}: {e}", file.display())),
        }
    }
    Err(failed(format!("{user}@{host} does not let us in ({})", tried.join("; ")))
        .remedy("log in here with 'ssh -A', or add a key of this node to authorized_keys of the peer, or give --ssh-key FILE"))
}

fn login_by_agent(session: &Session, user: &str) -> std::result::Result<bool, ssh2::Error> {
    let mut agent = session.agent()?;
    agent.connect()?;
    agent.list_identities()?;
    for identity in agent.identities()? {
        if agent.userauth(user, &identity).is_ok() && session.authenticated() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn login_by_file(
    session: &Session,
    user: &str,
    file: &Path,
) -> std::result::Result<(), ssh2::Error> {
    session.userauth_pubkey_file(user, None, file, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_rfc_4648() {
        for (text, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }
}
