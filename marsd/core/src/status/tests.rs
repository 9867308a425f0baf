//! The state matrix: each condition alone, and what wins where several meet.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use super::*;
use crate::position::LogName;

const NOW: i64 = 1_000_000;

/// Primary P and secondary S of resource r, both without anything to do: log 2 of P, 1000 bytes, all applied.
fn healthy() -> Tree {
    let mut tree = Tree::default();
    for (path, value) in [
        ("alive-P", "1"),
        ("alive-S", "1"),
        ("rest-space-P", "1000"),
        ("rest-space-S", "1000"),
        ("resource-r/size", "4096000"),
        ("resource-r/primary", "P"),
    ] {
        set(&mut tree, path, value);
    }
    for host in ["P", "S"] {
        for (name, value) in [
            ("data-H", "/dev/vg/r"),
            ("device-H", "r"),
            ("actsize-H", "4096000"),
            ("syncstatus-H", "4096000"),
            ("replay-H", "log-000000002-P,1000,0"),
            ("todo-H/attach", "1"),
            ("todo-H/connect", "1"),
            ("todo-H/sync", "1"),
            ("todo-H/allow-replay", "1"),
            ("actual-H/error", "none"),
        ] {
            let path = format!("resource-r/{}", name.replace('H', host));
            set(&mut tree, &path, value);
        }
    }
    set(&mut tree, "resource-r/actual-P/is-primary", "1");
    set(&mut tree, "resource-r/actual-P/device-r", "1");
    log(&mut tree, "log-000000002-P", 1000);
    tree.dirs.insert("resource-r".into());
    tree
}

fn set(tree: &mut Tree, path: &str, value: &str) {
    set_at(tree, path, value, NOW);
}

fn set_at(tree: &mut Tree, path: &str, value: &str, secs: i64) {
    let link = LinkPath::parse(path).unwrap_or_else(|| panic!("{path}"));
    tree.put(link, value, Stamp::new(secs, 0)).unwrap();
}

fn unset(tree: &mut Tree, path: &str) {
    let gone = tree.links.remove(&LinkPath::parse(path).unwrap());
    assert!(gone.is_some(), "{path}");
}

fn log(tree: &mut Tree, name: &str, size: u64) {
    let res = ResourceName::new("r").unwrap();
    let name = LogName::parse(name).unwrap();
    tree.logs.entry(res).or_default().insert(name, size);
}

fn status(tree: &Tree, me: &str) -> ResourceStatus {
    let me = HostName::new(me).unwrap();
    let ctx = Context {
        me: &me,
        now: Stamp::new(NOW, 0),
        own_alive: Alive::of(tree, &me, Stamp::new(NOW, 0)),
        with_system: true,
        local_only: false,
        with_history: true,
    };
    ResourceStatus::of(tree, &ResourceName::new("r").unwrap(), &ctx)
}

fn node(tree: &Tree, me: &str) -> NodeStatus {
    status(tree, me).local().unwrap().clone()
}

fn texts(node: &NodeStatus) -> Vec<&str> {
    node.conditions.iter().map(|c| c.text.as_str()).collect()
}

#[test]
fn a_healthy_pair_is_up_to_date() {
    let tree = healthy();
    for (me, role) in [("P", Role::Primary), ("S", Role::Secondary)] {
        let node = node(&tree, me);
        assert_eq!((node.role, node.code()), (role, Some(Code::UpToDate)));
        assert!(node.is_connected());
        assert_eq!(
            texts(&node),
            [
                "joined",
                "alive",
                "synced",
                "replay wait",
                "attached",
                "connected",
                "synced",
                "replayed"
            ]
        );
    }
    let hosts: Vec<String> = status(&tree, "S")
        .nodes
        .iter()
        .map(|n| n.host.to_string())
        .collect();
    assert_eq!(hosts, ["S", "P"]);
}

