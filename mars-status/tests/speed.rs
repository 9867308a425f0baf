//! A big cluster is printed at once.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use support::*;

const RESOURCES: usize = 1000;
const HOSTS: [&str; 3] = ["a", "b", "c"];
const OF_HOST: [(&str, &str); 16] = [
    ("data-H", "/dev/x"),
    ("device-H", "x"),
    ("syncstatus-H", "4096"),
    ("actsize-H", "4096"),
    ("connect-H", "a"),
    ("replay-H", "log-000000001-a,0,0"),
    (
        "version-000000001-H",
        "01e0ef9a59b3a0d3a59abcfe2fd8e381,a,0,0",
    ),
    ("todo-H/attach", "1"),
    ("todo-H/connect", "1"),
    ("todo-H/sync", "1"),
    ("todo-H/allow-replay", "1"),
    ("actual-H/is-primary", "0"),
    ("actual-H/replay_rate", "0"),
    ("actual-H/file_rate", "0"),
    ("actual-H/logfile-update", "0"),
    ("actual-H/timestamp", "a,000000001,0,0,0.000000000"),
];

fn links() -> impl Iterator<Item = (String, &'static str)> {
    let alive = HOSTS.map(|host| (format!("alive-{host}"), "1"));
    let resources = (0..RESOURCES).flat_map(|n| {
        let dir = format!("resource-r{n}");
        let mut links = vec![
            (format!("{dir}/size"), "4096"),
            (format!("{dir}/primary"), "a"),
        ];
        for host in HOSTS {
            let own =
                OF_HOST.map(|(name, value)| (format!("{dir}/{}", name.replace('H', host)), value));
            links.extend(own);
        }
        links
    });
    alive.into_iter().chain(resources)
}

/// Processor time that all children of this process have taken.
fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let time = |t: TimeVal| Duration::from_micros(u64::try_from(t.num_microseconds()).unwrap());
    time(usage.user_time()) + time(usage.system_time())
}

/// Processor time, not time: what else the machine does is not what is measured, and the program never waits.
#[test]
fn a_thousand_resources_on_three_nodes_take_less_than_a_second() {
    let node = Node::of_links(links(), "a");
    let json = node.run(&["--json", "--history"]);
    assert_eq!(
        json.out.matches("\"state\": \"UpToDate\"").count() % RESOURCES,
        0
    );
    let before = cpu_of_children();
    let ran = node.run(&[]);
    let took = cpu_of_children() - before;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let fine = ran.out.matches("\tStatus  : UpToDate").count();
    assert_eq!(fine, 3 * RESOURCES);
    assert!(took < Duration::from_secs(1), "{took:?}");
}
