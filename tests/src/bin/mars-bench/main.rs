//! `make bench`: the data path against a bare loop device, and replication itself, on a real two-node cluster.
//!
//! Every figure of the data path is a ratio of two measurements made in turn in one run; medians of several rounds.

mod data_path;
mod replication;
mod report;
mod second_machine;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mars_tests::setup::PAIR;
use mars_tests::{Result, requirements, scenario};
use report::Report;

/// Measures MARS against a bare direct-I/O loop device on the same file system, with a connected, replaying secondary.
#[derive(Parser)]
struct Args {
    /// Rounds of each measurement of the data path.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each fio run.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Size of the devices in MiB.
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
    /// Only measurements whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Without a secondary: what the shim costs by itself (no figures of replication).
    #[arg(long)]
    alone: bool,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mars-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result {
    requirements::check()?;
    let mut report = Report::default();
    scenario(&PAIR, |cluster| {
        volume::mount(&cluster[0])?;
        if args.alone {
            cluster.create_resource(args.size_mib << 20)?;
            return data_path::measure(cluster, args, &mut report);
        }
        second_machine::keep_in_memory(cluster, &cluster[1])?;
        cluster.replicate(args.size_mib << 20)?;
        second_machine::yield_the_processor(&cluster[1])?;
        data_path::measure(cluster, args, &mut report)?;
        replication::measure(cluster, args, &mut report)
    })?;
    print!("{}", report.table());
    report.store(&args.json)
}
