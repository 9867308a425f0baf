//! `marsd`: the daemon of MARS.

mod manual;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use mars_messages::{Levels, Setup};
use mars_tree::Env;
use marsd::shims::ShimKind;

/// The brain of MARS: watches the symlink tree, drives sync, replay and switches, talks to the other nodes.
///
/// Runs in the foreground and logs to stderr; one per node. It may be killed at any moment: devices are served on by
/// their shims, and the next marsd picks up where things are.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = manual::EXIT_AND_ENVIRONMENT
)]
struct Args {
    /// TCP port for the other nodes [default: the port in the own ips/ip-HOST, or 7777].
    #[arg(long)]
    port: Option<u16>,
    /// File of permanent parameters (lines NAME = VALUE); it need not exist.
    #[arg(long, env = "MARS_CONF", default_value = "/etc/mars.conf")]
    config: PathBuf,
    /// Which shim serves the devices [default: the kernel module if it is loaded].
    #[arg(long, value_enum)]
    shim: Option<Shim>,
    /// Directory of the devices.
    #[arg(long, default_value = "/dev/mars")]
    device_dir: PathBuf,
    /// The user-space shim, if it is not beside this program.
    #[arg(long, env = "MARS_SHIM")]
    shim_program: Option<PathBuf>,
    /// Least level of messages: error, warn, info, debug, trace or off; or MODULE=LEVEL, separated by commas.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "MARS_LOG")]
    log_level: Levels,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shim {
    /// The user-space process over FUSE and loop.
    User,
    /// The kernel module mars.
    Kmod,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let first = words.next();
    if first.as_ref().is_some_and(|word| word == "rsync-bridge") {
        return bridge(words.next().map(PathBuf::from).as_deref());
    }
    if first.is_some_and(|word| word == "generate") {
        return manual::generate(Args::command(), words.next());
    }
    let args = Args::parse();
    match start(args) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("marsd: {why}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> Result<ExitCode, Failure> {
    let env = Env::from_env()?;
    let setup = Setup {
        levels: args.log_level.clone(),
        env: env.clone(),
        resource: None,
    };
    let _messages = mars_messages::start(setup)?;
    Ok(match serve(args, env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::FAILURE
        }
    })
}

/// The remote shell of rsync: hidden, started by rsync itself.
fn bridge(socket: Option<&Path>) -> ExitCode {
    let Some(socket) = socket else {
        eprintln!("usage: marsd rsync-bridge SOCKET (started by rsync only)");
        return ExitCode::from(2);
    };
    match marsd::net::bridge_main(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("marsd rsync-bridge: {}: {e}", socket.display());
            ExitCode::FAILURE
        }
    }
}

fn shim_kind(args: &Args, env: &Env, own_exe: &Path) -> Result<ShimKind, String> {
    let loaded = marsd::kmod::loaded();
    let home = marsd::kmod::Home {
        env: env.clone(),
        device_dir: args.device_dir.clone(),
    };
    match args.shim {
        Some(Shim::Kmod) if !loaded => {
            Err("the kernel module is not loaded: modprobe mars, or use --shim user".into())
        }
        Some(Shim::Kmod) => Ok(ShimKind::Kmod(home)),
        None if loaded && args.shim_program.is_none() => Ok(ShimKind::Kmod(home)),
        _ => {
            let program = args.shim_program.clone();
            let exe = program.unwrap_or_else(|| own_exe.with_file_name("mars-shim"));
            if !exe.is_file() {
                let exe = exe.display();
                return Err(format!(
                    "the shim {exe} does not exist: name it with --shim-program"
                ));
            }
            Ok(ShimKind::User { exe })
        }
    }
}

fn serve(args: Args, env: Env) -> Result<(), Failure> {
    let own_exe = std::env::current_exe()?;
    let shim = shim_kind(&args, &env, &own_exe)?;
    let options = marsd::daemon::Options {
        env,
        port: args.port,
        config: args.config,
        device_dir: args.device_dir,
        shim,
        own_exe,
        log_level: args.log_level.to_string(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(marsd::daemon::run(options));
    // Blocking workers end by their cancel tokens; a stuck disk must not keep the daemon.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}
