//! The network of a cluster: a bridge in a namespace of its own, an address per node, cuts and bandwidth limits.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cluster::poll;
use crate::command::host;
use crate::error::{Context, Result};
use crate::process::Process;
use crate::requirements::built_dir;
use crate::supervisor::HOLD_FILE;

/// The bridge that all nodes of a cluster hang on.
#[derive(Debug)]
pub struct Network {
    holder: Process,
}

/// Where the nodes' default route leads: nowhere, but a node without one has no address of its own choice.
const GATEWAY: &str = "10.77.0.254";

/// IPv4 address of the node with this number, from 1.
pub fn ipv4(number: usize) -> String {
    format!("10.77.0.{number}")
}

/// IPv6 address of the node with this number, from 1.
pub fn ipv6(number: usize) -> String {
    format!("fd77::{number:x}")
}

impl Network {
    /// Makes the namespace and the bridge; `dir` is the work directory of the cluster.
    ///
    /// # Errors
    /// The namespace cannot be made.
    pub fn create(dir: &Path) -> Result<Self> {
        let dir = dir.join("bridge");
        std::fs::create_dir_all(&dir).context(format!("create {}", dir.display()))?;
        let program = built_dir()?.join("mars-node");
        Command::new("unshare")
            .args(["--net", "--"])
            .arg(program)
            .arg("hold")
            .arg(&dir)
            .stdin(Stdio::null())
            .spawn()
            .context("start the holder of the network namespace")?;
        let file = dir.join(HOLD_FILE);
        poll(Duration::from_secs(10), || Process::load(&file).is_some())
            .context("the network namespace does not appear")?;
        let holder = Process::load(&file).context("the holder of the network namespace ended")?;
        let network = Self { holder };
        network.run(&[
            "ip",
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "forward_delay",
            "0",
        ])?;
        network.run(&["ip", "addr", "add", &format!("{GATEWAY}/24"), "dev", "br0"])?;
        network.run(&["ip", "link", "set", "br0", "up"])?;
        Ok(network)
    }

    /// Plugs a booted node in, as its `eth0`.
    ///
    /// # Errors
    /// A link or an address cannot be made.
    pub fn plug(&self, number: usize, init: &Process) -> Result {
        let port = format!("port{number}");
        let pid = init.pid.to_string();
        // The same after every boot, as with a real card: neighbours remember it.
        let mac = format!("02:77:00:00:00:{number:02x}");
        // The port of the node's last life stays as long as a dead connection to a peer that is cut off is not given up.
        let _ = self.run(&["ip", "link", "delete", &port]);
        self.run(&[
            "ip", "link", "add", &port, "type", "veth", "peer", "name", "eth0", "address", &mac,
            "netns", &pid,
        ])?;
        self.run(&["ip", "link", "set", &port, "master", "br0", "up"])?;
        let commands = [
            "ip link set lo up".to_owned(),
            format!("ip addr add {}/24 dev eth0", ipv4(number)),
            format!("ip addr add {}/64 dev eth0 nodad", ipv6(number)),
            "ip link set eth0 up".to_owned(),
            format!("ip route add default via {GATEWAY}"),
        ];
        host(&[
            "nsenter",
            "--target",
            &pid,
            "--net",
            "--",
            "sh",
            "-ec",
            &commands.join("\n"),
        ])?;
        Ok(())
    }

    /// Limits what the node with this number receives; `rate` as in `tc`, such as `20mbit`.
    ///
    /// # Errors
    /// The kernel has no token bucket filter.
    pub fn limit(&self, number: usize, rate: &str) -> Result {
        let port = format!("port{number}");
        self.run(&[
            "tc", "qdisc", "replace", "dev", &port, "root", "tbf", "rate", rate, "burst", "256kb",
            "latency", "100ms",
        ])
    }

    fn run(&self, args: &[&str]) -> Result {
        let pid = self.holder.pid.to_string();
        let mut all = vec!["nsenter", "--target", &pid, "--net", "--"];
        all.extend_from_slice(args);
        host(&all).map(drop)
    }
}

/// The script by which a node stops hearing its peer, silently as with a cut cable.
pub fn cut_script(peer: usize) -> String {
    let (v4, v6) = (ipv4(peer), ipv6(peer));
    format!(
        "nft 'add table inet cut
         add set inet cut v4 {{ type ipv4_addr; }}
         add set inet cut v6 {{ type ipv6_addr; }}
         add chain inet cut input {{ type filter hook input priority 0; }}
         flush chain inet cut input
         add rule inet cut input ip saddr @v4 drop
         add rule inet cut input ip6 saddr @v6 drop
         add element inet cut v4 {{ {v4} }}
         add element inet cut v6 {{ {v6} }}'"
    )
}

/// The script by which a node hears its peer again.
pub fn heal_script(peer: usize) -> String {
    let (v4, v6) = (ipv4(peer), ipv6(peer));
    format!(
        "nft 'delete element inet cut v4 {{ {v4} }}
         delete element inet cut v6 {{ {v6} }}'"
    )
}
