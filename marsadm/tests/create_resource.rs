//! create-resource.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::Node;

use std::os::unix::fs::MetadataExt;

fn cluster() -> Node {
    Node::new(
        "A",
        "ips/ip-A -> 10.0.0.1 @100.000000001\ntodo-global/deleted-A -> 1 @100.000000002\n",
    )
}

#[test]
fn a_sparse_resource_has_all_its_links_and_an_empty_log() {
    let node = cluster();
    node.run(&["create-resource", "r1", "10M"]).ok(&[
        "creating new resource 'r1'",
        "resource 'r1' will appear as local device '/dev/mars/r1'",
        "successfully created resource 'r1'",
    ]);
    let data = node.dir.root().join("resource-r1/data-A");
    let key = node.get("ips/key-A").unwrap();
    assert_eq!(
        node.changes(),
        [
            format!("+ips/key-A -> {key}"),
            "+resource-r1/size -> 10485760".into(),
            "+resource-r1/primary -> A".into(),
            format!("+resource-r1/data-A -> {}", data.display()),
            "+resource-r1/device-A -> r1".into(),
            "+resource-r1/syncstatus-A -> 10485760".into(),
            "+resource-r1/actsize-A -> 10485760".into(),
            "+resource-r1/replay-A -> log-000000001-A,0,0".into(),
            "+resource-r1/todo-A/attach -> 1".into(),
            "+resource-r1/todo-A/connect -> 1".into(),
            "+resource-r1/todo-A/sync -> 1".into(),
            "+resource-r1/todo-A/allow-replay -> 1".into(),
            "+log resource-r1/log-000000001-A".into(),
        ]
    );
    assert_eq!(std::fs::metadata(&data).unwrap().len(), 10 << 20);
    assert!(
        std::fs::metadata(&data).unwrap().blocks() * 512 < 64 << 10,
        "not sparse"
    );
    let dirs = node.dir.load().tree.dirs;
    for dir in ["userspace", "defaults", "defaults-A", "actual-A", "todo-A"] {
        assert!(dirs.contains(&format!("resource-r1/{dir}")), "{dirs:?}");
    }
    assert!(!node.dir.root().join(".tmp.r1").exists());
}

#[test]
fn a_name_is_used_once() {
    let node = cluster();
    node.run(&["create-resource", "r1", "1M", "disk"])
        .ok(&["/dev/mars/disk"]);
    node.run(&["create-resource", "r1", "1M"])
        .failed(1, &["resource 'r1' already exists"]);
    node.run(&["create-resource", "r2", "1M", "disk"])
        .failed(1, &["device name 'disk' is taken by resource 'r1'"]);
    node.run(&["create-resource", "all", "1M"])
        .failed(2, &["'all'"]);
    node.run(&["create-resource", "1r", "1M"])
        .failed(2, &["bad resource name"]);
    node.run(&["create-resource", "aaaaaaaaaaaaaaaaa", "1M"])
        .failed(2, &["longer than 16"]);
}

#[test]
fn disks_are_checked() {
    let node = cluster();
    node.run(&["create-resource", "r1", "dev/sdx"])
        .failed(2, &["absolute path starting with '/'"]);
    node.run(&["create-resource", "r1", "/nonexistent"])
        .failed(4, &["block device '/nonexistent' does not exist"]);
    node.run(&["create-resource", "r1", "/etc/hostname"])
        .failed(1, &["'/etc/hostname' is not a block device"]);
    node.run(&["create-resource", "r1", "12Q"])
        .failed(2, &["neither an absolute path nor a size"]);
    node.run(&["create-resource", "r1", "0"])
        .failed(2, &["implausible size"]);
    node.run(&["create-resource", "r1"])
        .failed(2, &["DEVICE|SIZE"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn what_a_crash_left_behind_is_no_obstacle() {
    let node = cluster();
    std::fs::create_dir_all(node.dir.root().join(".tmp.r1/resource-r1/todo-A")).unwrap();
    node.run(&["create-resource", "r1", "1M"])
        .ok(&["successfully created"]);
    assert_eq!(node.run(&["role", "r1"]).out, "primary\n");
}
