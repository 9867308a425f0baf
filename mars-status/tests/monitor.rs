//! `--monitor`
#![allow(clippy::unwrap_used)]

mod support;

use support::*;

#[test]
fn sample_e_three_lines_for_each_resource_of_this_node() {
    let wanted = "Secondary [resource-DeviceA on istore-test-bap7]\n\
                  UpToDate [(joined)(alive)(synced)(replay wait)(attached)(connected)(synced)(replayed)]\n\
                  Connect [resource-DeviceA on istore-test-bap7]\n";
    for arg in ["--monitor", "-monitor", "--mon", "\u{2013}monitor"] {
        let ran = Node::steady().run(&[arg]);
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.as_str()),
            (Some(0), wanted, ""),
            "{arg}"
        );
    }
}

#[test]
fn the_exit_code_is_that_of_nagios() {
    let h = SECONDARY;
    for (name, value, code) in [
        (format!("actual-{h}/replay_rate"), "1", 0),
        (
            format!("replay-{h}"),
            "log-000007569-istore-test-bs7,4180,4180",
            0,
        ),
        (format!("todo-{h}/connect"), "0", 1),
        (format!("syncstatus-{h}"), "0", 2),
        (format!("actual-{h}/error"), "broken", 2),
    ] {
        let mut tree = fixture("steady.manifest");
        set_res(&mut tree, &name, value);
        let ran = Node::new(&tree, h).run(&["--monitor"]);
        assert_eq!(ran.code, Some(code), "{name} -> {value}: {}", ran.out);
    }
}

#[test]
fn what_nothing_can_be_said_about_is_unknown() {
    let tree = fixture("steady.manifest");
    let elsewhere = Node::new(
        &{
            let mut tree = tree.clone();
            set(&mut tree, "alive-other", "1");
            tree
        },
        "other",
    )
    .run(&["--monitor"]);
    assert_eq!(elsewhere.code, Some(3), "{elsewhere:?}");
    assert_eq!(elsewhere.out, "not joined [resource-DeviceA on other]\n");
    for args in [
        &["--monitor", "--resource", "nope"][..],
        &["--monitor", "--nonsense"],
    ] {
        let ran = Node::steady().run(args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""), "{ran:?}");
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn without_a_daemon_it_is_critical() {
    let mut tree = fixture("steady.manifest");
    set(&mut tree, "alive-istore-test-bap7", "0");
    let ran = Node::new(&tree, SECONDARY).run(&["--monitor"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.out.contains("Failed [(joined)(not alive)"),
        "{}",
        ran.out
    );
    assert!(
        ran.err.contains("marsd is not running on istore-test-bap7"),
        "{}",
        ran.err
    );
}
