//! The samples of the documentation, byte for byte.
#![allow(clippy::unwrap_used)]

mod support;

use mars_status::facts::{Facts, Mount};
use support::*;

#[test]
fn sample_a_the_screen_without_options() {
    let mut model = model(&fixture("sample-a.manifest"), SECONDARY, &facts(), &[]);
    model.header.status = "0.069".into();
    model.header.admin =
        "/usr/lib/mars/0.1348749967-f021125/MARSADM 267700a8a877ad79bc9b86f17891c9d7bf6fa766"
            .into();
    model.header.module = "0.1348749967-f021125 (  2012-09-27 14:54:10)".into();
    assert_eq!(text(&model), fixture_text("sample-a.screen"));
}

#[test]
fn sample_b_system() {
    let facts = Facts {
        parameters: [
            ("loadavg_limit", "0"),
            ("network_traffic_limit_kb", "0"),
            ("network_traffic_rate_kb", "5"),
            ("percent_mem_limit_kb", "0"),
            ("server_io_limit_mb", "0"),
            ("server_io_rate_mb", "0"),
            ("free_space_mb", "8"),
            ("logdel_auto_gb", "8"),
            ("logrot_auto_gb", "32"),
        ]
        .map(|(name, value)| (name, value.to_string()))
        .into(),
        partition_kib: Some(33_991_936),
        ..facts()
    };
    let text = text(&model(
        &fixture("steady.manifest"),
        SECONDARY,
        &facts,
        &["--system"],
    ));
    let wanted = fixture_text("sample-b.screen");
    assert!(
        text.contains(&format!("----\n{wanted}-> check resource ")),
        "{text}"
    );
}

#[test]
fn sample_d_history() {
    let text = text(&model(
        &fixture("steady.manifest"),
        SECONDARY,
        &facts(),
        &["--history"],
    ));
    let at = text
        .find("    -> History")
        .unwrap_or_else(|| panic!("{text}"));
    assert_eq!(&text[at..], fixture_text("sample-d.screen"));
}

#[test]
fn the_local_device_tells_whether_it_is_mounted() {
    let tree = fixture("steady.manifest");
    for (mount, wanted) in [
        (
            Mount::At("/srv".into()),
            "/dev/mars/DeviceA, not resized and mountet as /srv\n",
        ),
        (
            Mount::NotMounted,
            "not resized\n\t\t---> TODO: enable to mount\n",
        ),
    ] {
        let mut facts = facts();
        facts.mounts.insert(RESOURCE.into(), mount);
        let text = text(&model(&tree, PRIMARY, &facts, &[]));
        assert_eq!(text.matches(wanted).count(), 1, "{text}");
    }
}

/// One change of the steady pair, and the lines that the secondary then shows.
#[test]
fn each_deviation_has_its_line() {
    let h = SECONDARY;
    for (name, value, wanted) in [
        (
            format!("actsize-{h}"),
            "10737418241",
            "\n\t\t---> HINT: resizing used (10737418240 != 10737418241)\n",
        ),
        (
            format!("syncstatus-{h}"),
            "5368709120",
            "\tSync    : 5368709120 bytes (0.005TB) synced = 50.00%\n\t\t---> WORK: Sync in progress = (50.00% < 100.00%)\n",
        ),
        (
            format!("syncpos-{h}"),
            "log-000007569-istore-test-bs7,4180,0",
            "\t\t---> WORK: Sync finished, not consistent until log-000007569-istore-test-bs7,4180 is replayed = (now log-000007569-istore-test-bs7,0)\n",
        ),
        (
            format!("actual-{h}/sync_rate"),
            "104857600",
            " synced = 100.00%, by 100.00 mb/s\n",
        ),
        (
            format!("actual-{h}/replay_rate"),
            "104857600",
            " = 100.00%, by 100.00 mb/s\n",
        ),
        (
            format!("actual-{h}/error"),
            "cannot read log-000007569: it is damaged",
            "\tActual  : Status=Secondary, Syncstatus=off, Logfileupdate=off\n\t\t---> TODO: cannot read log-000007569: it is damaged\n",
        ),
        (
            format!("todo-{h}/sync"),
            "0",
            "\tSwitches: Attach=on Connect=on Sync=off AllowReplay=on\n",
        ),
        (
            "replay-istore-test-bs7".into(),
            "log-000007569-istore-test-bs7,4180,4180",
            "\t\t---> WORK: Logfiles not complete = (log-000007569,0 < log-000007569,8360)\n",
        ),
        (
            "replay-istore-test-bs7".into(),
            "log-000007570-istore-test-bs7,0,0",
            "\t\t---> HINT: Logfile Version not actual = (log-000007570 ! log-000007569)\n",
        ),
        ("primary".into(), "(none)", "Primary Node is (none)\n"),
    ] {
        let mut tree = fixture("steady.manifest");
        set_res(&mut tree, &name, value);
        let text = text(&model(&tree, h, &facts(), &[]));
        assert!(text.contains(wanted), "{name} -> {value}:\n{text}");
    }
    let steady = text(&model(&fixture("steady.manifest"), h, &facts(), &[]));
    assert!(
        !steady.contains("not actual") && !steady.contains("TODO"),
        "{steady}"
    );
    assert!(steady.contains("\tLogfile : 0.0001 bytes (0.000GB) in log-000007569 active  \n\t\t---> WORK: Logfile empty = (Size: 0.0001)\n"), "{steady}");
}

#[test]
fn a_delayed_secondary_says_how_long() {
    let mut tree = fixture("sample-a.manifest");
    let value = "istore-test-bs7,000007562,4180,0,1348829759.500000000";
    set_res(&mut tree, "actual-istore-test-bap7/timestamp", value);
    let text = text(&model(&tree, SECONDARY, &facts(), &[]));
    assert!(
        text.contains("-592.73 mb/s , Delay 01:01:00 - but not really sure ;)\n"),
        "{text}"
    );
    assert!(
        text.contains("(synced)(Delay 3660 sec)(replay stopped)"),
        "{text}"
    );
}

#[test]
fn a_node_that_has_not_joined_is_told_so() {
    let text = text(&model(&fixture("steady.manifest"), "other", &facts(), &[]));
    let wanted = "   -> local Node (other) as not joined   -> Resource is not joined to this node\n   \
                  -> modus for DeviceA is remote (0 nodes)\n";
    assert!(text.ends_with(wanted), "{text}");
}

#[test]
fn a_running_comparison_shows_how_far_it_is() {
    let mut tree = fixture("steady.manifest");
    let answer = format!("actual-{SECONDARY}/verify");
    let shown = |tree: &_| text(&model(tree, SECONDARY, &facts(), &[]));
    set_res(&mut tree, &answer, "2,done,0,0,0,none");
    assert!(!shown(&tree).contains("Verify"));
    let size = tree.get(&mars_core::LinkPath::parse(&format!("resource-{RESOURCE}/size")).unwrap());
    let quarter = size.unwrap().parse::<u64>().unwrap() / 4;
    set_res(&mut tree, &answer, &format!("3,running,{quarter}"));
    let screen = shown(&tree);
    let line = "\t\t---> WORK: Verify in progress = (25.00% < 100.00%)\n";
    let (before, _) = screen
        .split_once(line)
        .unwrap_or_else(|| panic!("{screen}"));
    assert!(before.contains("as Secondary") && !before.contains("remote Node"));
}
