//! role and state.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

#[test]
fn the_link_decides() {
    Node::new("A", PAIR).run(&["role", "r1"]).ok(&["primary\n"]);
    Node::new("B", PAIR)
        .run(&["state", "r1"])
        .ok(&["secondary\n"]);
    Node::new("A", PAIR)
        .without("resource-r1/primary")
        .run(&["role", "r1"])
        .failed(
            4,
            &[
                "cannot determine current primary",
                "resource-r1/primary is missing",
            ],
        );
}
