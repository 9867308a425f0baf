//! The manual page and the completions name every command and every option of the help.
#![allow(clippy::unwrap_used)] // a failed step fails the test

use std::process::{Command, Output};

fn marsadm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_marsadm"))
        .args(args)
        .env("MARS_DIR", "/nowhere")
        .output()
        .unwrap()
}

fn text(args: &[&str]) -> String {
    let output = marsadm(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Options at the beginning of the lines of a help.
fn options(help: &str) -> Vec<String> {
    help.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split("  ").next())
        .flat_map(|head| head.split([' ', ',']).filter(|w| w.starts_with('-')))
        .map(str::to_string)
        .collect()
}

fn commands() -> Vec<String> {
    let help = text(&["help"]);
    let all = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = all
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help");
    names.map(str::to_string).collect()
}

#[test]
fn every_command_and_option_is_named() {
    let commands = commands();
    assert!(commands.len() > 30, "{commands:?}");
    let man = text(&["generate", "man"]);
    for kind in ["man", "bash", "zsh", "fish"] {
        let made = text(&["generate", kind]).replace("\\-", "-");
        for command in &commands {
            assert!(made.contains(command), "{kind}: {command}");
            let heading = format!(".SS \"{} ", command.replace('-', "\\-"));
            assert!(kind != "man" || man.contains(&heading), "{heading}");
        }
        for command in [&["help"][..], &["help", "join-cluster"]] {
            let options = options(&text(command));
            assert!(options.iter().any(|o| o == "--dry-run"), "{options:?}");
            for option in options {
                // fish names options without their dashes.
                let name = option.trim_start_matches('-');
                assert!(made.contains(name), "{kind}: {option}");
            }
        }
        assert!(!made.contains("ssh-pipe") && !made.contains("generate"));
    }
    for wanted in ["EXAMPLES", "EXIT STATUS", "stopped by a signal"] {
        assert!(man.contains(wanted), "{wanted}");
    }
}

#[test]
fn what_cannot_be_made_is_refused() {
    for args in [&["generate"][..], &["generate", "tcsh"]] {
        let output = marsadm(args);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains("man, bash, zsh"), "{err}");
    }
}