/// One change to the healthy pair, seen on S: expected state and a text that must be there.
type Case = (&'static str, fn(&mut Tree), Code, &'static str);

const CASES: [Case; 21] = [
    (
        "silent",
        |t| set_at(t, "alive-S", "1", NOW - 101),
        Code::Failed,
        "not alive",
    ),
    (
        "just alive",
        |t| set_at(t, "alive-S", "1", NOW - 100),
        Code::UpToDate,
        "alive",
    ),
    (
        "stopped",
        |t| set(t, "alive-S", "0"),
        Code::Failed,
        "not alive",
    ),
    (
        "never seen",
        |t| unset(t, "alive-S"),
        Code::Failed,
        "not alive",
    ),
    (
        "own disk full",
        |t| set(t, "rest-space-S", "0"),
        Code::Failed,
        "System: Mars-Disk full, MARS stopping",
    ),
    (
        "other disk full",
        |t| set(t, "rest-space-P", "-5"),
        Code::Failed,
        "System: Remote-Mars-Disk full",
    ),
    (
        "error",
        |t| set(t, "resource-r/actual-S/error", "disk broke"),
        Code::Failed,
        "error",
    ),
    (
        "syncing",
        |t| set(t, "resource-r/syncstatus-S", "4095999"),
        Code::InvaliDate,
        "not in sync (99.99%)",
    ),
    (
        "sync unknown",
        |t| unset(t, "resource-r/syncstatus-S"),
        Code::InvaliDate,
        "not in sync (0.00%)",
    ),
    (
        "size unknown",
        |t| unset(t, "resource-r/size"),
        Code::InvaliDate,
        "not in sync (0.00%)",
    ),
    (
        "synced, not consistent",
        |t| set(t, "resource-r/syncpos-S", "log-000000002-P,1001,0"),
        Code::InvaliDate,
        "not consistent until log-000000002-P,1001",
    ),
    (
        "synced, consistent",
        |t| set(t, "resource-r/syncpos-S", "log-000000002-P,1000,0"),
        Code::UpToDate,
        "synced",
    ),
    (
        "attach off",
        |t| set(t, "resource-r/todo-S/attach", "0"),
        Code::SwitchOff,
        "attach off",
    ),
    (
        "connect off",
        |t| set(t, "resource-r/todo-S/connect", "0"),
        Code::SwitchOff,
        "connect off",
    ),
    (
        "sync off",
        |t| unset(t, "resource-r/todo-S/sync"),
        Code::SwitchOff,
        "sync off",
    ),
    (
        "replay off",
        |t| set(t, "resource-r/todo-S/allow-replay", "0"),
        Code::SwitchOff,
        "replay off",
    ),
    (
        "replay not begun",
        |t| set(t, "resource-r/replay-S", "log-000000002-P,9,0"),
        Code::OutDate,
        "replay stopped",
    ),
    (
        "no position",
        |t| unset(t, "resource-r/replay-S"),
        Code::OutDate,
        "replay stopped",
    ),
    (
        "replaying",
        |t| set(t, "resource-r/replay-S", "log-000000002-P,10,0"),
        Code::UpDateIng,
        "replay running1",
    ),
    (
        "rest known",
        |t| set(t, "resource-r/replay-S", "log-000000002-P,1000,84"),
        Code::UpDateIng,
        "replay running2",
    ),
    (
        "logs missing here",
        |t| set(t, "resource-r/replay-P", "log-000000003-P,0,0"),
        Code::UpDateIng,
        "replay wait",
    ),
];

#[test]
fn each_condition_reports_its_state() {
    for (name, change, code, text) in CASES {
        let mut tree = healthy();
        change(&mut tree);
        let node = node(&tree, "S");
        assert_eq!(node.code(), Some(code), "{name}: {:?}", texts(&node));
        assert!(texts(&node).contains(&text), "{name}: {:?}", texts(&node));
    }
}

