//! No daemon, no resources, no tree, damaged trees.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::symlink;

use mars_core::Tree;
use support::*;

#[test]
fn without_a_daemon_the_tree_is_shown_and_the_code_is_not_0() {
    let mut tree = fixture("steady.manifest");
    set(&mut tree, "alive-istore-test-bap7", "0");
    let ran = Node::new(&tree, SECONDARY).run(&[]);
    assert_eq!(ran.code, Some(1));
    let line = ran.out.lines().nth(5).unwrap();
    assert!(
        line.starts_with("marsd is not running on istore-test-bap7 (it was stopped "),
        "{line}"
    );
    assert!(ran.out.contains("-> check resource DeviceA"), "{}", ran.out);
    assert!(
        ran.out
            .contains("as Secondary, System unknown (last message before "),
        "{}",
        ran.out
    );
}

#[test]
fn a_killed_daemon_is_noticed_at_once() {
    let node = Node::steady();
    let held = node.hold_lock();
    assert_eq!(node.run(&[]).code, Some(0));
    drop(held);
    let ran = node.run(&[]);
    assert_eq!(ran.code, Some(1));
    let wanted = "\nmarsd is not running on istore-test-bap7 (last sign of life ";
    assert!(ran.out.contains(wanted), "{}", ran.out);
    let ran = node.run(&["--monitor"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.out.contains("\nFailed [(joined)(not alive)"),
        "{}",
        ran.out
    );
}

#[test]
fn without_resources_it_says_so_and_ends() {
    for tree in [Tree::default(), {
        let mut tree = Tree::default();
        set(&mut tree, "alive-istore-test-bap7", "1");
        tree
    }] {
        let ran = Node::new(&tree, SECONDARY).run(&[]);
        assert_eq!(ran.code, Some(1));
        assert!(
            ran.out.ends_with("---> HINT: no resources found\n"),
            "{}",
            ran.out
        );
    }
}

#[test]
fn a_missing_tree_is_named() {
    let node = Node::new(&Tree::default(), SECONDARY);
    std::fs::remove_dir(node.path("")).unwrap();
    let ran = node.run(&[]);
    assert_eq!(ran.code, Some(1));
    let root = node.path("");
    let root = root.to_str().unwrap().trim_end_matches('/');
    assert!(
        ran.err.contains(root) && ran.err.contains("No such file"),
        "{}",
        ran.err
    );
}

#[test]
fn each_damage_is_a_line_and_the_rest_is_shown() {
    let node = Node::steady();
    let dir = node.path("resource-DeviceA");
    let damage = [
        ("replay-istore-test-bap7", "garbage"),
        ("size", "-1"),
        ("primary", "a b"),
        ("todo-istore-test-bap7/sync", "yes"),
        ("actual-istore-test-bs7/is-primary", "2"),
        ("version-000007568-istore-test-bs7", "x"),
    ];
    for (name, value) in damage {
        std::fs::remove_file(dir.join(name)).unwrap();
        symlink(value, dir.join(name)).unwrap();
    }
    symlink("x", dir.join("version-1-A")).unwrap();
    std::fs::remove_file(node.path("alive-istore-test-bs7")).unwrap();
    std::fs::create_dir(node.path("alive-istore-test-bs7")).unwrap();
    for args in [
        &[][..],
        &["--history", "--system", "--debug"],
        &["--monitor"],
    ] {
        let ran = node.run(args);
        for (name, _) in damage {
            let line = ran.err.lines().find(|l| l.contains(name));
            let line = line.unwrap_or_else(|| panic!("{name} is not told:\n{}", ran.err));
            assert!(line.starts_with("mars-status: resource-DeviceA/"), "{line}");
        }
        assert!(
            ran.err.contains("version-1-A") && ran.err.contains("alive-istore-test-bs7"),
            "{}",
            ran.err
        );
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        assert!(ran.out.contains("istore-test-bap7"), "{}", ran.out);
    }
    assert!(node.run(&[]).out.contains("InvaliDate = "));
}

#[test]
fn a_bad_host_name_is_an_error_that_says_what_to_do() {
    let node = Node::steady();
    let mut command = node.command(env!("CARGO_BIN_EXE_mars-status"), &[]);
    let ran = Ran::from(command.env("MARS_HOST", "a/b").output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("MARS_HOST"), "{}", ran.err);
}

#[test]
fn colours_come_on_a_terminal_only_and_not_against_the_wish() {
    let node = Node::steady();
    assert!(!node.run(&[]).out.contains('\x1b'));
    let coloured = node.run_on_terminal("", false).out;
    assert!(
        coloured.contains("\x1b[31m") && coloured.contains("\x1b[34mMARS Status"),
        "{coloured:?}"
    );
    let plain = node.run_on_terminal("", true).out;
    assert!(!plain.contains('\x1b'), "{plain:?}");
    assert_eq!(plain.replace("\r\n", "\n"), node.run(&[]).out);
}
