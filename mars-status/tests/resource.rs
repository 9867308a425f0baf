//! `--resource`
#![allow(clippy::unwrap_used)]

mod support;

use support::*;

fn two() -> Node {
    let mut tree = fixture("steady.manifest");
    for (name, value) in [
        ("size", "4096"),
        ("primary", "(none)"),
        ("device-istore-test-bap7", "x"),
    ] {
        set(&mut tree, &format!("resource-other/{name}"), value);
    }
    tree.dirs.insert("resource-other".into());
    Node::new(&tree, SECONDARY)
}

fn shown(out: &str) -> Vec<&str> {
    out.lines()
        .filter_map(|l| {
            l.trim_start()
                .strip_prefix("-> check resource ")?
                .split(',')
                .next()
        })
        .collect()
}

#[test]
fn without_it_all_resources_are_shown() {
    let ran = two().run(&[]);
    assert_eq!(
        (ran.code, shown(&ran.out)),
        (Some(0), vec!["DeviceA", "other"])
    );
    assert!(!ran.out.contains("Ressource"));
}

#[test]
fn every_spelling_shows_the_one_alone_and_names_it_in_the_header() {
    let node = two();
    for args in [
        &["--resource", "DeviceA"][..],
        &["--resource=DeviceA"],
        &["--ressource", "DeviceA"],
        &["--ressource=DeviceA"],
        &["-resource=DeviceA"],
        &["-ressource", "DeviceA"],
        &["--res", "DeviceA"],
        &["\u{2013}ressource=DeviceA"],
    ] {
        let ran = node.run(args);
        assert_eq!(
            (ran.code, shown(&ran.out)),
            (Some(0), vec!["DeviceA"]),
            "{args:?}: {}",
            ran.err
        );
        assert!(
            ran.out.starts_with("MARS Status - istore-test-bap7, "),
            "{}",
            ran.out
        );
        assert!(
            ran.out
                .lines()
                .next()
                .unwrap()
                .ends_with(", Ressource: DeviceA"),
            "{}",
            ran.out
        );
    }
}

#[test]
fn one_that_does_not_exist_is_an_error_that_names_those_that_do() {
    let ran = two().run(&["--resource", "nope"]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(1), 5));
    assert!(
        ran.err
            .contains("'nope' does not exist; there are: DeviceA, other"),
        "{}",
        ran.err
    );
}

#[test]
fn a_name_that_no_resource_can_have_is_refused_with_the_rule() {
    let ran = two().run(&["--resource", "../etc"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err.contains("only letters, digits") || ran.err.contains("must begin"),
        "{}",
        ran.err
    );
}
