//! create-cluster, leave-cluster, and the refusals of join-cluster.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

use std::os::unix::fs::MetadataExt;

#[test]
fn a_new_cluster_has_address_key_and_directories() {
    let node = Node::new("db-1", "");
    node.run(&["create-cluster", "--ip", "10.1.2.3"])
        .ok(&["successfully created cluster on db-1"]);
    let key = node.get("ips/key-db-1").unwrap();
    assert_eq!(
        node.changes(),
        [
            "+ips/ip-db-1 -> 10.1.2.3".to_string(),
            format!("+ips/key-db-1 -> {key}"),
            "+todo-global/deleted-db-1 -> 1".into(),
        ]
    );
    let dirs = node.dir.load().tree.dirs;
    for dir in [
        "ips",
        "userspace",
        "defaults",
        "defaults-db-1",
        "todo-global",
    ] {
        assert!(dirs.contains(dir), "{dirs:?}");
    }
    let mode = |name: &str| {
        std::fs::metadata(node.dir.root().join(name))
            .unwrap()
            .mode()
            & 0o777
    };
    assert_eq!((mode("ips"), mode(".key-db-1")), (0o700, 0o600));
}

#[test]
fn a_cluster_is_created_once_and_force_keeps_the_key() {
    let node = Node::new("A", "");
    node.run(&["create-cluster", "--ip", "10.1.2.3"]).ok(&[]);
    let key = node.get("ips/key-A");
    node.run(&["create-cluster"])
        .failed(1, &["cluster is already created", "ips/"]);
    node.run(&["force-create-cluster", "--ip", "fd00::7"])
        .ok(&[]);
    assert_eq!(node.get("ips/ip-A").as_deref(), Some("[fd00::7]:7777"));
    assert_eq!(node.get("ips/key-A"), key);
}

#[test]
fn bad_addresses_are_refused_before_anything_is_made() {
    let node = Node::new("A", "");
    node.run(&["create-cluster", "--ip", "10.0.0"])
        .failed(2, &["'10.0.0' is no address"]);
    assert!(node.changes_of_root().is_empty());
}

#[test]
fn leaving_is_ordered_and_done() {
    let node = Node::new("B", PAIR);
    node.run(&["leave-cluster"])
        .failed(1, &["I am member of some resources", "leave-resource r1"]);
    let node = Node::new("C", PAIR).with("ips/ip-C", "10.0.0.3");
    node.run(&["leave-cluster"]).ok(&["C leaves the cluster"]);
    assert_eq!(
        node.changes(),
        [
            "+todo-global/delete-000000001 -> /mars/ips/ip-C",
            "+todo-global/delete-000000002 -> /mars/ips/key-C",
            "-ips/ip-C",
        ]
    );
    Node::new("D", PAIR)
        .run(&["leave-cluster"])
        .failed(4, &["D is in no cluster"]);
}

#[test]
fn a_lost_node_is_removed_with_its_memberships() {
    let node = Node::new("B", PAIR);
    node.run(&["leave-cluster", "--host", "A"]).failed(
        1,
        &[
            "A is primary of resource 'r1'",
            "marsadm --force primary r1",
        ],
    );
    node.run(&["leave-cluster", "--host", "X"])
        .failed(4, &["X is in no cluster"]);
    let node = Node::new("B", PAIR).with("resource-r1/primary", "B");
    node.run(&["leave-cluster", "--host", "A"])
        .ok(&["A leaves resource 'r1'", "A is removed from the cluster"]);
    let changes = node.changes();
    for (sign, link) in [
        ("-", "ips/ip-A"),
        ("-", "resource-r1/data-A"),
        ("-", "resource-r1/replay-A"),
        ("-", "resource-r1/todo-A/attach"),
    ] {
        let removed = format!("{sign}{link}");
        assert!(changes.contains(&removed), "{removed} in {changes:?}");
        let order = format!("-> /mars/{link}");
        assert!(
            changes
                .iter()
                .any(|c| c.starts_with("+todo-global/delete-") && c.ends_with(&order))
        );
    }
    // It has nobody left to sync from.
    let lost = |c: &&String| c.starts_with('-') && c.ends_with("-B");
    let lost: Vec<&String> = changes.iter().filter(lost).collect();
    assert_eq!(lost, ["-resource-r1/connect-B"]);
}

#[test]
fn a_member_of_a_cluster_does_not_join_another() {
    let node = Node::new("B", PAIR);
    node.run(&["join-cluster", "A"])
        .failed(1, &["Sorry, some resources already exist!", "resource-r1/"]);
    let node = Node::new("B", "ips/ip-A -> 10.0.0.1 @100.000000001\n");
    node.run(&["join-cluster", "A"]).failed(1, &["ips/ip-A"]);
}

#[test]
fn a_peer_that_is_not_there_leaves_nothing_behind() {
    let node = Node::new("B", "");
    node.run(&["join-cluster", "127.0.0.254", "--ssh-port", "1"])
        .failed(7, &["oops, no connection to 127.0.0.254 port 1"]);
    node.run(&["join-cluster", "/etc/passwd"])
        .failed(2, &["neither a host name nor an address"]);
    node.run(&["join-cluster", "-x"]).failed(2, &[]);
    assert!(node.changes_of_root().is_empty());
}
