//! delete-resource, and leave-resource of the last member.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

/// Only A is a member.
fn alone() -> Node {
    let text: Vec<&str> = PAIR
        .lines()
        .filter(|l| !l.contains("-B") && !l.contains("connect-A"))
        .collect();
    Node::new("A", &text.join("\n"))
}

fn ordered(node: &Node, path: &str) -> bool {
    let target = format!("-> /mars/resource-r1/{path}");
    node.changes()
        .iter()
        .any(|c| c.starts_with("+todo-global/delete-") && c.ends_with(&target))
}

#[test]
fn force_on_the_last_member_removes_everything_and_the_name_is_free() {
    let node = alone();
    node.run(&["delete-resource", "r1"]).failed(
        1,
        &[
            "this node is a member",
            "marsadm leave-resource r1",
            "data-A",
        ],
    );
    node.run(&["delete-resource", "r1", "--force", "--dry-run"])
        .ok(&["would order deletion of /mars/resource-r1/size"]);
    assert_eq!(node.changes(), Vec::<String>::new());
    node.run(&["delete-resource", "r1", "--force"])
        .ok(&["successfully deleted resource 'r1'"]);
    assert!(!node.dir.root().join("resource-r1").exists());
    for link in ["size", "primary", "data-A", "replay-A", "todo-A/attach"] {
        assert!(ordered(&node, link), "{link}: {:?}", node.changes());
    }
    // A log is named by number alone: an order for it would hit its namesake in a new resource.
    assert!(!ordered(&node, "log-000000001-A"));
    node.run(&["create-resource", "r1", "1M"])
        .ok(&["successfully created resource 'r1'"]);
}

#[test]
fn other_members_must_leave_first() {
    let node = Node::new("A", PAIR);
    node.run(&["delete-resource", "r1", "--force"]).failed(
        1,
        &[
            "has other members: B",
            "on each of them: marsadm leave-resource r1",
        ],
    );
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn what_nobody_is_a_member_of_is_deleted_from_anywhere() {
    let text = "ips/ip-A -> 10.0.0.1 @1.000000000\nresource-r1/size -> 4096 @1.000000001\n\
        resource-r1/primary -> (none) @1.000000002\nresource-r1/todo-B/sync -> 1 @1.000000003\n";
    let node = Node::new("A", text);
    node.run(&["delete-resource", "r1"])
        .ok(&["successfully deleted"]);
    assert!(!node.dir.root().join("resource-r1").exists());
    node.run(&["delete-resource", "r1"])
        .failed(4, &["does not exist"]);
}

#[test]
fn with_the_last_member_the_resource_goes() {
    let mut node = alone().with("resource-r1/primary", "(none)");
    for switch in ["attach", "connect", "sync", "allow-replay"] {
        node = node.with(&format!("resource-r1/todo-A/{switch}"), "0");
    }
    node.run(&["leave-resource", "r1"]).ok(&[
        "the resource goes with this one",
        "successfully deleted resource 'r1'",
    ]);
    assert!(!node.dir.root().join("resource-r1").exists());
}

#[test]
fn a_sparse_disk_is_kept_outside_of_the_resource() {
    let node = alone().without("resource-r1/data-A");
    std::fs::write(node.dir.root().join("resource-r1/data-A"), "precious").unwrap();
    node.run(&["delete-resource", "r1", "--force"])
        .ok(&["ignore-left-r1-A"]);
    let kept = std::fs::read(node.dir.root().join("ignore-left-r1-A")).unwrap();
    assert_eq!(kept, b"precious");
    assert!(!node.dir.root().join("resource-r1").exists());
}

#[test]
fn files_of_others_are_not_touched() {
    let node = alone();
    let notes = node.dir.root().join("resource-r1/userspace/notes");
    std::fs::create_dir_all(notes.parent().unwrap()).unwrap();
    std::fs::write(&notes, "mine").unwrap();
    let done = node.run(&["delete-resource", "r1", "--force"]);
    done.ok(&[]);
    assert!(
        done.err.contains("holds files that are not of MARS"),
        "{done:?}"
    );
    assert_eq!(std::fs::read(&notes).unwrap(), b"mine");
}

#[test]
fn a_device_that_does_not_go_leaves_everything_as_it_was() {
    let node = alone()
        .with("resource-r1/actual-A/is-primary", "1")
        .alive("A");
    node.run(&["delete-resource", "r1", "--force", "--timeout", "1"])
        .failed(5, &["waiting for the device to be closed"]);
    assert_eq!(node.get("resource-r1/primary").as_deref(), Some("A"));
    assert_eq!(node.get("resource-r1/todo-A/attach").as_deref(), Some("1"));
    assert_eq!(
        node.get("resource-r1/data-A").as_deref(),
        Some("/dev/vg/lv")
    );
}
