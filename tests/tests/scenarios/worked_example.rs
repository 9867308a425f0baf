//! The tree of two nodes at every stage of a resource's life is the one of `symlink-spec.md` section 12.

use std::collections::BTreeMap;

use mars_core::{HostName, VersionValue};
use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Context, Node, Result, fail, scenario};

const BYTES: u64 = 10_485_760;
const A: &str = PAIR[0];
const B: &str = PAIR[1];
/// Facts that may or may not stand in the tree at a given moment.
const OPTIONAL: [&str; 8] = [
    "/error",
    "_rate",
    "/timestamp",
    "/logfile-update",
    "/copy-syncstatus-",
    "verifystatus-",
    "syncpos-",
    "todo-global/delete-",
];

/// `host` in the pattern stands for the name of a node; a value `*` is any that the grammar allows.
fn expect(node: &Node, stage: &str, expected: &[(&str, &str)]) -> Result {
    let wanted: BTreeMap<String, String> = expected
        .iter()
        .map(|(path, value)| (names(path), names(value)))
        .collect();
    let found = node.links()?;
    let optional = |path: &str| OPTIONAL.iter().any(|o| path.contains(o));
    let surplus = found
        .keys()
        .filter(|p| !wanted.contains_key(*p) && !optional(p))
        .map(|p| format!("surplus {p}"));
    let wrong = wanted
        .iter()
        .filter_map(|(path, value)| match found.get(path) {
            None => Some(format!("no {path}")),
            Some(have) if value != "*" && have != value => {
                Some(format!("{path} -> {have}, expected {value}"))
            }
            Some(_) => None,
        });
    let all: Vec<_> = surplus.chain(wrong).collect();
    if all.is_empty() {
        return Ok(());
    }
    Err(fail(format!(
        "{stage}, tree of {}: {}",
        node.name(),
        all.join("; ")
    )))
}

/// Writes `A` and `B` of the worked example out.
fn names(text: &str) -> String {
    text.replace("@A", A)
        .replace("@B", B)
        .replace("@R", &format!("resource-{RESOURCE}"))
}

/// [`expect`], once it has come true.
fn reach(cluster: &Cluster, node: &Node, stage: &str, expected: &[(&str, &str)]) -> Result {
    let reached = cluster.wait(stage, 30, || expect(node, stage, expected).is_ok());
    reached
        .or_else(|timeout| expect(node, stage, expected).and(Err(timeout)))
        .map(drop)
}

const NODE: [(&str, &str); 7] = [
    ("ips/ip-@A", "10.77.0.1"),
    ("ips/key-@A", "*"),
    ("todo-global/deleted-@A", "1"),
    ("alive-@A", "1"),
    ("exhausted-@A", "0"),
    ("jammed-@A", "0"),
    ("rest-space-@A", "*"),
];
const SECOND_NODE: [(&str, &str); 7] = [
    ("ips/ip-@B", "*"),
    ("ips/key-@B", "*"),
    ("todo-global/deleted-@B", "1"),
    ("alive-@B", "1"),
    ("exhausted-@B", "0"),
    ("jammed-@B", "0"),
    ("rest-space-@B", "*"),
];
const FIRST_MEMBER: [(&str, &str); 14] = [
    ("@R/size", "10485760"),
    ("@R/primary", "@A"),
    ("@R/data-@A", DISK),
    ("@R/device-@A", RESOURCE),
    ("@R/syncstatus-@A", "10485760"),
    ("@R/actsize-@A", "10485760"),
    ("@R/replay-@A", "log-000000001-@A,0,0"),
    ("@R/version-000000001-@A", "*"),
    ("@R/todo-@A/attach", "1"),
    ("@R/todo-@A/connect", "1"),
    ("@R/todo-@A/sync", "1"),
    ("@R/todo-@A/allow-replay", "1"),
    ("@R/actual-@A/is-primary", "1"),
    ("@R/actual-@A/device-r1", "1"),
];
const SECOND_MEMBER: [(&str, &str); 14] = [
    ("@R/data-@B", DISK),
    ("@R/device-@B", RESOURCE),
    ("@R/actsize-@B", "10485760"),
    ("@R/syncstatus-@B", "10485760"),
    ("@R/connect-@A", "@B"),
    ("@R/connect-@B", "@A"),
    ("@R/todo-@B/attach", "1"),
    ("@R/todo-@B/connect", "1"),
    ("@R/todo-@B/sync", "1"),
    ("@R/todo-@B/allow-replay", "1"),
    ("@R/replay-@B", "*"),
    ("@R/version-000000001-@B", "*"),
    ("@R/actual-@B/is-primary", "0"),
    ("@R/actual-@B/device-r1", "0"),
];

fn version(log_host: &str, seq: u64, pos: u64, previous: &str) -> Result<String> {
    let host = HostName::new(log_host).context("host name")?;
    Ok(VersionValue::chain(&host, seq, pos, previous).to_string())
}

fn two_writes(node: &Node) -> Result {
    let dd = format!(
        "dd if=/dev/urandom of={DEVICE} bs=4096 count=2 seek=8 oflag=direct conv=fsync status=none"
    );
    node.run(&dd).map(drop)
}

