//! wait-umount.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

fn served() -> Node {
    Node::new("B", PAIR)
        .with("resource-r1/actual-A/is-primary", "1")
        .alive("A")
}

#[test]
fn it_returns_when_the_device_is_closed() {
    let node = served().with("resource-r1/primary", "(none)");
    node.run(&["wait-umount", "r1", "--timeout", "1"])
        .failed(5, &["waiting for the device to be closed on A"]);
    let child = node.start(&["wait-umount", "r1", "--timeout", "30"]);
    let link = common::link("resource-r1/actual-A/is-primary");
    node.dir.set(&link, "0").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn only_the_wanted_node_counts() {
    served()
        .run(&["wait-umount", "r1", "--node", "B"])
        .ok(&["is not in use"]);
}

#[test]
fn it_says_who_keeps_the_device() {
    let done = served().run(&["wait-umount", "r1", "--timeout", "1"]);
    done.failed(5, &[]);
    assert!(
        done.err.contains("A is primary and keeps the device"),
        "{done:?}"
    );
}

#[test]
fn a_dead_node_cannot_say_that_it_closed_the_device() {
    Node::new("B", PAIR)
        .with("resource-r1/actual-A/is-primary", "1")
        .run(&["wait-umount", "r1"])
        .failed(
            1,
            &[
                "no sign of life",
                "actual-A/is-primary -> 1",
                "start marsd on A",
            ],
        );
}
