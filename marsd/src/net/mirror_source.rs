//! The serving side of the tree: rsync's single-use daemon mode on a stream, with a configuration that leaves the peer
//! no choice of path, filter or permissions.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::NetError;
use super::mirror::{gather, is_good};
use super::mux::Stream;
use super::server::Incoming;

const DEADLINE_SECS: u64 = 65;
/// Peers served at the same time; others wait.
const AT_ONCE: usize = 4;

/// The options a peer may use: nothing that follows links, writes, or opens files. (`delete` stands here because rsync
/// counts `delete-missing-args` as one; a sender deletes nothing.) Needs rsync 3.2 or later.
const REFUSED: &str = "* !recursive !links !times !omit-dir-times !exclude !files-from !from0 !relative \
                       !implied-dirs !delete-missing-args !delete";

/// Serves the own tree to peers.
#[derive(Debug, Clone)]
pub struct MirrorSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: PathBuf,
    slots: Semaphore,
}

impl MirrorSource {
    /// Serves the tree `mars_dir`; the configuration of rsync is written to `RUN_DIR/rsyncd.conf`.
    ///
    /// # Errors
    /// A path that cannot stand in a configuration, or the file cannot be written.
    pub fn new(run_dir: &Path, mars_dir: &Path) -> Result<Self, NetError> {
        let config = run_dir.join("rsyncd.conf");
        let local = |operation, path: &Path| {
            let path = path.to_owned();
            move |cause| NetError::Local {
                operation,
                path,
                cause,
            }
        };
        let text = format_config(mars_dir, nix::unistd::geteuid().is_root())
            .map_err(local("serve the tree", mars_dir))?;
        store(&config, &text).map_err(local("write", &config))?;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                slots: Semaphore::new(AT_ONCE),
            }),
        })
    }

    /// Serves one stream of the kind [`super::StreamRequest::Rsync`].
    ///
    /// # Errors
    /// The peer goes away, rsync fails (with what it says), or it takes longer than 65 s.
    pub async fn serve(&self, incoming: Incoming) -> Result<(), NetError> {
        let stream = incoming.accept().await?;
        let peer = stream.peer().clone();
        let work = self.run(stream);
        match timeout(Duration::from_secs(DEADLINE_SECS), work).await {
            Ok(done) => done.map_err(|cause| NetError::MirrorSource { peer, cause }),
            Err(_) => Err(NetError::Timeout {
                peer,
                operation: "taking the tree".into(),
                secs: DEADLINE_SECS,
            }),
        }
    }

    async fn run(&self, stream: Stream) -> Result<(), String> {
        let Ok(_slot) = self.inner.slots.acquire().await else {
            return Err("shutting down".into());
        };
        let mut child = self
            .command()
            .spawn()
            .map_err(|e| format!("cannot start rsync: {e}"))?;
        let complaints = child
            .stderr
            .take()
            .map(|stderr| tokio::spawn(gather(stderr)));
        match carry(&mut child, stream).await {
            Ok(status) if is_good(status) => Ok(()),
            Ok(status) => {
                let text = match complaints {
                    Some(complaints) => complaints.await.unwrap_or_default(),
                    None => String::new(),
                };
                Err(format!("rsync ended with {status}: {text}"))
            }
            Err(e) => Err(e.to_string()),
        }
    }

    fn command(&self) -> Command {
        let mut config = std::ffi::OsString::from("--config=");
        config.push(&self.inner.config);
        let mut command = Command::new("rsync");
        command.args(["--server", "--daemon"]).arg(config).arg(".");
        command.env_clear().env("LC_ALL", "C").kill_on_drop(true);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Carries bytes until rsync has closed its output, then waits for its end.
async fn carry(child: &mut Child, stream: Stream) -> io::Result<ExitStatus> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("rsync has no pipes"));
    };
    let up = async move {
        // At the end, good or bad, rsync sees the end of its input, and ends.
        drop(copy(&mut reader, &mut stdin).await);
        drop(stdin);
        std::future::pending::<()>().await;
    };
    let down = async move {
        copy(&mut stdout, &mut writer).await?;
        writer.shutdown().await
    };
    tokio::select! {
        sent = down => sent?,
        () = up => {}
    }
    child.wait().await
}

fn format_config(mars_dir: &Path, is_root: bool) -> io::Result<String> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let path = mars_dir
        .to_str()
        .ok_or_else(|| bad("the path is not UTF-8"))?;
    if !mars_dir.is_absolute() {
        return Err(bad("the path is not absolute"));
    }
    if path.contains(['%', '\\']) || path.chars().any(char::is_control) || path.trim() != path {
        return Err(bad(
            "rsync cannot take a path with '%', '\\', control characters or outer blanks",
        ));
    }
    // In a chroot, links of the tree lead nowhere, even for a version of rsync that would follow them on request.
    let (chroot, user) = if is_root {
        ("yes", "uid = 0\ngid = 0\n")
    } else {
        ("no", "")
    };
    Ok(format!(
        "# Written by marsd.\n\
         use chroot = {chroot}\nmunge symlinks = no\nread only = yes\nlist = no\n\
         log file = /dev/null\ntransfer logging = no\nmax verbosity = 0\n\
         reverse lookup = no\nforward lookup = no\nnumeric ids = yes\ntimeout = 60\n\
         refuse options = {REFUSED}\n\
         {user}[mars]\npath = {path}\n\
         exclude = .* log-* /log.txt* /*.log /*.status\n"
    ))
}

fn store(config: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = config.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    let temp = config.with_extension("conf.new");
    match fs::remove_file(&temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temp)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temp, config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_rsync_would_misread_is_refused() {
        assert!(
            format_config(Path::new("/mars"), false)
                .unwrap()
                .contains("\npath = /mars\n")
        );
        for bad in ["mars", "/a%b", "/a\npath = /", "/a ", "/a\\"] {
            assert!(format_config(Path::new(bad), true).is_err(), "{bad:?}");
        }
    }
}
