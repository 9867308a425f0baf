//! The manual page and the completions name every option of the help.
#![allow(clippy::unwrap_used)]

mod support;

use support::Node;

#[test]
fn every_option_is_named() {
    let node = Node::steady();
    let help = node.run(&["--help"]).out;
    let options: Vec<&str> = help
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with("--") || line.starts_with("-h") || line.starts_with("-v"))
        .flat_map(|line| line.split([' ', ',']).filter(|w| w.starts_with("--")))
        .collect();
    assert!(options.len() >= 16, "{options:?}");
    for kind in ["man", "bash", "zsh", "fish"] {
        let ran = node.run(&["--generate", kind]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let made = ran.out.replace("\\-", "-");
        for option in &options {
            // fish names options without their dashes.
            assert!(
                made.contains(option.trim_start_matches('-')),
                "{kind}: {option}"
            );
        }
        assert!(!made.contains("generate"), "{kind}");
    }
    let man = node.run(&["--generate", "man"]).out;
    for wanted in [
        ".SH OPTIONS",
        "EXIT STATUS",
        "EXAMPLES",
        "3  UNKNOWN",
        "MARS_DIR",
    ] {
        assert!(man.contains(wanted), "{wanted}");
    }
}

#[test]
fn what_cannot_be_made_is_refused() {
    let ran = Node::steady().run(&["--generate", "tcsh"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(
        ran.err.contains("none of man, bash, zsh, fish"),
        "{}",
        ran.err
    );
}
