//! The command line itself: help, unknown commands, all, force, names, leftovers of DRBD.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod common;

use common::{Node, PAIR};

#[test]
fn help_and_version_need_no_tree() {
    let node = Node::new("A", "");
    for args in [["help"], ["h"], ["--help"]] {
        node.run(&args)
            .ok(&["create-cluster", "log-delete-all", "Exit codes:"]);
    }
    for args in [["version"], ["v"], ["--version"]] {
        node.run(&args).ok(&[env!("CARGO_PKG_VERSION")]);
    }
    node.run(&["help", "primary"])
        .ok(&["Make this node the primary"]);
    assert!(!node.dir.root().exists());
}

#[test]
fn unknown_commands_are_answered_with_the_nearest() {
    let node = Node::new("A", PAIR);
    node.run(&["primry", "r1"])
        .failed(2, &["unknown command 'primry'", "did you mean 'primary'"]);
    node.run(&["log-delte-all", "r1"])
        .failed(2, &["did you mean 'log-delete-all'"]);
    node.run(&["xyzzy"])
        .failed(2, &["unknown command 'xyzzy'", "marsadm help"]);
    node.run(&["primary"]).failed(2, &["RESOURCE|all"]);
    node.run(&["primary", "r1", "--bogus"])
        .failed(2, &["--bogus"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}

#[test]
fn names_are_resolved_or_refused() {
    let node = Node::new("A", PAIR).with("resource-r1/device-A", "disk1");
    let done = node.run(&["role", "disk1"]);
    done.ok(&["primary"]);
    assert!(
        done.err.contains("substituting bad resource name 'disk1'"),
        "{done:?}"
    );
    node.run(&["role", "r2"]).failed(
        4,
        &["resource 'r2' does not exist (0 replacements found)", "r1"],
    );
    for path in ["/dev/mars/disk1", "disk1"] {
        let done = node.run(&["disconnect", path]);
        done.ok(&["connect on resource r1"]);
        assert!(
            done.err
                .contains(&format!("substituting bad resource name '{path}'")),
            "{done:?}"
        );
    }
    // A path is that of a device, not the name of a resource.
    node.run(&["role", "/dev/mars/r1"])
        .failed(4, &["resource '/dev/mars/r1' does not exist"]);
    let twice = Node::new(
        "A",
        &format!("{PAIR}{}", PAIR.replace("resource-r1", "resource-q0")),
    );
    twice
        .run(&["role", "/dev/mars/r1"])
        .failed(4, &["(2 replacements found)", "q0 r1"]);
    node.run(&["role", "/mars/resource-r1"])
        .failed(2, &["bad resource name"]);
    Node::new("C", PAIR).run(&["role", "r1"]).failed(
        4,
        &[
            "I have not yet joined to resource 'r1'",
            "data-C is missing",
        ],
    );
}

#[test]
fn one_failing_resource_does_not_stop_the_others() {
    let other = PAIR
        .replace("resource-r1", "resource-q0")
        .replace("primary -> A", "primary -> B");
    let node = Node::new("A", &format!("{PAIR}{other}"));
    let done = node.run(&["secondary", "all"]);
    done.failed(
        1,
        &[
            "only allowed when I (A) am primary",
            "not all resources were worked on: 1 of 2 failed, see above: q0 (exit code 1)",
        ],
    );
    assert!(done.out.contains("--------- resource q0\n"), "{done:?}");
    assert_eq!(node.changes(), ["+resource-r1/primary -> (none)"]);
    let done = Node::new("C", PAIR).run(&["up", "all"]);
    done.ok(&[]);
    assert!(done.err.contains("joined no resource"), "{done:?}");
}

#[test]
fn force_may_stand_before_any_argument() {
    for args in [
        ["force-primary", "r1"],
        ["primary", "force-r1"],
        ["primary", "r1"],
    ] {
        let node = Node::new("B", PAIR).with("resource-r1/syncstatus-B", "0");
        let done = node.run(&args);
        if args[0].starts_with("force") || args[1].starts_with("force") {
            done.ok(&["FORCING myself (B) to primary..."]);
        } else {
            done.failed(1, &["sync has not yet finished"]);
        }
    }
}

#[test]
fn damage_of_the_tree_is_named_and_does_not_stop() {
    let node = Node::new("A", PAIR);
    std::os::unix::fs::symlink("10G", node.dir.root().join("resource-r1/actsize-C")).unwrap();
    let done = node.run(&["role", "r1"]);
    done.ok(&["primary"]);
    assert!(
        done.err.contains("resource-r1/actsize-C: bad value '10G'"),
        "{done:?}"
    );
}

#[test]
fn leftovers_of_drbd() {
    let node = Node::new("A", PAIR);
    for command in [
        "syncer",
        "get-gi",
        "show-gi",
        "outdate",
        "adjust",
        "hidden-commands",
    ] {
        node.run(&[command, "r1"])
            .ok(&[&format!("ignoring command '{command}' on resource 'r1'")]);
    }
    for command in ["create-md", "dump-md", "dump", "new-current-uuid"] {
        node.run(&[command, "r1"]).ok(&[&format!(
            "command '{command}' makes no sense with MARS (ignoring)"
        )]);
    }
    node.run(&["adjust", "all"])
        .ok(&["ignoring command 'adjust' on resource 'r1'"]);
    node.run(&["adjust", "nope"]).failed(4, &["does not exist"]);
    node.run(&["adjust"])
        .failed(2, &["needs the name of a resource"]);
    assert_eq!(node.changes(), Vec::<String>::new());
}
