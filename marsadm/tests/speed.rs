//! Switch commands take the same short time however many resources there are.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use std::fmt::Write;
use std::time::{Duration, Instant};

use common::{Node, PAIR};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

const RESOURCES: usize = 1000;
const RUNS: usize = 15;

/// The pair with a third node C, as often as wanted.
fn tree(resources: usize) -> String {
    let mut text = String::from(PAIR);
    for line in PAIR.lines().filter(|l| l.contains("-B")) {
        let _ = writeln!(text, "{}", line.replace("-B", "-C"));
    }
    let one: Vec<String> = text
        .lines()
        .filter(|l| l.contains("resource-r1/"))
        .map(ToOwned::to_owned)
        .collect();
    for number in 2..=resources {
        for line in &one {
            let _ = writeln!(
                text,
                "{}",
                line.replace("resource-r1/", &format!("resource-r{number}/"))
            );
        }
    }
    text
}

#[test]
fn a_switch_command_reads_only_its_resource() {
    let node = Node::new("A", &tree(RESOURCES));
    let mut times: Vec<Duration> = Vec::new();
    let before = cpu_of_children();
    for run in 0..RUNS {
        let command = if run % 2 == 0 {
            "disconnect"
        } else {
            "connect"
        };
        let begin = Instant::now();
        node.run(&[command, "r500"]).ok(&["resource r500"]);
        times.push(begin.elapsed());
    }
    times.sort();
    println!(
        "connect of 1 in {RESOURCES} resources: median {:?}, best {:?}",
        times[RUNS / 2],
        times[0]
    );
    // Processor time, whatever else the machine does; reading the whole tree would take several times this.
    let each = (cpu_of_children() - before) / u32::try_from(RUNS).unwrap();
    assert!(each < Duration::from_millis(40), "{each:?}");
}

/// Processor time that all children of this process have taken.
fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let time = |t: TimeVal| Duration::from_micros(u64::try_from(t.num_microseconds()).unwrap());
    time(usage.user_time()) + time(usage.system_time())
}
