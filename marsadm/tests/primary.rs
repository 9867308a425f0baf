//! primary: checks, waiting, the switch, restoring, force.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

const V1: &str = "8675eee912f0fb9514b69557d8a22cde,A,8360,0";
const NOTHING: [String; 0] = [];

#[test]
fn a_node_that_has_everything_takes_over() {
    let node = Node::new("B", PAIR);
    node.run(&["primary", "r1"]).ok(&[
        "trying to switch B to primary...",
        "OK, it seems that sync has finished on B.",
        "primary changed from 'A' to '(none)'",
        "primary changed from 'A' to 'B'",
    ]);
    assert_eq!(node.changes(), ["+resource-r1/primary -> B"]);
    node.run(&["primary", "r1"]).ok(&["I am already primary."]);
}

#[test]
fn what_waiting_would_not_change_is_refused_before_anything_is_touched() {
    for (path, value, code, text) in [
        (
            "resource-r1/syncstatus-B",
            "4096",
            1,
            "only 4096 / 10485760 bytes transferred",
        ),
        (
            "resource-r1/syncpos-B",
            "log-000000001-A,9999,0",
            1,
            "not consistent before log-000000001-A,9999",
        ),
        (
            "resource-r1/todo-B/connect",
            "0",
            1,
            "marsadm connect-local r1",
        ),
        ("resource-r1/todo-B/attach", "0", 1, "marsadm attach r1"),
        (
            "resource-r1/actual-A/is-primary",
            "1",
            1,
            "A serves the device as far as is known, and gives no sign of life",
        ),
        (
            "resource-r1/version-000000001-B",
            "ffffffffffffffffffffffffffffffff,B,8360,0",
            1,
            "splitbrain at sequence 1 detected",
        ),
        (
            "resource-r1/version-000000001-B",
            "ffffffffffffffffffffffffffffffff,A,8360,0",
            1,
            "B stands at log-000000001-A,8360, A stands at log-000000001-A,8360",
        ),
    ] {
        let node = Node::new("B", PAIR).with(path, value);
        node.run(&["primary", "r1"]).failed(code, &[text]);
        assert_eq!(node.changes(), NOTHING, "{path}");
    }
    let node = Node::new("B", PAIR).without("resource-r1/syncstatus-B");
    node.run(&["primary", "r1"])
        .failed(4, &["syncstatus-B is missing"]);
}

#[test]
fn two_logs_with_one_number_are_a_split_brain() {
    let node = Node::new("B", PAIR).plus("log resource-r1/log-000000001-B 100");
    node.run(&["primary", "r1"])
        .failed(1, &["splitbrain at sequence 1", "log-000000001-B are here"]);
    assert_eq!(node.changes(), NOTHING);
}

#[test]
fn an_old_finished_log_with_different_values_is_a_split_brain() {
    let node = Node::new("B", PAIR)
        .with(
            "resource-r1/version-000000001-B",
            "ffffffffffffffffffffffffffffffff,A,7000,0",
        )
        .with(
            "resource-r1/version-000000002-A",
            "11111111111111111111111111111111,A,0,0",
        )
        .with(
            "resource-r1/version-000000002-B",
            "22222222222222222222222222222222,A,10,0",
        );
    node.run(&["primary", "r1"])
        .failed(1, &["splitbrain at sequence 1 detected"]);
}

#[test]
fn going_on_while_another_got_further_is_a_split_brain() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/replay-B", "log-000000002-B,0,0")
        .with(
            "resource-r1/version-000000001-B",
            "33333333333333333333333333333333,A,4180,0",
        )
        .with(
            "resource-r1/version-000000002-B",
            "44444444444444444444444444444444,B,0,0",
        );
    node.run(&["primary", "r1"])
        .failed(1, &["splitbrain at sequence 1 detected"]);
    assert_eq!(node.changes(), NOTHING);
}

#[test]
fn the_old_value_comes_back_when_the_old_primary_does_not_stop() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/actual-A/is-primary", "1")
        .alive("A");
    let done = node.run(&["primary", "r1", "--timeout", "1"]);
    done.failed(
        5,
        &[
            "gave up after 1 s",
            "1 other primary host(s) to disappear: A",
        ],
    );
    assert!(done.out.contains("primary restored to 'A'"), "{done:?}");
    assert_eq!(node.changes(), NOTHING);
}

