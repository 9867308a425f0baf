//! verify.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR, link};

const ORDER: &str = "resource-r1/todo-B/verify";
const ANSWER: &str = "resource-r1/actual-B/verify";

fn pair() -> Node {
    Node::new("A", PAIR).alive("A").alive("B")
}

/// Gives the order, answers it as marsd of B would, and tells exit code, output and errors.
fn answered(node: &Node, args: &[&str], order: &str, answer: &str) -> (i32, String, String) {
    let child = node.start(args);
    node.wait_for(ORDER, order);
    let number = order.split(',').next().unwrap();
    for state in ["running,5242880", answer] {
        node.dir
            .set(&link(ANSWER), &format!("{number},{state}"))
            .unwrap();
    }
    let output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn the_answers_of_the_secondary_become_words_and_exit_codes() {
    let node = pair();
    let (code, out, err) = answered(&node, &["verify", "r1"], "1,check", "done,0,0,2,none");
    assert_eq!(code, 9, "{out}");
    assert!(err.contains("compared on B (2 blocks)"), "{err}");
    assert!(
        out.contains("resource r1 on B: no differences in 10485760 bytes"),
        "{out}"
    );
    assert!(out.contains("2 blocks were written whenever"), "{out}");

    let found = "done,2,0,0,4096+8192";
    let (code, out, err) = answered(&node, &["verify", "r1"], "2,check", found);
    assert_eq!(code, 1);
    assert!(out.contains("  bytes 4096 to 12287 (8192 bytes)"), "{out}");
    assert!(
        err.contains("the disk of B differs") && err.contains("marsadm verify r1 --repair"),
        "{err}"
    );

    let repair = ["verify", "r1", "--repair", "--node", "B"];
    let (code, out, _) = answered(&node, &repair, "3,repair", "done,2,2,0,4096+8192");
    assert!(code == 0 && out.contains("2 repaired"), "{out}");

    let failed = "failed,A is not connected";
    let (code, _, err) = answered(&node, &repair, "4,repair", failed);
    assert!(
        code == 6 && err.contains("B: A is not connected"),
        "{code} {err}"
    );
}

#[test]
fn what_could_not_be_compared_is_refused_before_anything_is_ordered() {
    let all = ["verify", "r1"];
    pair()
        .run(&["verify", "r1", "--node", "A"])
        .failed(1, &["A is primary", "resource-r1/primary -> A"]);
    pair()
        .run(&["verify", "r1", "--node", "C"])
        .failed(4, &["C has not joined", "device-C is missing"]);
    let dead = Node::new("A", PAIR).alive("A");
    dead.run(&all)
        .failed(1, &["marsd of B gives no sign of life", "start marsd on B"]);
    for (path, value, text) in [
        ("todo-B/attach", "0", "attach is off on B"),
        ("todo-B/connect", "0", "marsadm connect-local r1"),
        ("syncstatus-B", "4096", "syncstatus-B -> 4096"),
        ("syncpos-B", "log-000000001-A,9000,0", "B is not synced"),
    ] {
        let node = pair().with(&format!("resource-r1/{path}"), value);
        node.run(&all).failed(1, &[text]);
        assert_eq!(node.changes(), [""; 0]);
    }
    let alone = Node::new("A", PAIR)
        .without("resource-r1/data-B")
        .without("resource-r1/device-B")
        .without("resource-r1/replay-B")
        .without("resource-r1/syncstatus-B");
    alone.run(&all).failed(4, &["no secondary"]);
    let node = pair();
    node.run(&["verify", "r1", "--dry-run"])
        .ok(&["would set resource-r1/todo-B/verify -> 1,check"]);
    assert_eq!(node.changes(), [""; 0]);
}

#[test]
fn who_gives_up_waiting_stops_the_comparison() {
    let node = pair();
    node.run(&["verify", "r1", "--timeout", "1"])
        .failed(5, &["waiting for B to begin"]);
    assert_eq!(node.get(ORDER).as_deref(), Some("2,stop"));

    let child = node.start(&["verify", "r1"]);
    node.wait_for(ORDER, "3,check");
    node.dir.set(&link(ORDER), "4,repair").unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("somebody else gave another order"), "{err}");
    assert_eq!(node.get(ORDER).as_deref(), Some("4,repair"));
}