#[test]
fn of_any_two_conditions_the_worse_wins_and_both_are_listed() {
    for (name_a, a, code_a, text_a) in CASES {
        for (name_b, b, code_b, text_b) in CASES {
            let touches = |change: fn(&mut Tree)| {
                let (before, mut after) = (healthy(), healthy());
                change(&mut after);
                let paths = before.links.keys().chain(after.links.keys());
                let changed = paths.filter(|p| before.links.get(p) != after.links.get(p));
                changed.cloned().collect::<Vec<_>>()
            };
            let replay =
                |p: &LinkPath| p.to_string().contains("/replay-") || p.to_string().contains("sync");
            let (paths_a, paths_b) = (touches(a), touches(b));
            let related = paths_a.iter().any(|p| paths_b.contains(p))
                || (paths_a.iter().any(replay) && paths_b.iter().any(replay))
                || name_a.ends_with("unknown")
                || name_b.ends_with("unknown");
            if related {
                continue;
            }
            let mut tree = healthy();
            a(&mut tree);
            b(&mut tree);
            let node = node(&tree, "S");
            assert_eq!(node.code(), Some(code_a.max(code_b)), "{name_a} + {name_b}");
            for text in [text_a, text_b] {
                assert!(texts(&node).contains(&text), "{name_a} + {name_b}: {text}");
            }
        }
    }
}

#[test]
fn the_order_of_states_is_the_documented_one() {
    let words: Vec<&str> = Code::ALL.iter().rev().map(|c| c.as_str()).collect();
    assert_eq!(
        words,
        [
            "Failed",
            "InvaliDate",
            "SwitchOff",
            "OutDate",
            "UpDateIng",
            "UpToDate"
        ]
    );
    assert!(Code::ALL.is_sorted());
}

#[test]
fn connection_state_follows_the_switches_alone() {
    let mut tree = healthy();
    set(&mut tree, "resource-r/syncstatus-S", "0");
    assert!(node(&tree, "S").is_connected());
    set(&mut tree, "resource-r/todo-S/allow-replay", "0");
    assert_eq!(node(&tree, "S").code(), Some(Code::InvaliDate));
    assert!(!node(&tree, "S").is_connected());
}

#[test]
fn a_node_that_has_not_joined_is_unknown_and_sees_no_others() {
    let status = status(&healthy(), "X");
    let node = status.local().unwrap();
    assert_eq!((node.role, node.code()), (Role::NotJoined, None));
    assert!(!node.is_connected());
    assert_eq!((status.nodes.len(), status.member_count()), (1, 0));
}

#[test]
fn a_node_is_known_by_its_device_where_its_disk_is_a_file() {
    let mut tree = healthy();
    unset(&mut tree, "resource-r/data-P");
    let status = status(&tree, "S");
    assert_eq!(status.member_count(), 2);
    assert_eq!(status.nodes[1].code(), Some(Code::UpToDate));
}

#[test]
fn what_is_known_of_the_own_daemon_beats_its_sign_of_life() {
    let tree = healthy();
    let me = HostName::new("S").unwrap();
    let name = ResourceName::new("r").unwrap();
    let own_alive = Alive::Silent { age_secs: 1 };
    let ctx = Context {
        me: &me,
        now: Stamp::new(NOW, 0),
        own_alive,
        with_system: false,
        local_only: false,
        with_history: false,
    };
    let codes: Vec<_> = ResourceStatus::of(&tree, &name, &ctx)
        .nodes
        .iter()
        .map(NodeStatus::code)
        .collect();
    assert_eq!(codes, [Some(Code::Failed), Some(Code::UpToDate)]);
}

