//! wait-connect.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

#[test]
fn it_returns_when_the_other_member_gives_a_sign_of_life() {
    let node = Node::new("B", PAIR).alive("B");
    node.run(&["wait-connect", "r1", "--timeout", "1"])
        .failed(5, &["waiting for marsd on A"]);
    let child = node.start(&["wait-connect", "r1", "--timeout", "30"]);
    node.dir.set(&common::link("alive-A"), "1").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("resource r1 is connected\n"), "{text}");
}

#[test]
fn it_is_refused_where_it_could_never_end() {
    let node = Node::new("B", PAIR).with("resource-r1/todo-B/connect", "0");
    node.run(&["wait-connect", "r1"]).failed(
        1,
        &[
            "switched off here",
            "todo-B/connect -> 0",
            "marsadm connect-local r1",
        ],
    );
    Node::new("B", PAIR)
        .run(&["wait-connect", "r1", "--node", "X"])
        .failed(4, &["X is a member"]);
}

#[test]
fn dry_run_tells_what_it_would_wait_for() {
    Node::new("B", PAIR)
        .alive("B")
        .run(&["wait-connect", "r1", "--dry-run"])
        .ok(&["would wait: waiting for marsd on A"]);
}
