//! Puts the parts of the daemon together and runs them until a signal ends it.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mars_core::LinkPath;
use mars_tree::{Env, TreeDir, key};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::{Instant, sleep};

use crate::brain::{Brain, Event, Setup, TICK};
use crate::net::{
    Address, DEFAULT_PORT, Directory, Identity, MirrorSource, NetContext, any_address, listen,
};
use crate::params::Params;
use crate::serve::{Serving, Sources};
use crate::shims::{ShimContext, ShimKind};
use crate::transfer::Transfer;
use crate::watch;
use crate::work::LogBoard;

/// How long the end of an earlier marsd is waited for, and how often it is looked at.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// How the daemon is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The tree, the own name and the place for sockets.
    pub env: Env,
    /// TCP port to listen on, instead of that in the own address link.
    pub port: Option<u16>,
    /// File of permanent parameters.
    pub config: PathBuf,
    /// Directory of the devices.
    pub device_dir: PathBuf,
    /// What serves the devices.
    pub shim: ShimKind,
    /// This program.
    pub own_exe: PathBuf,
    /// Least level of messages of the shims.
    pub log_level: String,
}

type Failure = Box<dyn Error + Send + Sync>;

/// Runs the daemon until SIGTERM or SIGINT ends it in good order; a second signal ends it at once.
///
/// # Errors
/// No tree at the place, another marsd runs on it, the port is taken, or the system refuses something needed.
pub async fn run(options: Options) -> Result<(), Failure> {
    let Options {
        env,
        port,
        config,
        device_dir,
        shim,
        own_exe,
        log_level,
    } = options;
    if !env.dir.join("ips").is_dir() {
        return Err(format!(
            "{} holds no cluster: run 'marsadm create-cluster' or 'marsadm join-cluster PEER' first",
            env.dir.display()
        )
        .into());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&env.run)?;
    let _only_one = lock(&env.run).await?;
    let dir = TreeDir::new(env.dir.clone());
    let node_key = key::load_or_create(&env.dir, &env.host)?;
    if dir
        .read_link(&LinkPath::Key(env.host.clone()))?
        .is_none_or(|link| link.value != node_key.public_hex)
    {
        dir.set(&LinkPath::Key(env.host.clone()), &node_key.public_hex)?;
    }
    let port = port.unwrap_or_else(|| own_port(&dir, &env));
    let (events, received) = mpsc::unbounded_channel();
    spawn_signals(events.clone())?;
    let identity = Identity::from_pkcs8(&node_key.pkcs8)?;
    let net = NetContext::new(
        env.host.clone(),
        identity,
        Directory::default(),
        &env.run,
        own_exe,
    )?;
    let board = Arc::new(LogBoard::new());
    let sources = Arc::new(Sources::default());
    let transfer = Arc::new(Transfer::default());
    watch::spawn(&env.dir, events.clone())?;
    let setup = Setup {
        me: env.host.clone(),
        dir: dir.clone(),
        device_dir,
        shims: ShimContext {
            run_dir: env.run.clone(),
            kind: shim,
            log_level,
            events: events.clone(),
        },
        net: net.clone(),
        board: board.clone(),
        sources: sources.clone(),
        params: Params::new(env.clone(), config),
        transfer: transfer.clone(),
        events: events.clone(),
    };
    let brain = Brain::new(setup, Instant::now());
    let mirror = MirrorSource::new(&env.run, &env.dir)?;
    let serving = Serving {
        events: events.clone(),
        board,
        sources,
        mirror,
        dir,
        transfer,
        net: net.clone(),
    };
    let _listener = listen(&net, any_address(port), Arc::new(serving)).await?;
    tracing::info!(
        "marsd {} serves {} as {}",
        env!("CARGO_PKG_VERSION"),
        env.dir.display(),
        env.host
    );
    tokio::spawn(tick(events));
    brain.run(received).await;
    Ok(())
}

/// The port in the own `ips/ip-HOST` (`symlink-spec.md` section 10.1).
fn own_port(dir: &TreeDir, env: &Env) -> u16 {
    let link = dir
        .read_link(&LinkPath::Ip(env.host.clone()))
        .ok()
        .flatten();
    link.and_then(|l| Address::parse(&l.value).ok())
        .map_or(DEFAULT_PORT, |address| address.port)
}

/// A killed predecessor holds its lock until its last thread has ended: that is waited for.
async fn lock(run_dir: &Path) -> Result<Flock<File>, Failure> {
    let path = run_dir.join("marsd.lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() >= deadline => {
                let path = path.display();
                return Err(format!("another marsd runs already ({path} is locked)").into());
            }
            Err((same, _)) => file = same,
        }
        sleep(LOCK_RETRY).await;
    }
}

fn spawn_signals(events: UnboundedSender<Event>) -> io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if events.send(Event::Stop).is_err() {
                return;
            }
        }
    });
    Ok(())
}

async fn tick(events: UnboundedSender<Event>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if events.send(Event::Tick).is_err() {
            return;
        }
    }
}
