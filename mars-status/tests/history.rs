//! `--history`
#![allow(clippy::unwrap_used)]

mod support;

use support::*;

fn history(change: impl FnOnce(&mut mars_core::Tree)) -> String {
    let mut tree = fixture("steady.manifest");
    change(&mut tree);
    let ran = Node::new(&tree, SECONDARY).run(&["--history"]);
    let at = ran
        .out
        .find("-> History")
        .unwrap_or_else(|| panic!("{ran:?}"));
    ran.out[at..].to_string()
}

#[test]
fn it_is_shown_only_when_asked_for() {
    assert!(!Node::steady().run(&[]).out.contains("History"));
    assert_eq!(
        format!("    {}", history(|_| ())),
        fixture_text("sample-d.screen")
    );
}

#[test]
fn split_brain_missing_sources_and_orders_are_seen() {
    let other = "00000000000000000000000000000000,istore-test-bs7,278588680,0";
    let text = history(|t| set_res(t, "version-000007568-istore-test-bs7", other));
    assert!(
        text.contains(
            "\t\t---> TODO: Logfiles has not equal Checksums and same size, check for SPLIT-BRAIN\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("not equal Checksums and different size, Replay in progress ...\n"),
        "{text}"
    );

    let behind = "00000000000000000000000000000000,istore-test-bs7,4180,0";
    let text = history(|t| set_res(t, "version-000007568-istore-test-bs7", behind));
    assert!(!text.contains("SPLIT-BRAIN"), "{text}");

    let third = "ad7165b08c7d31812e20be89af3c7c6a,istore-test-bs7,278588680,0";
    let text = history(|t| set_res(t, "version-000007568-third", third));
    assert!(
        text.contains("\t\t---> TODO: Count of Logfiles different = (have:2 found:3)\n"),
        "{text}"
    );

    let text = history(|t| {
        set(
            t,
            "todo-global/delete-000000001",
            "/mars/resource-DeviceA/log-000007568-istore-test-bs7",
        );
    });
    assert!(
        text.contains(
            "\t\t---> HINT: LogFile ist marked for delete (log-000007568-istore-test-bs7).\n"
        ),
        "{text}"
    );
}
