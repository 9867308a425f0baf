//! invalidate and invalidate-remote.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

#[test]
fn a_secondary_throws_its_data_away_and_begins_at_the_primarys_log() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/replay-A", "log-000000003-A,4180,0")
        .with(
            "resource-r1/version-000000002-A",
            "22222222222222222222222222222222,A,4180,0",
        )
        .with(
            "resource-r1/version-000000007-B",
            "77777777777777777777777777777777,B,0,0",
        )
        .with("resource-r1/todo-B/sync", "0")
        .plus("log resource-r1/log-000000002-B 100");
    node.run(&["invalidate", "r1"])
        .ok(&["will be synced from A"]);
    assert_eq!(
        node.changes(),
        [
            "+todo-global/delete-000000001 -> /mars/resource-r1/version-000000001-B",
            "+todo-global/delete-000000002 -> /mars/resource-r1/version-000000007-B",
            "+resource-r1/syncstatus-B -> 0",
            "+resource-r1/replay-B -> log-000000003-A,0,0",
            "+resource-r1/version-000000002-B -> 22222222222222222222222222222222,A,4180,0",
            "+resource-r1/version-000000003-B -> ",
            "+resource-r1/todo-B/sync -> 1",
            "-resource-r1/version-000000001-B",
            "-resource-r1/version-000000007-B",
            "-log resource-r1/log-000000001-A",
            "-log resource-r1/log-000000002-B",
        ]
        .map(|line| match line.strip_suffix("-> ") {
            Some(path) => {
                let value = mars_core::VersionValue::chain(
                    &mars_core::HostName::new("A").unwrap(),
                    3,
                    0,
                    "22222222222222222222222222222222,A,4180,0",
                );
                format!("{path}-> {value}")
            }
            None => line.to_string(),
        })
    );
}

#[test]
fn switches_that_were_off_stay_off() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/todo-B/allow-replay", "0")
        .with("resource-r1/todo-B/connect", "0");
    node.run(&["invalidate", "r1"]).ok(&[]);
    assert_eq!(
        node.get("resource-r1/todo-B/allow-replay").as_deref(),
        Some("0")
    );
    assert_eq!(node.get("resource-r1/todo-B/connect").as_deref(), Some("0"));
}

#[test]
fn it_is_refused_where_it_would_lose_the_only_good_copy() {
    let node = Node::new("A", PAIR);
    node.run(&["invalidate", "r1"])
        .failed(1, &["cannot be executed on primary"]);
    assert_eq!(node.changes(), Vec::<String>::new());
    let node = Node::new("B", PAIR).with("resource-r1/primary", "(none)");
    node.run(&["invalidate", "r1"]).failed(
        1,
        &["there is no primary to sync from", "primary -> (none)"],
    );
    assert_eq!(node.changes(), Vec::<String>::new());
    let node = Node::new("B", PAIR).with("resource-r1/replay-A", "log-000000003-A,0,0");
    node.run(&["invalidate", "r1"])
        .failed(4, &["version-000000002-A is not known here"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn nothing_is_written_while_the_daemon_still_works_on_the_disk_and_the_switches_come_back() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/actual-B/replay_rate", "1000")
        .alive("B");
    node.run(&["invalidate", "r1", "--timeout", "1"])
        .failed(5, &["waiting for transfer, sync and replay to stop"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn a_remote_node_that_cannot_be_reached_is_named_with_the_command_to_run_there() {
    let node = Node::new("A", PAIR).with("ips/ip-B", "127.0.0.254");
    node.run(&["invalidate-remote", "r1"])
        .failed(7, &["B: ", "run on B: marsadm invalidate r1"]);
    node.run(&["invalidate-remote", "r1", "--node", "A"])
        .failed(1, &["A is primary"]);
    node.run(&["invalidate-remote", "r1", "--dry-run"])
        .ok(&["would run 'marsadm invalidate r1' on B"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}
