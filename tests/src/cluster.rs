//! A cluster of booted nodes, and waiting for what should become true in it.

use std::fmt::Write;
use std::ops::Index;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Context, Result, fail};
use crate::network::{Network, cut_script, heal_script, ipv4, ipv6};
use crate::node::Node;
use crate::sandbox::Sandbox;
use crate::{requirements, ssh};

/// Nodes on a common bridge. Dropping it removes everything.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    network: Network,
    // Dropped last: removes what the others made.
    sandbox: Sandbox,
}

impl Cluster {
    /// Boots one node per name.
    ///
    /// # Errors
    /// The machine lacks something, or a node does not boot.
    pub fn start(names: &[&str]) -> Result<Self> {
        requirements::check()?;
        requirements::program_dir()?;
        let sandbox = Sandbox::create()?;
        let dir = sandbox.dir().to_path_buf();
        ssh::prepare(&dir, names)?;
        let network = Network::create(&dir)?;
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (index, name) in names.iter().enumerate() {
            let _ = writeln!(
                hosts,
                "{} {name}\n{} {name}",
                ipv4(index + 1),
                ipv6(index + 1)
            );
        }
        let nodes: Result<Vec<_>> = names
            .iter()
            .enumerate()
            .map(|(index, name)| Node::create(&dir, index + 1, name, &hosts))
            .collect();
        let cluster = Self {
            nodes: nodes?,
            network,
            sandbox,
        };
        for node in &cluster.nodes {
            cluster.boot(node)?;
        }
        Ok(cluster)
    }

    /// Boots a node, for the first time or after [`Node::power_off`]; marsd is not started.
    ///
    /// # Errors
    /// It is booted already or does not boot.
    pub fn boot(&self, node: &Node) -> Result {
        let init = node.start_init()?;
        self.network.plug(node.number(), &init)?;
        node.start_services(self.sandbox.dir())
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|n| n.name() == name)
            .context(format!("no node is called {name}"))
    }

    /// Cuts the cable between two nodes.
    ///
    /// # Errors
    /// One is not booted or the kernel has no nftables.
    pub fn cut(&self, a: &Node, b: &Node) -> Result {
        a.run(&cut_script(b.number()))?;
        b.run(&cut_script(a.number())).map(drop)
    }

    /// Mends what [`Self::cut`] cut.
    ///
    /// # Errors
    /// It was not cut.
    pub fn heal(&self, a: &Node, b: &Node) -> Result {
        a.run(&heal_script(b.number()))?;
        b.run(&heal_script(a.number())).map(drop)
    }

    /// Limits what a node receives, such as `20mbit`.
    ///
    /// # Errors
    /// The kernel has no token bucket filter.
    pub fn limit(&self, node: &Node, rate: &str) -> Result {
        self.network.limit(node.number(), rate)
    }

    /// Waits until `condition` holds and returns how long that took.
    ///
    /// # Errors
    /// It does not hold within `secs` seconds; the error shows trees and logs of all nodes.
    pub fn wait(&self, name: &str, secs: u64, condition: impl FnMut() -> bool) -> Result<Duration> {
        let begin = Instant::now();
        poll(Duration::from_secs(secs), condition)
            .map(|()| begin.elapsed())
            .map_err(|_| fail(format!("not within {secs} s: {name}\n{}", self.diagnosis())))
    }

    /// Trees and last log lines of all nodes.
    pub fn diagnosis(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let tree = node
                .try_run_for(
                    "ls -ld --time-style=+%H:%M:%S /mars/*-*; ls -lR --time-style=+%H:%M:%S /mars/ips /mars/todo-global /mars/resource-*",
                    Duration::from_secs(10),
                )
                .map_or_else(|e| e.to_string(), |o| o.text);
            let log = node.log_tail("marsd", 40);
            let _ = writeln!(
                text,
                "===== {0}: tree\n{tree}\n===== {0}: marsd\n{log}",
                node.name()
            );
        }
        text
    }

    /// Leaves the cluster up after the end of this process and returns its directory.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn keep(self) -> Result<PathBuf> {
        self.sandbox.keep()
    }
}

impl Index<usize> for Cluster {
    type Output = Node;
    fn index(&self, index: usize) -> &Node {
        &self.nodes[index]
    }
}

/// Looks every few milliseconds whether `condition` holds.
///
/// # Errors
/// It does not hold within `deadline`.
pub fn poll(deadline: Duration, mut condition: impl FnMut() -> bool) -> Result {
    let mut clock = RunningTime::default();
    loop {
        if condition() {
            return Ok(());
        }
        if clock.passed() >= deadline {
            return Err(fail(format!("not within {} s", deadline.as_secs())));
        }
        sleep(Duration::from_millis(10));
    }
}

/// How often the usual time things may take here: `MARS_TESTS_PATIENCE`, 1 unless said otherwise. For slow machines.
pub fn patience() -> u32 {
    let told = std::env::var("MARS_TESTS_PATIENCE").unwrap_or_default();
    told.parse().unwrap_or(1).max(1)
}

/// Time that passes while this process runs: a pause of the whole machine hardly counts, and where [`patience`] is
/// asked for it passes more slowly.
#[derive(Debug, Default)]
pub struct RunningTime {
    last: Option<Instant>,
    passed: Duration,
}

impl RunningTime {
    /// Longest time between two looks that is believed.
    const STEP: Duration = Duration::from_secs(5);

    /// Time since the first look; to be called again and again.
    pub fn passed(&mut self) -> Duration {
        let now = Instant::now();
        let last = self.last.replace(now).unwrap_or(now);
        self.passed += now.duration_since(last).min(Self::STEP) / patience();
        self.passed
    }
}

/// Starts a cluster, runs `body` with it, and shows trees and logs if that fails.
///
/// # Errors
/// What `body` or the cluster returned.
pub fn scenario(names: &[&str], body: impl FnOnce(&Cluster) -> Result) -> Result {
    let cluster = Cluster::start(names)?;
    body(&cluster).inspect_err(|e| {
        if !e.to_string().contains("===== ") {
            eprintln!("{}", cluster.diagnosis());
        }
    })
}
