//! Switches: connect, attach, sync, replay, on and off, here and everywhere; up and down.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

#[test]
fn disconnect_works_on_all_nodes_and_says_what_it_did() {
    let node = Node::new("A", PAIR);
    let done = node.run(&["disconnect", "r1"]);
    done.ok(&["successfully stopped connect on resource r1"]);
    assert_eq!(
        node.changes(),
        [
            "+resource-r1/todo-A/connect -> 0",
            "+resource-r1/todo-B/connect -> 0"
        ]
    );
    node.run(&["disconnect", "r1"])
        .ok(&["already stopped by disconnect"]);
    node.run(&["connect", "r1"])
        .ok(&["successfully started connect on resource r1", "(node B)"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn the_local_form_touches_this_node_only() {
    for (off, on, switch) in [
        ("disconnect-local", "connect-local", "connect"),
        ("pause-sync-local", "resume-sync-local", "sync"),
        ("pause-replay-local", "resume-replay-local", "allow-replay"),
        ("detach", "attach", "attach"),
    ] {
        let node = Node::new("B", PAIR);
        node.run(&[off, "r1"]).ok(&["successfully stopped"]);
        assert_eq!(
            node.changes(),
            [format!("+resource-r1/todo-B/{switch} -> 0")]
        );
        node.run(&[on, "r1"])
            .ok(&[&format!("successfully started {on} on resource r1")]);
        node.run(&[on, "r1"])
            .ok(&[&format!("{on} on resource r1 is already activated")]);
        assert_eq!(node.changes(), Vec::<String>::new());
    }
}

#[test]
fn the_general_forms_work_on_every_node() {
    for (off, on, switch) in [
        ("pause-sync", "resume-sync", "sync"),
        ("pause-replay", "resume-replay", "allow-replay"),
    ] {
        let node = Node::new("B", PAIR);
        node.run(&[off, "r1"]).ok(&[]);
        assert_eq!(
            node.changes(),
            ["A", "B"].map(|h| format!("+resource-r1/todo-{h}/{switch} -> 0"))
        );
        node.run(&[on, "r1"]).ok(&[]);
        assert_eq!(node.changes(), Vec::<String>::new());
    }
}

#[test]
fn down_and_up_are_sequences() {
    let node = Node::new("B", PAIR);
    node.run(&["down", "r1"])
        .ok(&["pause-replay\n", "pause-sync\n", "disconnect\n", "detach\n"]);
    assert_eq!(node.changes().len(), 7);
    assert_eq!(node.get("resource-r1/todo-A/attach").as_deref(), Some("1"));
    node.run(&["up", "all"])
        .ok(&["--------- resource r1", "resume-replay\n"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn a_missing_switch_is_set() {
    let node = Node::new("B", PAIR).without("resource-r1/todo-B/sync");
    node.run(&["resume-sync-local", "r1"])
        .ok(&["successfully started"]);
    assert_eq!(node.changes(), ["+resource-r1/todo-B/sync -> 1"]);
}

#[test]
fn dry_run_changes_nothing_and_claims_nothing() {
    let node = Node::new("B", PAIR);
    let done = node.run(&["down", "r1", "--dry-run"]);
    done.ok(&["would set resource-r1/todo-B/attach -> 0"]);
    assert!(!done.out.contains("successfully"), "{done:?}");
    assert_eq!(node.changes(), Vec::<String>::new());
}