#[test]
fn the_delay_counts_only_while_something_is_missing() {
    for (lag, code) in [
        (0, Code::UpDateIng),
        (59, Code::UpDateIng),
        (60, Code::OutDate),
    ] {
        let mut tree = healthy();
        let value = format!("P,000000002,500,0,{}.000000000", NOW - lag);
        set(&mut tree, "resource-r/actual-S/timestamp", &value);
        assert_eq!(
            node(&tree, "S").code(),
            Some(Code::UpToDate),
            "caught up, {lag}"
        );
        set(&mut tree, "resource-r/replay-S", "log-000000002-P,500,0");
        let node = node(&tree, "S");
        assert_eq!(node.code(), Some(code), "{lag}");
        let text = format!("Delay {lag} sec");
        assert!(texts(&node).contains(&text.as_str()), "{:?}", texts(&node));
    }
    let mut tree = healthy();
    set(&mut tree, "resource-r/replay-S", "log-000000002-P,500,0");
    for nothing in [
        "P,000000002,0,0,0.000000000",
        "garbage",
        "a,b,c,d,e",
        ",,,,-",
    ] {
        set(&mut tree, "resource-r/actual-S/timestamp", nothing);
        assert_eq!(node(&tree, "S").code(), Some(Code::UpDateIng), "{nothing}");
    }
}

#[test]
fn zeros_ahead_in_the_active_log_are_not_counted_on_its_writer() {
    let mut tree = healthy();
    log(&mut tree, "log-000000002-P", 65_536);
    set(&mut tree, "resource-r/replay-P", "log-000000002-P,1000,84");
    let replay = node(&tree, "P").member.unwrap().replay;
    assert_eq!(replay.size_bytes, Some(1084));
    assert_eq!(replay.state, Replay::Running(Percent::of(1000, 1084)));
    assert_eq!(
        node(&tree, "S").member.unwrap().replay.size_bytes,
        Some(65_536)
    );
}

#[test]
fn little_written_back_is_normal_on_the_node_that_logs() {
    let mut tree = healthy();
    set(&mut tree, "resource-r/replay-P", "log-000000002-P,0,1000");
    assert_eq!(node(&tree, "P").code(), Some(Code::UpDateIng));
}

#[test]
fn a_missing_or_empty_log_is_no_size() {
    let mut tree = healthy();
    log(&mut tree, "log-000000002-P", 0);
    assert_eq!(node(&tree, "S").member.unwrap().replay.size_bytes, None);
    tree.logs.clear();
    assert_eq!(node(&tree, "S").member.unwrap().replay.size_bytes, None);
    unset(&mut tree, "resource-r/replay-S");
    let replay = node(&tree, "S").member.unwrap().replay;
    assert_eq!(
        (replay.log, replay.pos, replay.state),
        (None, 0, Replay::Unknown)
    );
}

#[test]
fn history_compares_all_sources() {
    let digest = |c: &str| c.repeat(32);
    let value = |c: &str, pos: u64| format!("{},P,{pos},0", digest(c));
    let verdict = |values: &[(&str, String)], more: bool| {
        let mut tree = healthy();
        if more {
            log(&mut tree, "log-000000003-P", 0);
        }
        for (host, value) in values {
            set(
                &mut tree,
                &format!("resource-r/version-000000002-{host}"),
                value,
            );
        }
        let first = status(&tree, "S").history.remove(0);
        (
            first.verdict,
            first.sources.iter().any(|s| s.is_split_brain),
        )
    };
    let (a, a5, b) = (value("a", 9), value("a", 5), value("b", 9));
    let zero = value("a", 0);
    for (values, more, want) in [
        (
            vec![("P", a.clone()), ("S", a.clone())],
            true,
            (Verdict::Deletable, false),
        ),
        (
            vec![("P", a.clone()), ("S", a.clone())],
            false,
            (Verdict::Newest, false),
        ),
        (
            vec![("P", zero.clone()), ("S", zero)],
            true,
            (Verdict::Unused, false),
        ),
        (
            vec![("P", a.clone()), ("S", a5)],
            true,
            (Verdict::Different, false),
        ),
        (
            vec![("P", a.clone()), ("S", b)],
            true,
            (Verdict::Different, true),
        ),
        (
            vec![("P", a)],
            true,
            (Verdict::CountDiffers { nodes: 2, links: 1 }, false),
        ),
    ] {
        assert_eq!(verdict(&values, more), want, "{values:?}");
    }
}

