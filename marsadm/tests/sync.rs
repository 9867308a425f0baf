//! fake-sync, wait-sync, wait-replay.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

#[test]
fn fake_sync_declares_the_disk_valid_and_stops_the_sync() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/syncstatus-B", "4096")
        .with("resource-r1/syncpos-B", "log-000000009-A,0,0");
    node.run(&["fake-sync", "r1"])
        .ok(&["successfully started fake-sync on resource r1"]);
    assert_eq!(
        node.changes(),
        [
            "+resource-r1/syncstatus-B -> 10485760",
            "+resource-r1/todo-B/sync -> 0",
            "-resource-r1/syncpos-B",
        ]
    );
}

#[test]
fn fake_sync_waits_until_the_running_sync_has_stopped() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/syncstatus-B", "4096")
        .with("resource-r1/actual-B/copy-syncstatus-B", "1")
        .alive("B");
    let child = node.start(&["fake-sync", "r1"]);
    node.wait_for("resource-r1/todo-B/sync", "0");
    assert_eq!(
        node.get("resource-r1/syncstatus-B").as_deref(),
        Some("4096")
    );
    node.dir
        .set(&common::link("resource-r1/actual-B/copy-syncstatus-B"), "0")
        .unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(
        node.get("resource-r1/syncstatus-B").as_deref(),
        Some("10485760")
    );
}

#[test]
fn waiting_ends_when_the_sync_is_done_and_consistent() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/syncstatus-B", "4096")
        .with("resource-r1/syncpos-B", "log-000000001-A,8360,0")
        .with("resource-r1/replay-B", "log-000000001-A,0,0");
    node.run(&["wait-sync", "r1", "--timeout", "1"])
        .failed(5, &["sync of B (4096 / 10485760 bytes)"]);
    let child = node.start(&["wait-sync", "r1"]);
    node.dir
        .set(&common::link("resource-r1/syncstatus-B"), "10485760")
        .unwrap();
    node.dir
        .set(
            &common::link("resource-r1/replay-B"),
            "log-000000001-A,8360,0",
        )
        .unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
}

#[test]
fn waiting_for_another_node() {
    let node = Node::new("A", PAIR).with("resource-r1/replay-B", "log-000000001-A,0,0");
    node.run(&["wait-sync", "r1", "--node", "B"])
        .ok(&["synced on B"]);
    node.run(&["wait-replay", "r1"]).ok(&["replayed on A"]);
    node.run(&["wait-replay", "r1", "--node", "B", "--timeout", "1"])
        .failed(5, &["waiting for replay of what A has"]);
    node.run(&["wait-replay", "r1", "--node", "C"])
        .failed(4, &["C has not joined"]);
}
