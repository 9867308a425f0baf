//! `--debug`
#![allow(clippy::unwrap_used)]

mod support;

use support::Node;

#[test]
fn warnings_and_errors_are_shown_behind_the_resources() {
    let node = Node::steady();
    node.write_run(
        "sys/warnings",
        "1348837020.123456789 MARS_WARN    net f.rs 520 recv(): got EOF\n",
    );
    node.write_run(
        "sys/errors",
        "1348828095.000000001 MARS_ERROR   main g.rs 357 stat(): cannot stat '/mars/r'\n",
    );
    let ran = node.run(&["--debug"]);
    let wanted = " -> MARS WARNINGS:\n\tFri Sep 28 12:57:00 2012: net f.rs 520 recv(): got EOF\n\
                  -> MARS ERRORS:\n\tFri Sep 28 10:28:15 2012: main g.rs 357 stat(): cannot stat '/mars/r'\n";
    assert!(ran.out.ends_with(wanted), "{}", ran.out);
    assert_eq!(ran.code, Some(0));
    assert!(!node.run(&[]).out.contains("WARNINGS"));
}

#[test]
fn without_messages_nothing_is_added() {
    let node = Node::steady();
    assert_eq!(node.run(&["--debug"]).out, node.run(&[]).out);
}