#[test]
fn it_goes_on_as_soon_as_the_old_primary_has_stopped() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/actual-A/is-primary", "1")
        .alive("A");
    let child = node.start(&["primary", "r1"]);
    node.wait_for("resource-r1/primary", "(none)");
    node.hear("resource-r1/actual-A/is-primary", "0");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(node.get("resource-r1/primary").as_deref(), Some("B"));
}

#[test]
fn what_the_old_primary_said_before_it_was_one_does_not_count() {
    // A was made primary a moment ago: that it serves the device has not yet arrived here.
    let node = Node::new("B", PAIR)
        .with("resource-r1/actual-A/is-primary", "0")
        .alive("A");
    let done = node.run(&["primary", "r1", "--timeout", "1"]);
    done.failed(
        5,
        &["gave up after 1 s", "waiting for A, which was primary"],
    );
    assert!(done.out.contains("primary restored to 'A'"), "{done:?}");
    let child = node.start(&["primary", "r1"]);
    node.wait_for("resource-r1/primary", "(none)");
    node.hear("resource-r1/actual-A/is-primary", "0");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_signal_restores_the_old_value() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/actual-A/is-primary", "1")
        .alive("A");
    let child = node.start(&["primary", "r1"]);
    node.wait_for("resource-r1/primary", "(none)");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    assert_eq!(node.get("resource-r1/primary").as_deref(), Some("A"));
}

#[test]
fn somebody_elses_decision_meanwhile_is_respected() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/actual-A/is-primary", "1")
        .alive("A");
    let child = node.start(&["primary", "r1"]);
    node.wait_for("resource-r1/primary", "(none)");
    node.dir
        .set(&common::link("resource-r1/primary"), "C")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(node.get("resource-r1/primary").as_deref(), Some("C"));
}

#[test]
fn it_waits_until_everything_is_replayed() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/replay-B", "log-000000001-A,4180,0")
        .with(
            "resource-r1/version-000000001-B",
            "33333333333333333333333333333333,A,4180,0",
        )
        .alive("B");
    let child = node.start(&["primary", "r1"]);
    node.wait_for("resource-r1/primary", "(none)");
    node.dir
        .set(&common::link("resource-r1/version-000000001-B"), V1)
        .unwrap();
    assert_eq!(node.get("resource-r1/primary").as_deref(), Some("(none)"));
    node.dir
        .set(
            &common::link("resource-r1/replay-B"),
            "log-000000001-A,8360,0",
        )
        .unwrap();
    // marsd of B runs: the command is done when the device is there.
    node.wait_for("resource-r1/primary", "B");
    node.dir
        .set(&common::link("resource-r1/actual-B/is-primary"), "1")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn behind_and_without_a_daemon_it_says_so() {
    let node = Node::new("B", PAIR).with("resource-r1/replay-B", "log-000000001-A,4180,0");
    let done = node.run(&["primary", "r1", "--timeout", "1"]);
    done.failed(5, &["marsd does not run here: waiting for replay"]);
    assert_eq!(node.changes(), NOTHING);
}

#[test]
fn a_device_that_does_not_appear_is_an_error_with_the_reason_of_the_daemon() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/actual-B/error", "cannot open /dev/vg/lv")
        .alive("B");
    node.run(&["primary", "r1", "--timeout", "1"])
        .failed(5, &["primary is set to 'B'", "cannot open /dev/vg/lv"]);
    assert_eq!(node.changes(), ["+resource-r1/primary -> B"]);
}

#[test]
fn force_says_what_is_lost() {
    let node = Node::new("B", PAIR)
        .with("resource-r1/replay-B", "log-000000001-A,4180,0")
        .with("resource-r1/actual-A/is-primary", "1");
    let done = node.run(&["--force", "primary", "r1"]);
    done.ok(&[
        "FORCING myself (B) to primary...",
        "primary changed from 'A' to 'B'",
    ]);
    for text in [
        "A is at log-000000001-A,8360, this node at log-000000001-A,4180",
        "A still serves the device",
    ] {
        assert!(done.err.contains(text), "{done:?}");
    }
    assert_eq!(node.changes(), ["+resource-r1/primary -> B"]);
}

#[test]
fn dry_run_touches_nothing() {
    let node = Node::new("B", PAIR);
    node.run(&["primary", "r1", "--dry-run"])
        .ok(&["would set resource-r1/primary -> B"]);
    assert_eq!(node.changes(), NOTHING);
}
