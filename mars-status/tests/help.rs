//! `--help`
#![allow(clippy::unwrap_used)]

mod support;

use support::Node;

#[test]
fn every_spelling_prints_all_options_and_succeeds() {
    for arg in ["--help", "-help", "--h", "-h"] {
        let ran = Node::steady().run(&[arg]);
        assert_eq!(ran.code, Some(0), "{arg}: {ran:?}");
        for option in [
            "--resource",
            "--interval",
            "--history",
            "--system",
            "--debug",
            "--monitor",
            "--cstate",
            "--dstate",
            "--role",
            "--help",
            "--version",
        ] {
            assert!(
                ran.out.contains(option),
                "{arg}: {option} is missing in\n{}",
                ran.out
            );
        }
    }
}

#[test]
fn what_is_no_option_is_refused_with_its_name() {
    let ran = Node::steady().run(&["--nonsense"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("--nonsense"), "{}", ran.err);
}
