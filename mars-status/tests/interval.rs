//! `--interval`
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

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
