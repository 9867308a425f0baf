//! `make run`: the life of a resource on two nodes, from create-cluster to a handover, with real files.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mars_tests::story;

/// Shows two nodes replicating real files and compares every one of them after the handover.
#[derive(Parser)]
struct Args {
    /// Leave the cluster up at the end.
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    command: Option<Cmd>,
}

#[derive(Subcommand)]
enum Cmd {
    /// Open a root shell on a node of a cluster that was kept.
    Enter {
        /// Host name of the node.
        node: String,
    },
    /// Remove the clusters that were kept.
    Remove,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        None => story::tell(args.keep),
        Some(Cmd::Enter { node }) => story::enter(&node),
        Some(Cmd::Remove) => story::remove(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mars-run: {e}");
            ExitCode::FAILURE
        }
    }
}
