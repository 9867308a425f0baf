//! `mars-shim`: the data path of one resource, started and steered by marsd.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mars_core::ResourceName;
use mars_messages::{Levels, Setup};
use mars_shim::process::{catch_signals, protect};
use mars_shim::server::{End, Server};
use mars_shim::service::Service;
use mars_tree::Env;
use nix::sys::signalfd::SignalFd;

/// Serves the block device of one MARS resource and logs its writes. Started by marsd.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Name of the resource.
    #[arg(long)]
    resource: ResourceName,
    /// Directory of control sockets and mount points.
    #[arg(long, default_value = "/run/mars", env = "MARS_RUN")]
    run_dir: PathBuf,
    /// Most MiB that are kept in memory before they are written back [default: a sixteenth of the memory, 64 to 2048].
    #[arg(long, value_parser = clap::value_parser!(u64).range(4..=65536))]
    dirty_mib: Option<u64>,
    /// Least level of messages: error, warn, info, debug, trace or off; or MODULE=LEVEL, separated by commas.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "MARS_LOG")]
    log_level: Levels,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Before the first thread: one that does not block the signals would let them end the process.
    let signals = match catch_signals() {
        Ok(signals) => signals,
        Err(e) => {
            eprintln!("mars-shim: catch signals: {e}");
            return ExitCode::FAILURE;
        }
    };
    let env = match Env::from_env() {
        Ok(env) => env,
        Err(e) => {
            eprintln!("mars-shim: {e}");
            return ExitCode::FAILURE;
        }
    };
    let setup = Setup {
        levels: args.log_level.clone(),
        env: Env {
            run: args.run_dir.clone(),
            ..env
        },
        resource: Some(args.resource.clone()),
    };
    let _messages = match mars_messages::start(setup) {
        Ok(messages) => messages,
        Err(e) => {
            eprintln!("mars-shim: {e}");
            return ExitCode::FAILURE;
        }
    };
    match serve(&args, signals) {
        Ok(_) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn default_dirty_mib() -> u64 {
    let total = nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total());
    (total >> 24).clamp(64, 2048)
}

fn serve(args: &Args, signals: SignalFd) -> Result<End, Box<dyn std::error::Error>> {
    protect();
    std::fs::create_dir_all(&args.run_dir)
        .map_err(|e| format!("create the directory {}: {e}", args.run_dir.display()))?;
    // The kernel shows absolute paths of what is mounted and bound.
    let run_dir = args
        .run_dir
        .canonicalize()
        .map_err(|e| format!("look at {}: {e}", args.run_dir.display()))?;
    let socket = run_dir.join(format!("shim-{}.sock", args.resource));
    let service = Service::new(
        &args.resource,
        &run_dir,
        args.dirty_mib.unwrap_or_else(default_dirty_mib) << 20,
    );
    Ok(Server::new(service, &socket, signals)?.run()?)
}
