//! The manual page and the completions of marsd name every option of its help.
#![allow(clippy::unwrap_used)] // a failed step fails the test

use std::process::{Command, Output};

fn marsd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_marsd"))
        .args(args)
        .output()
        .unwrap()
}

fn text(args: &[&str]) -> String {
    let output = marsd(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_option_is_named() {
    let help = text(&["--help"]);
    // What follows speaks of other programs, too.
    let own = help.split("Exit codes:").next().unwrap_or_default();
    let words = own.split([' ', ',', '\n']);
    let options: Vec<&str> = words
        .filter_map(|word| word.strip_prefix("--"))
        .filter(|name| !name.is_empty())
        .collect();
    assert!(options.contains(&"shim-program"), "{help}");
    for kind in ["man", "bash", "zsh", "fish"] {
        let made = text(&["generate", kind]).replace("\\-", "-");
        for option in &options {
            assert!(made.contains(option), "{kind}: {option}");
        }
        assert!(!made.contains("rsync-bridge") && !made.contains("generate"));
    }
    let man = text(&["generate", "man"]);
    for wanted in ["EXIT STATUS", "could not run", "MARS_LOG", "EXAMPLES"] {
        assert!(man.contains(wanted), "{wanted}");
    }
    for param in mars_core::Param::ALL {
        assert!(man.contains(param.name()), "{}", param.name());
    }
}

#[test]
fn what_cannot_be_made_is_refused() {
    for args in [&["generate"][..], &["generate", "tcsh"]] {
        let output = marsd(args);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains("man, bash, zsh, fish"), "{err}");
    }
}
