//! log-rotate, log-delete, log-delete-all.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

const V1: &str = "8675eee912f0fb9514b69557d8a22cde,A,8360,0";

/// Logs 1 to 3; A works in 3, B in `at`.
fn three(at: u64) -> Node {
    let mut node = Node::new("A", PAIR)
        .with("resource-r1/replay-A", "log-000000003-A,0,0")
        .with("resource-r1/replay-B", &format!("log-{at:09}-A,0,0"));
    for host in ["A", "B"] {
        node = node.with(
            &format!("resource-r1/version-000000002-{host}"),
            "22222222222222222222222222222222,A,4180,0",
        );
    }
    node.plus("log resource-r1/log-000000002-A 4180")
        .plus("log resource-r1/log-000000003-A 0")
}

#[test]
fn rotation_makes_the_next_log_once() {
    let node = Node::new("A", PAIR);
    node.run(&["log-rotate", "r1"]).ok(&["log-000000002-A"]);
    assert_eq!(node.changes(), ["+log resource-r1/log-000000002-A"]);
    node.run(&["log-rotate", "r1"]).ok(&[
        "an empty logfile '/mars/resource-r1/log-000000002-A' already exists, nothing to do.",
    ]);
    assert_eq!(node.changes(), ["+log resource-r1/log-000000002-A"]);
}

#[test]
fn only_the_primary_rotates() {
    let node = Node::new("B", PAIR);
    node.run(&["log-rotate", "r1"]).failed(
        1,
        &[
            "for operation 'log-rotate' I need to be primary",
            "primary -> A",
        ],
    );
    let node = Node::new("B", PAIR).with("resource-r1/primary", "B");
    node.run(&["log-rotate", "r1"])
        .failed(4, &["cannot find any logfiles"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn one_log_is_deleted_after_the_other() {
    let node = three(3);
    node.run(&["log-delete", "r1"]).ok(&[
        "max allowed deletable logfile number: 000000003",
        "chosen '/mars/resource-r1/log-000000001-A' for deletion",
        "create symlink /mars/todo-global/delete-000000001 -> /mars/resource-r1/log-000000001-A",
    ]);
    assert_eq!(
        node.changes(),
        ["+todo-global/delete-000000001 -> /mars/resource-r1/log-000000001-A"]
    );
    node.run(&["log-delete", "r1"]).ok(&[
        "log-000000002-A' for deletion",
        "removing left-over version symlinks...",
    ]);
    assert_eq!(
        node.changes()[1..],
        [
            "+todo-global/delete-000000002 -> /mars/resource-r1/log-000000002-A",
            "+todo-global/delete-000000003 -> /mars/resource-r1/version-000000001-A",
            "+todo-global/delete-000000004 -> /mars/resource-r1/version-000000001-B",
        ]
    );
    node.run(&["log-delete", "r1"]).ok(&["nothing to do"]);
}

#[test]
fn all_deletable_logs_go_at_once_and_the_version_before_the_kept_log_stays() {
    let node = three(3).with("todo-global/deleted-B", "000000007");
    node.run(&["log-delete-all", "r1"]).ok(&[]);
    let orders: Vec<String> = node.changes();
    assert_eq!(
        orders,
        [
            "+todo-global/delete-000000008 -> /mars/resource-r1/log-000000001-A",
            "+todo-global/delete-000000009 -> /mars/resource-r1/log-000000002-A",
            "+todo-global/delete-000000010 -> /mars/resource-r1/version-000000001-A",
            "+todo-global/delete-000000011 -> /mars/resource-r1/version-000000001-B",
        ]
    );
}

#[test]
fn what_a_member_needs_stays_and_the_member_is_named() {
    for command in ["log-delete", "log-delete-all"] {
        let node = three(1);
        node.run(&[command, "r1"]).failed(
            1,
            &[
                "still needed: B (replay at log-000000001-A,0)",
                "leave-resource",
            ],
        );
        assert_eq!(node.changes(), Vec::<String>::new());
    }
    let node = three(2);
    node.run(&["log-delete-all", "r1"])
        .ok(&["1 finished logfile(s)", "B (replay at log-000000002-A,0)"]);
    assert_eq!(
        node.changes(),
        ["+todo-global/delete-000000001 -> /mars/resource-r1/log-000000001-A"]
    );
}

#[test]
fn the_only_log_is_never_deleted() {
    let node = Node::new("B", PAIR);
    node.run(&["log-delete-all", "r1"]).ok(&["nothing to do"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn an_unknown_position_and_a_split_brain_block_everything() {
    let node = three(3).without("resource-r1/replay-B");
    node.run(&["log-delete-all", "r1"])
        .failed(1, &["replay-B is missing"]);
    let node = three(3).with(
        "resource-r1/version-000000001-B",
        &V1.replace("8675", "0000"),
    );
    node.run(&["log-delete", "r1"])
        .failed(1, &["splitbrain at sequence 1 detected"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}
