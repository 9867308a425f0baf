//! The receiving side of the tree: the real rsync, run through a stream, mirrors a peer's view into a staging directory.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::client::PeerConn;
use super::error::NetError;
use super::mux::Stream;
use super::request::{StreamRequest, is_tree_path};

const DEADLINE_SECS: u64 = 60;
/// Exit code of rsync if something vanished while it looked.
const VANISHED: i32 = 24;
/// Bytes kept of what rsync complains about.
const STDERR_MAX: u64 = 4096;
/// After the end of rsync.
const STDERR_WAIT: Duration = Duration::from_secs(1);
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What to mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mirror {
    /// All; what the peer does not have (any more) is removed from the staging directory.
    Whole,
    /// These links, and directories with all below, relative to the root of the tree; what the peer does not have
    /// (any more) is removed from the staging directory.
    Paths(Vec<String>),
}

/// Mirrors the view of the peer into `staging`, which is made if missing. Only directories and symlinks travel, links
/// with their exact times. Mirrors into the same directory wait for each other. Takes at most 60 s.
///
/// # Errors
/// A path that cannot be in a tree, the stream is refused or ends, rsync fails (with what it says), or too slow.
pub async fn mirror(conn: &PeerConn, staging: &Path, what: &Mirror) -> Result<(), NetError> {
    if let Mirror::Paths(paths) = what {
        if let Some(path) = paths.iter().find(|path| !is_tree_path(path)) {
            return Err(NetError::BadPath { path: path.clone() });
        }
        if paths.is_empty() {
            return Ok(());
        }
    }
    let lock = conn.context().staging_lock(staging);
    let work = async {
        let _alone = lock.lock().await;
        run(conn, staging, what).await
    };
    match timeout(Duration::from_secs(DEADLINE_SECS), work).await {
        Ok(done) => done,
        Err(_) => Err(NetError::Timeout {
            peer: conn.peer().clone(),
            operation: "mirroring its tree".into(),
            secs: DEADLINE_SECS,
        }),
    }
}

async fn run(conn: &PeerConn, staging: &Path, what: &Mirror) -> Result<(), NetError> {
    let local = |operation, path: &Path| {
        let path = path.to_owned();
        move |cause| NetError::Local {
            operation,
            path,
            cause,
        }
    };
    let failed = |cause: String| NetError::Mirror {
        peer: conn.peer().clone(),
        cause,
    };
    let mut dir = fs::DirBuilder::new();
    dir.recursive(true).mode(0o700);
    dir.create(staging)
        .map_err(local("make the staging directory", staging))?;
    let rsh = remote_shell(conn.context().bridge_exe(), &conn.context().bridge_socket())
        .ok_or_else(|| failed("a quote in the path of marsd or of its run directory".into()))?;
    let stream = conn.open(&StreamRequest::Rsync).await?;
    let socket = Socket::bind(rsh.socket).map_err(|(path, e)| local("listen on", &path)(e))?;
    let mut child = command(conn, staging, what, &rsh.option)
        .spawn()
        .map_err(local("start", Path::new("rsync")))?;
    feed(&mut child, what);
    let complaints = child
        .stderr
        .take()
        .map(|stderr| tokio::spawn(gather(stderr)));
    let (status, carried) = wait(&mut child, &socket, stream).await;
    let status = status.map_err(local("wait for", Path::new("rsync")))?;
    if is_good(status) {
        return Ok(());
    }
    let mut cause = format!("rsync ended with {status}");
    if let Some(complaints) = complaints
        && let Ok(Ok(text)) = timeout(STDERR_WAIT, complaints).await
    {
        cause = format!("{cause}: {text}");
    }
    if let Err(e) = carried {
        cause = format!("{e} ({cause})");
    }
    Err(failed(cause))
}

/// Waits for rsync while its bytes are carried between its bridge and the peer.
async fn wait(
    child: &mut Child,
    socket: &Socket,
    mut stream: Stream,
) -> (io::Result<ExitStatus>, io::Result<()>) {
    let carry = async {
        let (mut bridge, _) = socket.listener.accept().await?;
        copy_bidirectional(&mut bridge, &mut stream).await.map(drop)
    };
    tokio::pin!(carry);
    tokio::select! {
        carried = &mut carry => (child.wait().await, carried),
        status = child.wait() => {
            // It may have failed because of the connection: then that is the better reason.
            let carried = timeout(LAST_WORDS, carry).await.unwrap_or(Ok(()));
            (status, carried)
        }
    }
}

fn command(conn: &PeerConn, staging: &Path, what: &Mirror, rsh: &OsString) -> Command {
    let mut command = Command::new("rsync");
    // Without the window of -1, stamps of the same second count as equal.
    command.args([
        "--recursive",
        "--links",
        "--times",
        "--omit-dir-times",
        "--modify-window=-1",
    ]);
    // Neither logs nor data files travel, and no hidden files, whatever the peer offers.
    command.args(["--max-size=1", "--exclude=log-*", "--exclude=.*"]);
    match what {
        Mirror::Whole => command.arg("--delete"),
        Mirror::Paths(_) => command.args(["--from0", "--files-from=-", "--delete-missing-args"]),
    };
    let mut shell = OsString::from("--rsh=");
    shell.push(rsh);
    command.arg(shell).arg("--");
    command.arg(format!("{}::mars/", conn.peer()));
    let mut target = staging.as_os_str().to_owned();
    target.push("/");
    command.arg(target);
    command
        .env_remove("RSYNC_RSH")
        .env_remove("RSYNC_PROXY")
        .env_remove("RSYNC_CONNECT_PROG");
    command.env("LC_ALL", "C").kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Gives rsync the list of paths on its stdin.
fn feed(child: &mut Child, what: &Mirror) {
    let Some(mut stdin) = child.stdin.take() else {
        return;
    };
    let Mirror::Paths(paths) = what else {
        return;
    };
    let list = paths.join("\0");
    tokio::spawn(async move {
        // If rsync does not read, it has ended, and says why.
        drop(stdin.write_all(list.as_bytes()).await);
    });
}

/// Did rsync do its work? A link that vanished meanwhile is none of its faults.
pub(super) fn is_good(status: ExitStatus) -> bool {
    status.success() || status.code() == Some(VANISHED)
}

/// What a program says on stderr, on one line.
pub(super) async fn gather(mut from: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    // What cannot be read is not told.
    drop((&mut from).take(STDERR_MAX).read_to_end(&mut text).await);
    drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await);
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join("; ")
}

struct RemoteShell {
    option: OsString,
    socket: PathBuf,
}

/// The command line by which rsync starts the bridge; rsync splits it at blanks and understands single quotes.
fn remote_shell(exe: &Path, socket: &Path) -> Option<RemoteShell> {
    let has_quote = |path: &Path| path.as_os_str().as_encoded_bytes().contains(&b'\'');
    if has_quote(exe) || has_quote(socket) {
        return None;
    }
    let mut option = OsString::from("'");
    option.push(exe);
    option.push("' rsync-bridge '");
    option.push(socket);
    option.push("'");
    Some(RemoteShell {
        option,
        socket: socket.to_owned(),
    })
}

/// A listening unix socket that disappears with its owner.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    fn bind(path: PathBuf) -> Result<Self, (PathBuf, io::Error)> {
        match UnixListener::bind(&path) {
            Ok(listener) => Ok(Self { listener, path }),
            Err(e) => Err((path, e)),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If it is gone already, all is well.
        drop(fs::remove_file(&self.path));
    }
}