#[test]
fn history_sees_twins_and_deletion_orders_of_this_resource_only() {
    let mut tree = healthy();
    log(&mut tree, "log-000000003-P", 5);
    log(&mut tree, "log-000000003-S", 5);
    set(
        &mut tree,
        "todo-global/delete-000000001",
        "/mars/resource-r/log-000000002-P",
    );
    set(
        &mut tree,
        "todo-global/delete-000000002",
        "/mars/resource-x/log-000000003-P",
    );
    let seen: Vec<(bool, bool)> = status(&tree, "S")
        .history
        .iter()
        .map(|h| (h.has_twin, h.is_ordered_deleted))
        .collect();
    assert_eq!(seen, [(false, true), (true, false), (true, false)]);
}

#[test]
fn bytes_behind_are_counted_over_all_logs() {
    let on_s = |tree: &Tree| node(tree, "S").member.unwrap().replay.behind_bytes;
    let mut tree = healthy();
    assert_eq!(on_s(&tree), 0);
    set(&mut tree, "resource-r/replay-P", "log-000000002-P,1000,200");
    assert_eq!(on_s(&tree), 200);
    set(&mut tree, "resource-r/replay-S", "log-000000002-P,400,0");
    assert_eq!(on_s(&tree), 800);
    // Of log 2 all 1000 bytes are here, of log 3 only its version is known, of log 4 the end.
    set(&mut tree, "resource-r/replay-P", "log-000000004-P,70,0");
    let version = format!("{},P,5000,0", "a".repeat(32));
    set(&mut tree, "resource-r/version-000000003-P", &version);
    assert_eq!(on_s(&tree), 600 + 5000 + 70);
    let huge = format!("{},P,{},0", "a".repeat(32), u64::MAX);
    set(&mut tree, "resource-r/version-000000003-P", &huge);
    set(
        &mut tree,
        "resource-r/replay-P",
        &format!("log-999999999-P,{},0", u64::MAX),
    );
    assert_eq!(on_s(&tree), u64::MAX);
    let primary = node(&tree, "P").member.unwrap().replay;
    assert_eq!((primary.behind_bytes, primary.lag_secs), (0, 0));
}

#[test]
fn the_lag_grows_while_nothing_is_applied() {
    let lag = |replayed: i64, written: i64| {
        let mut tree = healthy();
        let value = format!("P,000000002,500,0,{written}.000000000");
        set_at(&mut tree, "resource-r/actual-S/timestamp", &value, replayed);
        set_at(
            &mut tree,
            "resource-r/replay-S",
            "log-000000002-P,500,0",
            replayed,
        );
        node(&tree, "S").member.unwrap().replay.lag_secs
    };
    assert_eq!(lag(NOW, NOW - 7), 7);
    assert_eq!(lag(NOW - 90, NOW - 97), 90);
    assert_eq!(lag(NOW + 5, i64::MIN), u64::try_from(i64::MAX).unwrap());
    let caught_up = node(&healthy(), "S").member.unwrap().replay;
    assert_eq!(caught_up.lag_secs, 0);
}

#[test]
fn the_delay_can_be_left_out_of_the_state() {
    let mut tree = healthy();
    let value = format!("P,000000002,500,0,{}.000000000", NOW - 100);
    set(&mut tree, "resource-r/actual-S/timestamp", &value);
    set(&mut tree, "resource-r/replay-S", "log-000000002-P,500,0");
    let node = node(&tree, "S");
    assert_eq!(
        (node.code(), node.code_without_delay()),
        (Some(Code::OutDate), Some(Code::UpDateIng))
    );
}