#[test]
fn the_tree_at_every_stage() -> Result {
    scenario(&PAIR, |cluster| {
        let (a, b) = (&cluster[0], &cluster[1]);
        a.add_disk(DISK, BYTES)?;
        b.add_disk(DISK, BYTES)?;
        one_node(cluster, a)?;
        second_node_joins(cluster, a, b)?;
        let first = version(A, 1, 8360, "")?;
        two_blocks(cluster, a, b, &first)?;
        rotate_and_delete(cluster, a, b, &first)?;
        hand_over(cluster, a, b, &first)?;
        cluster.wait_caught_up(RESOURCE, b, a, 30)?;
        same_disks(a, b, DISK)
    })
}

fn one_node(cluster: &Cluster, a: &Node) -> Result {
    a.run("marsadm create-cluster")?;
    expect(a, "1 create-cluster", &NODE[..3])?;
    a.run("cd /mars && test -d userspace && test -d defaults && test -d defaults-$(uname -n)")?;
    a.start_marsd()?;
    reach(cluster, a, "2 marsd runs", &NODE)?;
    a.run(&format!("marsadm create-resource {RESOURCE} {DISK}"))?;
    let all = [&NODE[..], &FIRST_MEMBER].concat();
    reach(cluster, a, "4 the device appears", &all)?;
    let log = a.run("stat -c '%a %s %F' /mars/resource-r1/log-000000001-*")?;
    assert_eq!(log.trim(), "600 0 regular empty file");
    assert_eq!(
        a.own(RESOURCE, "version-000000001"),
        Some(version(A, 1, 0, "")?)
    );
    assert_eq!(a.actual(RESOURCE, "error").unwrap_or("none".into()), "none");
    Ok(())
}

fn second_node_joins(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    b.run(&format!("marsadm join-cluster {A}"))?;
    expect(
        b,
        "5 join-cluster",
        &[&NODE[..2], &SECOND_NODE[..3]].concat(),
    )?;
    b.start_marsd()?;
    let all = [&NODE[..], &SECOND_NODE, &FIRST_MEMBER].concat();
    reach(cluster, b, "5 the tree has come over", &all)?;
    assert_eq!(
        b.logs(RESOURCE),
        [],
        "a node that has not joined gets no logs"
    );
    b.run(&format!("marsadm join-resource {RESOURCE} {DISK}"))?;
    cluster.wait("7 synced", 60, || b.is_synced(RESOURCE))?;
    let all = [&all[..], &SECOND_MEMBER].concat();
    reach(cluster, b, "7 synced", &all)?;
    reach(cluster, a, "7 synced", &all)
}

fn two_blocks(cluster: &Cluster, a: &Node, b: &Node, first: &str) -> Result {
    two_writes(a)?;
    let changed = [
        ("@R/replay-@A", "log-000000001-@A,8360,0"),
        ("@R/replay-@B", "log-000000001-@A,8360,0"),
        ("@R/version-000000001-@A", first),
        ("@R/version-000000001-@B", first),
    ];
    let all = [
        &NODE[..],
        &SECOND_NODE,
        &FIRST_MEMBER,
        &SECOND_MEMBER,
        &changed,
    ]
    .concat();
    for node in [a, b] {
        reach(cluster, node, "8 two blocks are replayed", &all)?;
        cluster.wait("8 the log is 8360 bytes long", 10, || {
            node.logs(RESOURCE) == [(format!("log-000000001-{A}"), 8360)]
        })?;
    }
    Ok(())
}

fn rotate_and_delete(cluster: &Cluster, a: &Node, b: &Node, first: &str) -> Result {
    a.run(&format!("marsadm log-rotate {RESOURCE}"))?;
    let second = version(A, 2, 0, first)?;
    let changed = [
        ("@R/replay-@A", "log-000000002-@A,0,0"),
        ("@R/replay-@B", "log-000000002-@A,0,0"),
        ("@R/version-000000001-@A", first),
        ("@R/version-000000001-@B", first),
        ("@R/version-000000002-@A", &second),
        ("@R/version-000000002-@B", &second),
    ];
    let all = [
        &NODE[..],
        &SECOND_NODE,
        &FIRST_MEMBER,
        &SECOND_MEMBER,
        &changed,
    ]
    .concat();
    reach(cluster, a, "10 rotated", &all)?;
    reach(cluster, b, "10 rotated", &all)?;
    a.run(&format!("marsadm log-delete {RESOURCE}"))?;
    for node in [a, b] {
        cluster.wait("11 the first log is deleted", 30, || {
            node.logs(RESOURCE) == [(format!("log-000000002-{A}"), 0)]
        })?;
    }
    Ok(())
}

fn hand_over(cluster: &Cluster, a: &Node, b: &Node, first: &str) -> Result {
    two_writes(a)?;
    cluster.hand_over(a, b)?;
    let second = version(A, 2, 8360, first)?;
    let third = version(B, 3, 0, &second)?;
    let changed = [
        ("@R/primary", "@B"),
        ("@R/replay-@A", "log-000000003-@B,0,0"),
        ("@R/replay-@B", "log-000000003-@B,0,0"),
        ("@R/version-000000002-@A", &second),
        ("@R/version-000000002-@B", &second),
        ("@R/version-000000003-@B", &third),
        ("@R/version-000000003-@A", &third),
        ("@R/actual-@A/is-primary", "0"),
        ("@R/actual-@A/device-r1", "0"),
        ("@R/actual-@B/is-primary", "1"),
        ("@R/actual-@B/device-r1", "1"),
    ];
    let all = [
        &NODE[..],
        &SECOND_NODE,
        &FIRST_MEMBER,
        &SECOND_MEMBER,
        &changed,
    ]
    .concat();
    reach(cluster, b, "12 handed over", &all)?;
    reach(cluster, a, "12 handed over", &all)?;
    two_writes(b)
}
