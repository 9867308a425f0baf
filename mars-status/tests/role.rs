//! `--role`
#![allow(clippy::unwrap_used)]

mod support;

use support::*;

#[test]
fn sample_h_one_line() {
    for args in [
        &["--role", "--resource", "DeviceA"][..],
        &["-role", "-ressource=DeviceA"],
        &["--ressource=DeviceA", "\u{2013}role"],
    ] {
        let ran = Node::steady().run(args);
        let wanted = "Secondary [resource-DeviceA on istore-test-bap7]\n";
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
    set_res(&mut tree, "primary", "istore-test-bap7");
    let ran = Node::new(&tree, SECONDARY).run(&["--role", "--resource", "DeviceA"]);
    assert_eq!(ran.out, "Primary [resource-DeviceA on istore-test-bap7]\n");
    assert_eq!(ran.code, Some(0));
}

#[test]
fn it_needs_a_resource() {
    let ran = Node::steady().run(&["--role"]);
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
    let ran = Node::new(&tree, "other").run(&["--role", "--resource", "DeviceA"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.out.ends_with(" [resource-DeviceA on other]\n"),
        "{}",
        ran.out
    );
    assert!(!ran.out.starts_with("Secondary"), "{}", ran.out);
    let ran = Node::steady().run(&["--role", "--resource", "nope"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("does not exist"), "{}", ran.err);
}
