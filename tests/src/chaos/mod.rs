//! Random life of a cluster: decisions drawn from a seed, then rest, then the comparison of all disks; again and again.

mod act;
mod decide;
mod rest;
mod writers;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub use decide::{Decider, Decision};

use crate::cluster::Cluster;
use crate::error::{Result, fail};
use crate::node::Task;
use writers::{REGION_BLOCKS, Writers};

/// Names of the nodes, as awkward as host names may be.
const NAMES: [&str; 6] = [
    "istore-test-bs7",
    "istore-test-bap7",
    "db-1",
    "a.b-000000003-c",
    "node5",
    "n_6",
];
const DISK_BYTES: u64 = 16 << 20;

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// From 2 to 6.
    pub nodes: usize,
    /// No new round is begun after this time.
    pub length: Duration,
    /// Rounds at most.
    pub rounds: u64,
    /// Decisions between two times of rest.
    pub decisions: u64,
    /// Leave the cluster up after a failure.
    pub keep: bool,
}

struct Chaos<'a> {
    cluster: &'a Cluster,
    begin: Instant,
    writers: Writers,
    background: Vec<(usize, Task)>,
    cut: BTreeSet<(usize, usize)>,
    /// Data may have been thrown away since the last rest.
    forced: bool,
    serial: u64,
}

/// Runs it; what is done is printed line by line.
///
/// # Errors
/// The first thing that must not happen, with trees and logs of all nodes.
pub fn run(options: &Options) -> Result {
    let names = NAMES
        .get(..options.nodes)
        .filter(|n| n.len() >= 2)
        .ok_or_else(|| fail(format!("from 2 to {} nodes", NAMES.len())))?;
    let cluster = Cluster::start(names)?;
    println!("seed {}, {} nodes", options.seed, options.nodes);
    let done = live(&cluster, options);
    if done.is_err() && options.keep {
        let dir = cluster.keep()?;
        println!("the cluster is left up in {}", dir.display());
    }
    done.map_err(|e| fail(format!("seed {}: {e}", options.seed)))
}

fn live(cluster: &Cluster, options: &Options) -> Result {
    cluster.replicate(DISK_BYTES)?;
    let mut decider = Decider::new(options.seed, options.nodes);
    let mut chaos = Chaos {
        cluster,
        begin: Instant::now(),
        writers: Writers::new(DISK_BYTES / 4096 / REGION_BLOCKS),
        background: Vec::new(),
        cut: BTreeSet::new(),
        forced: false,
        serial: 0,
    };
    let mut round = 0;
    while round < options.rounds && (round == 0 || chaos.begin.elapsed() < options.length) {
        round += 1;
        chaos.note(&format!("round {round}"));
        for _ in 0..options.decisions {
            let decision = decider.decide();
            chaos.note(&format!("  {decision}"));
            chaos
                .act(&decision)
                .map_err(|e| fail(format!("round {round}, {decision}: {e}")))?;
        }
        decider.rest();
        chaos
            .rest()
            .map_err(|e| fail(format!("at rest after round {round}: {e}")))?;
    }
    println!(
        "seed {}: {round} rounds of {} decisions in {} s, nothing lost",
        options.seed,
        options.decisions,
        chaos.begin.elapsed().as_secs()
    );
    Ok(())
}

impl Chaos<'_> {
    fn note(&self, text: &str) {
        println!("{:7.1} {text}", self.begin.elapsed().as_secs_f64());
    }
}
