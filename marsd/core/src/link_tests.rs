//! The grammar of links: what is of the tree and what is not.

use super::*;

#[test]
fn every_path_of_the_worked_example_round_trips() {
    for path in [
        "ips/ip-A",
        "ips/key-A",
        "todo-global/deleted-A",
        "todo-global/delete-000000001",
        "alive-istore-test-bs7",
        "exhausted-A",
        "jammed-A",
        "rest-space-db-1",
        "resource-r1/size",
        "resource-r1/primary",
        "resource-r1/data-A",
        "resource-r1/device-A",
        "resource-r1/syncstatus-A",
        "resource-r1/verifystatus-A",
        "resource-r1/syncpos-A",
        "resource-r1/actsize-A",
        "resource-r1/connect-db-1",
        "resource-r1/replay-istore-test-bs7",
        "resource-r1/version-000000001-db-1",
        "resource-r1/todo-A/allow-replay",
        "resource-r1/todo-A/verify",
        "resource-r1/actual-A/verify",
        "resource-r1/actual-A/is-primary",
        "resource-r1/actual-A/device-r1",
        "resource-r1/actual-A/copy-syncstatus-A",
        "resource-r1/actual-A/timestamp",
        "defaults/free_space_mb",
        "defaults-db-1/network_io_timeout",
        "resource-r1/defaults/logrot_auto_gb",
        "resource-r1/defaults-db-1/loadavg_limit",
    ] {
        let parsed = LinkPath::parse(path).unwrap_or_else(|| panic!("{path}"));
        assert_eq!(parsed.to_string(), path);
    }
}

#[test]
fn what_is_not_of_the_tree_is_not_parsed() {
    for path in [
        "",
        ".key-A",
        "ips/.tmp-x",
        "resource-r1/log-000000001-A",
        "resource-r1/todo-A/other",
        "resource-1x/size",
        "resource-r1/size.new",
        "resource-r1/version-1-A",
        "todo-global/delete-1",
        "resource-r1/a/b/c",
        "../etc/passwd",
        "resource-r1/../../x",
        "alive-..",
        "defaults/free_space",
        "defaults-/free_space_mb",
        "defaultsx/free_space_mb",
        "resource-r1/defaults/free_space_mb",
    ] {
        assert_eq!(LinkPath::parse(path), None, "{path}");
    }
}

#[test]
fn garbage_values_are_refused_with_the_grammar() {
    for (path, bad) in [
        ("resource-r1/size", "10G"),
        ("resource-r1/primary", "a/b"),
        ("resource-r1/replay-A", "log-1,0,0"),
        ("resource-r1/todo-A/sync", "yes"),
        ("resource-r1/data-A", "relative"),
        ("todo-global/delete-000000001", "/mars/../etc/passwd"),
        ("ips/key-A", "xyz"),
        ("alive-A", "1\n"),
        ("defaults/free_space_mb", "8G"),
        ("defaults/free_space_mb", " 8"),
        ("defaults-A/percent_mem_limit_kb", "71"),
    ] {
        assert!(
            LinkPath::parse(path).unwrap().check_value(bad).is_err(),
            "{path} -> {bad}"
        );
    }
}
