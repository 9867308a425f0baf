//! `make chaos`: random commands, deaths, partitions and jumping clocks on several nodes; nothing may be lost.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mars_tests::chaos::{Options, run};

/// Lives a random life of a cluster, comes to rest after every round and compares all disks.
#[derive(Parser)]
struct Args {
    /// Decides everything: the same seed gives the same decisions.
    #[arg(long)]
    seed: u64,
    /// No new round is begun after so many minutes.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Nodes, 2 to 6.
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    /// Rounds at most.
    #[arg(long, default_value_t = u64::MAX)]
    rounds: u64,
    /// Decisions in a round.
    #[arg(long, default_value_t = 16)]
    decisions: u64,
    /// Leave the cluster up after a failure.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = run(&Options {
        seed: args.seed,
        nodes: args.nodes,
        length: Duration::from_secs(args.minutes.saturating_mul(60)),
        rounds: args.rounds,
        decisions: args.decisions,
        keep: args.keep,
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mars-chaos: {e}");
            ExitCode::FAILURE
        }
    }
}
