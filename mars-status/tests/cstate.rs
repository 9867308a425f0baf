//! `--cstate`
#![allow(clippy::unwrap_used)]

mod support;

use support::*;

#[test]
fn sample_f_one_line() {
    for args in [
        &["--cstate", "--resource", "DeviceA"][..],
        &["-cstate", "-ressource=DeviceA"],
        &["--ressource=DeviceA", "\u{2013}cstate"],
    ] {
        let ran = Node::steady().run(args);
        let wanted = "Connect [resource-DeviceA on istore-test-bap7]\n";
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.as_str()),
            (Some(0), wanted, ""),
            "{args:?}"
        );
    }
}

#[test]
fn it_follows_the_tree() {
    let mut tree = fixture("steady.manifest");
    set_res(&mut tree, "todo-istore-test-bap7/allow-replay", "0");
    let ran = Node::new(&tree, SECONDARY).run(&["--cstate", "--resource", "DeviceA"]);
    assert_eq!(
        ran.out,
        "Disconnect [resource-DeviceA on istore-test-bap7]\n"
    );
    assert_eq!(ran.code, Some(0));
}

#[test]
fn it_needs_a_resource() {
    let ran = Node::steady().run(&["--cstate"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    let wanted = "Syntax-Error: Option resource is missing by --cstate / --dstate / --role!\n\n";
    assert!(
        ran.err.starts_with(wanted) && ran.err.contains("--interval"),
        "{}",
        ran.err
    );
}

#[test]
fn a_resource_that_is_not_joined_or_not_there_is_no_success() {
    let mut tree = fixture("steady.manifest");
    set(&mut tree, "alive-other", "1");
    let ran = Node::new(&tree, "other").run(&["--cstate", "--resource", "DeviceA"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.out.ends_with(" [resource-DeviceA on other]\n"),
        "{}",
        ran.out
    );
    assert!(!ran.out.starts_with("Connect"), "{}", ran.out);
    let ran = Node::steady().run(&["--cstate", "--resource", "nope"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("does not exist"), "{}", ran.err);
}
