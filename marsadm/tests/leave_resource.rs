//! leave-resource.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

fn off(mut node: Node, host: &str) -> Node {
    for switch in ["attach", "connect", "sync", "allow-replay"] {
        node = node.with(&format!("resource-r1/todo-{host}/{switch}"), "0");
    }
    node
}

#[test]
fn all_links_of_the_node_go_here_and_by_orders_everywhere() {
    let node = off(Node::new("B", PAIR), "B");
    node.run(&["leave-resource", "r1"])
        .ok(&["successfully left resource 'r1'"]);
    let changes = node.changes();
    let mut own = vec![
        "data-B",
        "device-B",
        "syncstatus-B",
        "actsize-B",
        "connect-B",
        "replay-B",
        "version-000000001-B",
    ];
    own.extend([
        "todo-B/attach",
        "todo-B/connect",
        "todo-B/sync",
        "todo-B/allow-replay",
    ]);
    for link in own {
        assert!(
            changes.contains(&format!("-resource-r1/{link}")),
            "{link}: {changes:?}"
        );
        let order = format!("-> /mars/resource-r1/{link}");
        assert!(
            changes
                .iter()
                .any(|c| c.starts_with("+todo-global/delete-") && c.ends_with(&order)),
            "{link}"
        );
    }
    assert!(
        changes
            .iter()
            .all(|c| !c.contains("-A") || c.contains("connect-A") || c.starts_with("-log ")),
        "{changes:?}"
    );
    // Who is no member has no use for logs.
    assert!(changes.contains(&"-log resource-r1/log-000000001-A".into()));
    // Nobody would be left to sync from but A itself.
    assert_eq!(node.get("resource-r1/connect-A"), None);
    node.run(&["role", "r1"]).failed(4, &["not yet joined"]);
}

#[test]
fn others_who_synced_from_here_get_another_peer() {
    let node = off(
        Node::new("B", PAIR).with("resource-r1/data-C", "/dev/x"),
        "B",
    )
    .with("resource-r1/connect-C", "B");
    node.run(&["leave-resource", "r1"])
        .ok(&["changing 'resource-r1/connect-C' from 'B' to 'A'"]);
    assert_eq!(node.get("resource-r1/connect-C").as_deref(), Some("A"));
}

#[test]
fn it_is_refused_while_something_runs() {
    let node = Node::new("A", PAIR);
    node.run(&["leave-resource", "r1"])
        .failed(1, &["cannot be executed on primary"]);
    let node = Node::new("B", PAIR);
    node.run(&["leave-resource", "r1"]).failed(
        1,
        &[
            "switch 'resource-r1/todo-B/attach' is not off",
            "marsadm detach r1",
        ],
    );
    let node = off(Node::new("B", PAIR), "B").with("resource-r1/actual-B/is-primary", "1");
    node.run(&["leave-resource", "r1"])
        .failed(1, &["still served"]);
    let node = off(Node::new("B", PAIR), "B")
        .with("resource-r1/actual-B/logfile-update", "1")
        .alive("B");
    node.run(&["leave-resource", "r1", "--timeout", "1"])
        .failed(
            5,
            &["waiting for 'resource-r1/actual-B/logfile-update' to become 0"],
        );
    assert_eq!(node.changes(), Vec::<String>::new());
    Node::new("B", PAIR)
        .run(&["leave-resource", "r1", "--force"])
        .ok(&["successfully left"]);
}

#[test]
fn a_sparse_disk_is_kept_under_another_name() {
    let node = off(Node::new("B", PAIR).without("resource-r1/data-B"), "B");
    std::fs::write(node.dir.root().join("resource-r1/data-B"), "precious").unwrap();
    node.run(&["leave-resource", "r1"]).ok(&["left-B"]);
    let kept = std::fs::read(node.dir.root().join("resource-r1/left-B")).unwrap();
    assert_eq!(kept, b"precious");
    node.run(&["role", "r1"]).failed(4, &["not yet joined"]);
}
