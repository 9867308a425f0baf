//! `--json`
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use mars_core::Tree;
use mars_status::facts::{Facts, Mount};
use mars_status::json;
use serde_json::Value;
use support::*;

fn document(tree: &Tree, facts: &Facts, args: &[&str]) -> Value {
    let text = json::document(&model(tree, SECONDARY, facts, args), &[], false).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Everything there is to show at once.
fn everything() -> (Tree, Facts) {
    let mut tree = fixture("sample-a.manifest");
    set_res(
        &mut tree,
        &format!("syncpos-{SECONDARY}"),
        &format!("log-000009999-{PRIMARY},1,0"),
    );
    set_res(
        &mut tree,
        "version-000007562-istore-test-bs7",
        "ad7165b08c7d31812e20be89af3c7c6a,istore-test-bs7,5,0",
    );
    let end = format!("log-000007562-{PRIMARY},99999999,0");
    set_res(&mut tree, &format!("replay-{PRIMARY}"), &end);
    let at = format!("log-000007562-{PRIMARY},94097408,0");
    set_res(&mut tree, &format!("replay-{SECONDARY}"), &at);
    let verify = format!("actual-{SECONDARY}/verify");
    set_res(&mut tree, &verify, "3,running,1048576");
    set(&mut tree, &format!("rest-space-{PRIMARY}"), "-4");
    let facts = Facts {
        parameters: [("loadavg_limit", "5".to_string())].into(),
        partition_kib: Some(8),
        mounts: [(RESOURCE.to_string(), Mount::At("/srv".into()))].into(),
        warnings: vec!["w".into()],
        errors: vec!["e".into()],
        ..facts()
    };
    (tree, facts)
}

/// Paths of all values, with `[]` for lists and `NAME` for names of parameters.
fn paths(value: &Value, at: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let name = if at == "system.parameters" {
                    "NAME"
                } else {
                    name
                };
                let dot = if at.is_empty() { "" } else { "." };
                paths(value, &format!("{at}{dot}{name}"), out);
            }
        }
        Value::Array(list) => {
            for value in list {
                paths(value, &format!("{at}[]"), out);
            }
            out.insert(format!("{at}[]"));
        }
        _ => {
            out.insert(at.to_string());
        }
    }
}

/// The first column of the table of the specification, written out.
fn specified() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../symlink-spec.md");
    let spec = std::fs::read_to_string(path).unwrap();
    let section = spec.split("### 11.6 JSON").nth(1).unwrap();
    let section = section.split("\n##").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_string())
        .collect()
}

#[test]
fn every_member_is_specified_and_the_other_way_round() {
    let (tree, facts) = everything();
    let document = document(&tree, &facts, &["--history", "--system", "--debug"]);
    let mut found = BTreeSet::new();
    paths(&document, "", &mut found);
    found.extend(["problems[].path".to_string(), "problems[].cause".into()]);
    // Lists of objects are specified by their members.
    let found: BTreeSet<String> = found
        .iter()
        .filter(|name| {
            let inside = format!("{name}.");
            !found.iter().any(|other| other.starts_with(&inside))
        })
        .cloned()
        .collect();
    let specified = specified();
    let missing: Vec<_> = found.difference(&specified).collect();
    assert!(
        missing.is_empty(),
        "not in symlink-spec.md 11.6: {missing:#?}"
    );
    let gone: Vec<_> = specified.difference(&found).collect();
    assert!(gone.is_empty(), "only in symlink-spec.md 11.6: {gone:#?}");
}

#[test]
fn values_are_those_of_the_screen() {
    let (tree, facts) = everything();
    let all = document(&tree, &facts, &["--history", "--system", "--debug"]);
    let node = &all["resources"][0]["nodes"][0];
    for (pointer, wanted) in [
        ("/schema", Value::from(1)),
        ("/view", "screen".into()),
        ("/exit_code", 0.into()),
        ("/host", SECONDARY.into()),
        ("/daemon/state", "running".into()),
        ("/system/parameters/loadavg_limit/value", 5.0.into()),
        ("/system/partition_size_bytes", 8192.into()),
        ("/system/full_nodes/0/rest_kib", (-4).into()),
        ("/messages/warnings/0", "w".into()),
        ("/resources/0/name", RESOURCE.into()),
        ("/resources/0/primary", PRIMARY.into()),
        ("/resources/0/member_count", 2.into()),
    ] {
        assert_eq!(all.pointer(pointer), Some(&wanted), "{pointer}");
    }
    for (pointer, wanted) in [
        ("/role", Value::from("Secondary")),
        ("/state", "Failed".into()),
        ("/member/disk", "/dev/vg-test-bap7/DeviceA".into()),
        ("/member/device", "/dev/mars/DeviceA".into()),
        ("/member/mount_point", "/srv".into()),
        ("/member/sync/state", "not consistent".into()),
        ("/member/sync/done_percent", 100.0.into()),
        ("/member/replay/state", "behind".into()),
        ("/member/replay/behind_bytes", 5_902_591.into()),
        ("/member/replay/known_end/pos_bytes", 99_999_999.into()),
        ("/member/switches/allow_replay", true.into()),
    ] {
        assert_eq!(node.pointer(pointer), Some(&wanted), "{pointer}");
    }
}

#[test]
fn views_that_are_not_asked_for_are_null() {
    let (tree, facts) = everything();
    let plain = document(&tree, &facts, &[]);
    assert!(plain["system"].is_null() && plain["messages"].is_null());
    assert!(plain["resources"][0]["history"].is_null());
    let monitor = document(&tree, &facts, &["--monitor"]);
    assert_eq!(
        (&monitor["view"], &monitor["exit_code"]),
        (&"monitor".into(), &2.into())
    );
    assert_eq!(
        monitor["resources"][0]["nodes"].as_array().unwrap().len(),
        1
    );
    assert_eq!(monitor["resources"][0]["nagios_code"], 2);
    let versions = document(&tree, &facts, &["--version"]);
    assert_eq!(versions["resources"].as_array().unwrap().len(), 0);
    let missing = document(&tree, &facts, &["--resource=nope"]);
    assert_eq!(
        (&missing["missing_resource"], &missing["exit_code"]),
        (&"nope".into(), &1.into())
    );
    assert!(
        missing["complaints"][0]
            .as_str()
            .unwrap()
            .contains(RESOURCE)
    );
}

#[test]
fn the_program_prints_one_document_and_no_colours() {
    let node = Node::steady();
    for out in [
        node.run(&["--json"]).out,
        node.run_on_terminal("--json", false).out,
    ] {
        let document: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            document["resources"][0]["nodes"][0]["state"], "UpToDate",
            "{out}"
        );
    }
}
