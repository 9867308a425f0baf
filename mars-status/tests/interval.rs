//! `--interval`
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;

#[test]
fn it_shows_again_what_has_changed_meanwhile() {
    let node = Node::steady();
    let mut child = node
        .command(env!("CARGO_BIN_EXE_mars-status"), &["--interval", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    let wait_for = |wanted: &str| {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = told
                .recv_timeout(left)
                .unwrap_or_else(|e| panic!("'{wanted}': {e}"));
            assert!(
                !line.contains("NOTE !!!") && !line.contains('\x1b'),
                "{line}"
            );
            if line.contains(wanted) {
                return;
            }
        }
    };
    wait_for("Status  : UpToDate");
    let switch = node.path("resource-DeviceA/todo-istore-test-bap7/sync");
    std::fs::remove_file(switch).unwrap();
    wait_for("Status  : SwitchOff");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_pause_that_is_none_is_refused() {
    for bad in ["0", "-1", "x", ""] {
        let ran = Node::steady().run(&["--interval", bad]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{bad}");
        assert!(ran.err.contains("interval"), "{}", ran.err);
    }
}

#[test]
fn note_and_cleared_screen_come_on_a_terminal_only() {
    let node = Node::steady();
    let line = format!(
        "timeout 1 {} --interval 9",
        env!("CARGO_BIN_EXE_mars-status")
    );
    let mut command = node.command("script", &["-qec", &line, "/dev/null"]);
    let out = command.env("TERM", "xterm").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.starts_with("\x1b[?2026h\x1b[H\x1b[2J"), "{text:?}");
    assert!(
        text.contains("NOTE !!!\r\n********\r\nThe author does not guarantee"),
        "{text:?}"
    );
    assert!(!node.run_on_terminal("", false).out.contains("NOTE"));
}

/// Reads until `wanted` has come, and returns all of it.
fn read_until(out: &mut impl Read, seen: &mut String, wanted: impl Fn(&str) -> bool) {
    let mut buffer = [0; 4096];
    while !wanted(seen) {
        let n = out.read(&mut buffer).unwrap_or(0);
        assert!(n > 0, "the end came before: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
}

#[test]
fn it_redraws_in_place_and_an_interrupt_leaves_a_clean_terminal() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let node = Node::steady();
        let line = format!(
            "stty rows 60 columns 200; echo pid=$$.; exec {} --interval 1",
            env!("CARGO_BIN_EXE_mars-status")
        );
        let mut child = node
            .command("script", &["-qefc", &line, "/dev/null"])
            .env("TERM", "xterm")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut seen = String::new();
        let redrawn = |seen: &str| {
            let again = seen.rsplit("\x1b[?2026h").next().unwrap_or_default();
            again.starts_with("\x1b[HN") || again.starts_with("\x1b[H\x1b[K") && again.len() > 9
        };
        read_until(&mut out, &mut seen, redrawn);
        assert_eq!(seen.matches("\x1b[2J").count(), 1, "{seen:?}");
        let pid = seen
            .split("pid=")
            .nth(1)
            .unwrap()
            .split('.')
            .next()
            .unwrap();
        kill(Pid::from_raw(pid.parse().unwrap()), signal).unwrap();
        out.read_to_string(&mut seen).unwrap_or(0);
        assert!(seen.ends_with("\x1b[0m\r\x1b[K"), "{seen:?}");
        assert!(child.wait().unwrap().success(), "{seen:?}");
    }
}

#[test]
fn json_is_one_line_each_time() {
    let node = Node::steady();
    let mut child = node
        .command(
            env!("CARGO_BIN_EXE_mars-status"),
            &["--interval=1", "--json"],
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.take(2) {
        let line = line.unwrap();
        assert!(
            line.starts_with("{\"schema\":1,") && line.ends_with('}'),
            "{line}"
        );
    }
    // Whoever reads has seen enough: the program ends by itself.
    assert!(child.wait().unwrap().success());
}
