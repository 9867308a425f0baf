//! `--dry-run`: every command says what it would do, changes not one byte, and does not claim to have done it.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::{Node, PAIR};

/// Everything below a directory: time, size and target.
type Snapshot = BTreeMap<PathBuf, (SystemTime, u64, Option<PathBuf>)>;

fn snapshot(dir: &Path, found: &mut Snapshot) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let target = std::fs::read_link(&path).ok();
        if meta.is_dir() {
            snapshot(&path, found);
        }
        found.insert(path, (meta.modified().unwrap(), meta.len(), target));
    }
}

fn pair(host: &str) -> Node {
    Node::new(host, PAIR).alive("A").alive("B")
}

fn off(host: &str) -> Node {
    ["attach", "connect", "sync", "allow-replay"]
        .iter()
        .fold(Node::new(host, PAIR), |node, switch| {
            node.with(&format!("resource-r1/todo-{host}/{switch}"), "0")
        })
}

fn three_logs() -> Node {
    let node = Node::new("A", PAIR)
        .with("resource-r1/replay-A", "log-000000002-A,0,0")
        .with("resource-r1/replay-B", "log-000000002-A,0,0");
    node.plus("log resource-r1/log-000000002-A 0")
}

fn grown() -> Node {
    ["A", "B"].iter().fold(Node::new("A", PAIR), |node, host| {
        node.with(&format!("resource-r1/actsize-{host}"), "20971520")
            .with(&format!("resource-r1/todo-{host}/sync"), "0")
    })
}

fn without_members() -> Node {
    let of_nobody = |line: &&str| !["-A", "-B"].iter().any(|host| line.contains(host));
    let text: Vec<&str> = PAIR.lines().filter(of_nobody).collect();
    Node::new("A", &text.join("\n"))
}

/// A tree on which the command has something to do, the words behind its name, and what it says.
type Case = (
    &'static str,
    fn() -> Node,
    &'static [&'static str],
    &'static str,
);

const SWITCH: &str = "would set resource-r1/todo-";

#[rustfmt::skip]
fn changing() -> Vec<Case> {
    vec![
        ("create-cluster", || Node::new("A", ""), &["--ip", "10.1.2.3"], "would set ips/ip-A -> 10.1.2.3"),
        ("leave-cluster", || Node::new("C", PAIR).with("ips/ip-C", "10.0.0.3"), &[], "would order deletion of /mars/ips/ip-C"),
        ("create-resource", || Node::new("A", "ips/ip-A -> 10.0.0.1 @100.000000001\n"), &["r2", "10M"], "would set resource-r2/size -> 10485760"),
        ("join-resource", || Node::new("C", PAIR).with("ips/ip-C", "10.0.0.3"), &["r1", "10M"], "would set resource-r1/syncstatus-C -> 0"),
        ("leave-resource", || off("B"), &["r1"], "would remove resource-r1/data-B"),
        ("delete-resource", without_members, &["r1"], "would order deletion of /mars/resource-r1/size"),
        ("resize", grown, &["r1"], "would set resource-r1/size -> 20971520"),
        ("disconnect", || pair("A"), &["r1"], SWITCH),
        ("disconnect-local", || pair("A"), &["r1"], SWITCH),
        ("pause-replay", || pair("A"), &["r1"], SWITCH),
        ("pause-replay-local", || pair("A"), &["r1"], SWITCH),
        ("pause-sync", || pair("A"), &["r1"], SWITCH),
        ("pause-sync-local", || pair("A"), &["r1"], SWITCH),
        ("detach", || pair("B"), &["r1"], SWITCH),
        ("down", || pair("B"), &["r1"], SWITCH),
        ("connect", || off("B"), &["r1"], SWITCH),
        ("connect-local", || off("B"), &["r1"], SWITCH),
        ("resume-replay", || off("B"), &["r1"], SWITCH),
        ("resume-replay-local", || off("B"), &["r1"], SWITCH),
        ("resume-sync", || off("B"), &["r1"], SWITCH),
        ("resume-sync-local", || off("B"), &["r1"], SWITCH),
        ("attach", || off("B"), &["r1"], SWITCH),
        ("up", || off("B"), &["r1"], SWITCH),
        ("fake-sync", || Node::new("B", PAIR).with("resource-r1/syncstatus-B", "0").with("resource-r1/todo-B/sync", "0"), &["r1"], "would set resource-r1/syncstatus-B -> 10485760"),
        ("invalidate", || Node::new("B", PAIR), &["r1"], "would set resource-r1/syncstatus-B -> 0"),
        ("invalidate-remote", || pair("A"), &["r1"], "would"),
        ("verify", || pair("A"), &["r1", "--repair"], "would set resource-r1/todo-B/verify -> 1,repair"),
        ("log-rotate", || Node::new("A", PAIR), &["r1"], "would create logfile resource-r1/log-000000002-A"),
        ("log-delete", three_logs, &["r1"], "would order deletion of /mars/resource-r1/log-000000001-A"),
        ("log-delete-all", three_logs, &["r1"], "would order deletion of /mars/resource-r1/log-000000001-A"),
        ("primary", || Node::new("B", PAIR), &["r1"], "would set resource-r1/primary -> B"),
        ("secondary", || Node::new("A", PAIR), &["r1"], "would set resource-r1/primary -> (none)"),
        ("wait-connect", || pair("A"), &["r1"], ""),
        ("wait-replay", || pair("B").with("resource-r1/replay-B", "log-000000001-A,0,0"), &["r1"], "would wait"),
        ("wait-sync", || pair("B").with("resource-r1/syncstatus-B", "0"), &["r1"], "would wait"),
        ("wait-umount", || pair("A").with("resource-r1/actual-A/device-r1", "1"), &["r1"], ""),
    ]
}

/// What changes nothing anyway, and what asks a peer over ssh first.
const OTHERS: [&str; 7] = [
    "join-cluster",
    "role",
    "cstate",
    "dstate",
    "status",
    "version",
    "help",
];

#[test]
fn nothing_is_changed_and_nothing_is_claimed() {
    for (name, tree, words, said) in changing() {
        let node = tree();
        let mut before = Snapshot::new();
        snapshot(node.dir.root(), &mut before);
        let args: Vec<&str> = [&[name], words, &["--dry-run"]].concat();
        let done = node.run(&args);
        assert_eq!(done.code, 0, "{name}: {done:?}");
        assert!(done.out.contains(said), "{name}: {done:?}");
        assert!(!done.out.contains("successfully"), "{name}: {done:?}");
        let mut after = Snapshot::new();
        snapshot(node.dir.root(), &mut after);
        assert_eq!(before, after, "{name}");
    }
}

#[test]
fn without_it_the_same_commands_do_change_something() {
    for (name, tree, words, said) in changing() {
        // Those that wait for a running marsd are tested elsewhere.
        if !said.starts_with("would ") || said.contains("wait") || said.contains("verify") {
            continue;
        }
        let node = tree();
        let args: Vec<&str> = [&[name], words].concat();
        node.run(&args).ok(&[]);
        assert_ne!(node.changes(), [""; 0], "{name}");
    }
}

#[test]
fn no_command_is_left_out() {
    let help = Node::new("A", "").run(&["help"]).out;
    let listed: BTreeSet<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let tested: BTreeSet<&str> = changing().iter().map(|c| c.0).chain(OTHERS).collect();
    assert_eq!(listed, tested);
}
