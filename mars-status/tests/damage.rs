//! Whatever stands in the tree: every view ends with a documented code and says something useful.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::Mode;
use serde_json::Value;
use support::*;

const VIEWS: [&[&str]; 6] = [
    &[],
    &["--history", "--system", "--debug"],
    &["--monitor"],
    &["--monitor", "--warn-lag=60", "--crit-behind=9"],
    &["--dstate", "--role", "--cstate", "--resource=DeviceA"],
    &["--version"],
];

fn replace(node: &Node, name: &str, value: impl AsRef<Path>) {
    let path = node.path("resource-DeviceA").join(name);
    let _ = fs::remove_file(&path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(value, path).unwrap();
}

fn fifo(node: &Node, rel: &str) {
    let path = node.path(rel);
    let _ = fs::remove_file(&path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
}

/// Runs all views, and looks whether one of the lines of the JSON document names the damage.
fn check(name: &str, node: &Node, told: &[&str]) {
    for view in VIEWS {
        let ran = node.run(view);
        assert!(matches!(ran.code, Some(0..=3)), "{name} {view:?}: {ran:?}");
        assert!(
            !ran.err.contains("panicked"),
            "{name} {view:?}: {}",
            ran.err
        );
        assert!(
            !(ran.out.is_empty() && ran.err.is_empty()),
            "{name} {view:?}"
        );
        let json = node.run(&[view, &["--json"]].concat());
        assert_eq!(json.code, ran.code, "{name} {view:?}: {}", json.err);
        let document: Value = serde_json::from_str(&json.out)
            .unwrap_or_else(|e| panic!("{name} {view:?}: {e} in {}", json.out));
        assert_eq!(document["schema"], 1);
        assert_eq!(document["exit_code"], json.code.unwrap());
        let problems = document["problems"].to_string();
        for word in told {
            assert!(
                ran.err.contains(word),
                "{name} {view:?}: {word} in {}",
                ran.err
            );
            assert!(
                problems.contains(word),
                "{name} {view:?}: {word} in {problems}"
            );
        }
    }
}

#[test]
fn values_that_are_garbage_dangling_or_huge() {
    for value in [
        "garbage",
        "../../nowhere",
        "size",
        "-1",
        "99999999999999999999",
        "1\n2",
        "\u{1b}[2J",
    ] {
        let node = Node::steady();
        let names = [
            "size",
            "primary",
            "replay-istore-test-bap7",
            "syncstatus-istore-test-bap7",
        ];
        for name in names {
            replace(&node, name, value);
        }
        check(
            value,
            &node,
            &["replay-istore-test-bap7", "syncstatus-istore-test-bap7"],
        );
    }
    let node = Node::steady();
    let long = "9".repeat(4000);
    replace(&node, "size", &long);
    replace(&node, "actual-istore-test-bap7/error", &long);
    replace(
        &node,
        "data-istore-test-bs7",
        OsStr::from_bytes(b"/dev/\xff"),
    );
    check(
        "long and not UTF-8",
        &node,
        &["/size", "data-istore-test-bs7"],
    );
}

#[test]
fn numbers_at_the_ends_of_their_range() {
    let node = Node::steady();
    let max = u64::MAX.to_string();
    let version = format!("{},istore-test-bs7,{max},0", "a".repeat(32));
    for (name, value) in [
        ("size", max.as_str()),
        ("actsize-istore-test-bs7", "0"),
        ("syncstatus-istore-test-bap7", &max),
        (
            "replay-istore-test-bap7",
            "log-000000001-istore-test-bs7,18446744073709551615,-9223372036854775808",
        ),
        (
            "replay-istore-test-bs7",
            "log-999999999-istore-test-bs7,18446744073709551615,9223372036854775807",
        ),
        ("version-000000005-istore-test-bs7", &version),
        ("version-000000006-istore-test-bs7", &version),
        (
            "actual-istore-test-bap7/replay_rate",
            "-9223372036854775808",
        ),
        ("actual-istore-test-bap7/file_rate", "9223372036854775807"),
        (
            "actual-istore-test-bap7/timestamp",
            "a,1,1,1,-9223372036854775808.999999999",
        ),
    ] {
        replace(&node, name, value);
    }
    check("extremes", &node, &[]);
    replace(&node, "size", "0");
    replace(&node, "syncstatus-istore-test-bap7", "0");
    check("nothing", &node, &[]);
}

#[test]
fn things_of_the_wrong_kind() {
    let node = Node::steady();
    fifo(&node, "resource-DeviceA/size");
    fifo(&node, "resource-DeviceA/log-000007568-istore-test-bs7");
    fifo(&node, "alive-istore-test-bs7");
    fs::create_dir(node.path("resource-DeviceA/log-000007570-istore-test-bs7")).unwrap();
    symlink("loop", node.path("loop")).unwrap();
    symlink("resource-loop", node.path("resource-loop")).unwrap();
    fs::write(node.path("resource-file"), "x").unwrap();
    let _socket = UnixListener::bind(node.path("resource-DeviceA/verifystatus-x")).unwrap();
    let told = [
        "/size",
        "log-000007568",
        "log-000007570",
        "alive-istore-test-bs7",
    ];
    check("wrong kinds", &node, &told);
}

#[test]
fn names_that_no_link_may_have() {
    let node = Node::steady();
    let dir = node.path("resource-DeviceA");
    symlink("1", dir.join("replay-a\nb")).unwrap();
    symlink("1", dir.join(OsStr::from_bytes(b"data-\xff\xfe"))).unwrap();
    symlink("1", dir.join("version-99999999999999999999-x")).unwrap();
    symlink("1", node.path("alive-")).unwrap();
    fs::create_dir(node.path("resource-a\nb")).unwrap();
    fs::create_dir(node.path(&format!("resource-{}", "x".repeat(200)))).unwrap();
    check(
        "names",
        &node,
        &["replay-a", "data-", "version-99999999999999999999-x"],
    );
    // One line each, whatever the name is.
    let lines = node.run(&[]).err;
    assert!(
        lines.lines().all(|l| l.starts_with("mars-status: ")),
        "{lines}"
    );
}

#[test]
fn roots_that_are_none() {
    for make in [
        |root: &Path| fs::write(root, "x").unwrap(),
        |root: &Path| symlink(root, root).unwrap(),
        |root: &Path| symlink("/is/not/there", root).unwrap(),
        |_: &Path| {},
    ] {
        let node = Node::steady();
        let root = node.path("");
        fs::remove_dir_all(&root).unwrap();
        make(Path::new(root.to_str().unwrap().trim_end_matches('/')));
        check("root", &node, &["mars"]);
    }
}

#[test]
fn what_stands_beside_the_tree() {
    let node = Node::steady();
    fifo(&node, "../run/sys/warnings");
    fifo(&node, "../run/sys/loadavg_limit");
    fs::create_dir_all(node.path("../run/sys/errors")).unwrap();
    node.write_run("sys/network_traffic_limit_kb", &"9".repeat(100_000));
    node.write_run("sys/mem_used_kb", "\u{1b}[2J");
    fs::create_dir(node.path("../run/marsd.lock")).unwrap();
    check("beside", &node, &[]);
    let node = Node::steady();
    node.write_run(
        "sys/warnings",
        &"1.5 MARS_WARN \u{1b}[2Jx\n".repeat(100_000),
    );
    check("messages", &node, &[]);
    let out = node.run(&["--debug"]).out;
    assert!(
        !out.contains('\u{1b}') && out.contains("\\u{1b}[2Jx"),
        "{out}"
    );
    assert!(out.lines().count() < 300);
}

#[test]
fn json_says_why_nothing_can_be_looked_at() {
    let node = Node::steady();
    let mut command = node.command(env!("CARGO_BIN_EXE_mars-status"), &["--json"]);
    let ran = Ran::from(command.env("MARS_HOST", "a/b").output().unwrap());
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (ran.code, &document["exit_code"]),
        (Some(1), &Value::from(1))
    );
    assert!(
        document["complaints"][0]
            .as_str()
            .unwrap()
            .contains("MARS_HOST")
    );
}
