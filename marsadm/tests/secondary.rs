//! secondary.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

#[test]
fn the_primary_gives_up() {
    let node = Node::new("A", PAIR);
    node.run(&["secondary", "r1"])
        .ok(&["primary changed from 'A' to '(none)'"]);
    assert_eq!(node.changes(), ["+resource-r1/primary -> (none)"]);
    node.run(&["secondary", "r1"]).failed(
        1,
        &[
            "switching to secondary is only allowed when I (A) am primary",
            "-> (none)",
        ],
    );
}

#[test]
fn nobody_else_can_do_it_for_him() {
    let node = Node::new("B", PAIR);
    node.run(&["secondary", "r1"])
        .failed(1, &["when I (B) am primary", "primary -> A"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn a_running_sync_is_a_warning() {
    let node = Node::new("A", PAIR).with("resource-r1/syncstatus-B", "4096");
    let done = node.run(&["secondary", "r1"]);
    done.ok(&[]);
    assert!(done.err.contains("B is not yet synced"), "{done:?}");
}
