//! resize.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

fn enlarged() -> Node {
    Node::new("A", PAIR)
        .with("resource-r1/actsize-A", "30000000")
        .with("resource-r1/actsize-B", "20971520")
        .with("resource-r1/todo-A/sync", "0")
        .with("resource-r1/todo-B/sync", "0")
}

#[test]
fn the_smallest_disk_is_the_new_size() {
    let node = enlarged();
    node.run(&["resize", "r1"])
        .ok(&["old_size=10485760", "new_size=20971520"]);
    assert_eq!(
        node.changes(),
        [
            "+resource-r1/size -> 20971520",
            "+resource-r1/syncstatus-A -> 20971520"
        ]
    );
}

#[test]
fn refusals() {
    for (node, code, text) in [
        (
            enlarged().with("resource-r1/todo-B/sync", "1"),
            1,
            "sync on 'B' is switched on",
        ),
        (
            enlarged().with("resource-r1/actsize-B", "10485760"),
            1,
            "only increases of the size are possible",
        ),
        (
            enlarged().without("resource-r1/actsize-B"),
            4,
            "disk of B is not known",
        ),
        (
            enlarged().with("resource-r1/syncstatus-A", "0"),
            1,
            "not synced itself",
        ),
        (
            enlarged().with("resource-r1/primary", "B"),
            1,
            "I need to be primary",
        ),
    ] {
        node.run(&["resize", "r1"]).failed(code, &[text]);
        assert_eq!(node.changes(), Vec::<String>::new());
    }
}
