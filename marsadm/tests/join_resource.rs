//! join-resource.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

fn third(text: &str) -> Node {
    Node::new("C", text).with("ips/ip-C", "10.0.0.3")
}

#[test]
fn a_new_member_begins_at_the_primarys_log_with_nothing_synced() {
    let node = third(PAIR);
    node.run(&["join-resource", "r1", "10M"]).ok(&[
        "joining to existing resource 'r1'",
        "successfully joined resource 'r1'",
    ]);
    let data = node.dir.root().join("resource-r1/data-C");
    assert_eq!(
        node.changes(),
        [
            format!("+resource-r1/data-C -> {}", data.display()),
            "+resource-r1/device-C -> r1".into(),
            "+resource-r1/syncstatus-C -> 0".into(),
            "+resource-r1/actsize-C -> 10485760".into(),
            "+resource-r1/connect-C -> A".into(),
            "+resource-r1/replay-C -> log-000000001-A,0,0".into(),
            "+resource-r1/version-000000001-C -> 43ff12d58c965fde2900fa8d54329483,A,0,0".into(),
            "+resource-r1/todo-C/attach -> 1".into(),
            "+resource-r1/todo-C/connect -> 1".into(),
            "+resource-r1/todo-C/sync -> 1".into(),
            "+resource-r1/todo-C/allow-replay -> 1".into(),
            "-log resource-r1/log-000000001-A".into(),
        ]
    );
}

#[test]
fn in_the_middle_the_version_before_is_copied_and_the_first_peer_is_told() {
    let node = third(PAIR)
        .with("resource-r1/replay-A", "log-000000003-A,10,0")
        .with(
            "resource-r1/version-000000002-A",
            "22222222222222222222222222222222,A,4180,0",
        )
        .without("resource-r1/connect-A");
    node.run(&["join-resource", "r1", "10M", "copy"])
        .ok(&["/dev/mars/copy"]);
    for (path, value) in [
        ("replay-C", "log-000000003-A,0,0"),
        (
            "version-000000002-C",
            "22222222222222222222222222222222,A,4180,0",
        ),
        ("connect-A", "C"),
        ("device-C", "copy"),
    ] {
        assert_eq!(
            node.get(&format!("resource-r1/{path}")).as_deref(),
            Some(value)
        );
    }
}

#[test]
fn a_smaller_disk_is_refused_and_a_larger_file_is_made_to_measure() {
    let node = third(PAIR);
    node.run(&["join-resource", "r1", "9M"])
        .failed(1, &["too small: it has 9437184 bytes", "size -> 10485760"]);
    assert_eq!(node.changes(), Vec::<String>::new());
    node.run(&["join-resource", "r1", "1G"])
        .ok(&["adjusting size to 10485760"]);
    assert_eq!(
        std::fs::metadata(node.dir.root().join("resource-r1/data-C"))
            .unwrap()
            .len(),
        10 << 20
    );
}

#[test]
fn refusals() {
    let node = Node::new("B", PAIR);
    node.run(&["join-resource", "r1", "10M"])
        .failed(1, &["resource 'r1' is already joined", "data-B"]);
    let node = Node::new("C", PAIR);
    node.run(&["join-resource", "r1", "10M"]).failed(
        4,
        &["please run 'join-cluster' first", "ips/ip-C is missing"],
    );
    let node = third(PAIR).with("resource-r1/replay-A", "log-000000003-A,10,0");
    node.run(&["join-resource", "r1", "10M"])
        .failed(4, &["version-000000002-A is not known here"]);
    let node = third(PAIR).without("resource-r1/primary");
    node.run(&["join-resource", "r1", "10M"])
        .failed(4, &["cannot determine primary"]);
    let node = third("ips/ip-A -> 10.0.0.1 @100.000000001\n");
    node.run(&["join-resource", "r1", "10M"])
        .failed(4, &["resource 'r1' does not exist"]);
}

#[test]
fn without_a_primary_the_most_advanced_member_is_the_source() {
    let node = third(PAIR)
        .with("resource-r1/primary", "(none)")
        .with("resource-r1/replay-A", "log-000000001-A,100,0");
    node.run(&["join-resource", "r1", "10M"])
        .ok(&["using 'B' as primary"]);
    assert_eq!(node.get("resource-r1/connect-C").as_deref(), Some("B"));
}

#[test]
fn with_a_running_daemon_it_waits_for_the_tree() {
    let node = third("ips/ip-A -> 10.0.0.1 @100.000000001\n").alive("C");
    node.run(&["join-resource", "r1", "10M", "--timeout", "1"])
        .failed(5, &["resource 'r1' does not exist"]);
    let child = node.start(&["join-resource", "r1", "10M"]);
    let tree = mars_tree::manifest::parse(PAIR).unwrap();
    mars_tree::manifest::store_manifest(&tree, node.dir.root()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(node.get("resource-r1/connect-C").as_deref(), Some("A"));
}
