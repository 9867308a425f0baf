//! role, cstate, dstate and status: which links lead to which words.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

type Link = (&'static str, &'static str);

/// What is changed in a healthy pair, and what role, cstate and dstate of B are then.
const MATRIX: [(&[Link], [&str; 3]); 10] = [
    (&[], ["secondary", "Connect", "UpToDate"]),
    (
        &[("resource-r1/primary", "B")],
        ["primary", "Connect", "UpToDate"],
    ),
    (
        &[("resource-r1/primary", "(none)")],
        ["secondary", "Connect", "UpToDate"],
    ),
    (
        &[("resource-r1/todo-B/connect", "0")],
        ["secondary", "Disconnect", "SwitchOff"],
    ),
    (
        &[("resource-r1/todo-B/attach", "0")],
        ["secondary", "Disconnect", "SwitchOff"],
    ),
    (
        &[("resource-r1/todo-A/connect", "0")],
        ["secondary", "Connect", "UpToDate"],
    ),
    (
        &[("resource-r1/syncstatus-B", "4096")],
        ["secondary", "Connect", "InvaliDate"],
    ),
    (
        &[("resource-r1/syncpos-B", "log-000000002-A,100,0")],
        ["secondary", "Connect", "InvaliDate"],
    ),
    (
        &[
            ("resource-r1/syncstatus-B", "4096"),
            ("resource-r1/todo-B/sync", "0"),
        ],
        ["secondary", "Disconnect", "InvaliDate"],
    ),
    (
        &[("resource-r1/actual-B/error", "disk on fire")],
        ["secondary", "Connect", "Failed"],
    ),
];

fn pair() -> Node {
    Node::new("B", PAIR).alive("A").alive("B")
}

#[test]
fn links_lead_to_words() {
    for (changes, words) in MATRIX {
        let mut node = pair();
        for (path, value) in changes {
            node = node.with(path, value);
        }
        for (command, word) in ["role", "cstate", "dstate"].iter().zip(words) {
            let done = node.run(&[command, "r1"]);
            assert_eq!(
                (done.code, done.out),
                (0, format!("{word}\n")),
                "{changes:?}"
            );
        }
        assert_eq!(node.changes(), Vec::<String>::new());
    }
}

#[test]
fn a_node_without_a_daemon_has_failed() {
    let node = Node::new("B", PAIR);
    node.run(&["dstate", "r1"]).ok(&["Failed\n"]);
    node.run(&["cstate", "r1"]).ok(&["Connect\n"]);
}

#[test]
fn another_node_may_be_asked_for() {
    let node = pair().with("resource-r1/todo-A/sync", "0");
    node.run(&["cstate", "r1", "--node", "A"])
        .ok(&["Disconnect\n"]);
    node.run(&["dstate", "r1", "--node", "X"]).failed(
        4,
        &["X has not joined resource 'r1'", "device-X is missing"],
    );
}

#[test]
fn status_is_one_line_per_resource() {
    let node = pair().with("resource-r1/syncstatus-B", "4096");
    let line =
        "r1: cs:Connect ro:Secondary/Primary ds:InvaliDate/UpToDate /dev/mars/r1 nodes:B/A\n";
    for args in [&["status"][..], &["status", "r1"], &["status", "all"]] {
        let done = node.run(args);
        assert_eq!((done.code, done.out.as_str()), (0, line), "{done:?}");
    }
}

#[test]
fn all_asks_every_resource() {
    let other = PAIR
        .replace("resource-r1", "resource-q0")
        .replace("primary -> A", "primary -> B");
    let node = Node::new("A", &format!("{PAIR}{other}"));
    let text = "--------- resource q0\nsecondary\n--------- resource r1\nprimary\n";
    assert_eq!(node.run(&["role", "all"]).out, text);
    assert_eq!(
        node.run(&["cstate", "all"])
            .out
            .matches("Connect\n")
            .count(),
        2
    );
}

#[test]
fn who_is_no_member_has_no_state() {
    for command in ["role", "cstate", "dstate", "status"] {
        Node::new("C", PAIR)
            .run(&[command, "r1"])
            .failed(4, &["not yet joined", "marsadm join-resource r1"]);
    }
}
