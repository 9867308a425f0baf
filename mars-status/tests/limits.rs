//! `--warn-lag`, `--crit-lag`, `--warn-behind`, `--crit-behind`
#![allow(clippy::unwrap_used)]

mod support;

use mars_core::Tree;
use mars_status::exit;
use support::*;

/// The secondary is 5000 bytes behind, and has been for 10 seconds.
fn behind() -> Tree {
    let mut tree = fixture("steady.manifest");
    let end = format!("log-000007569-{PRIMARY},5000,0");
    set_res(&mut tree, &format!("replay-{PRIMARY}"), &end);
    tree
}

fn run(tree: &Tree, args: &[&str]) -> (u8, String) {
    let args = [&["--monitor"], args].concat();
    let model = model(tree, SECONDARY, &facts(), &args);
    let first = text(&model).lines().next().unwrap_or_default().to_string();
    (exit::code(&model).number(), first)
}

#[test]
fn without_limits_only_the_documented_lines_are_printed() {
    let (code, first) = run(&behind(), &[]);
    assert_eq!(
        (code, first.as_str()),
        (0, "Secondary [resource-DeviceA on istore-test-bap7]")
    );
}

#[test]
fn the_first_line_is_that_of_a_plugin() {
    assert_eq!(
        run(&behind(), &["--warn-lag", "9", "--crit-lag", "20"]),
        (
            1,
            "MARS WARNING - DeviceA: UpDateIng, lag 10 s (warning above 9), behind 5000 bytes \
             | 'DeviceA_lag'=10s;9;20;0; 'DeviceA_behind'=5000B;;;0;"
                .to_string()
        )
    );
    assert_eq!(
        run(&fixture("steady.manifest"), &["--crit-behind=1"]),
        (
            0,
            "MARS OK - DeviceA: UpToDate, lag 0 s, behind 0 bytes \
             | 'DeviceA_lag'=0s;;;0; 'DeviceA_behind'=0B;;1;0;"
                .to_string()
        )
    );
}

#[test]
fn a_limit_has_to_be_exceeded() {
    for (args, code) in [
        (&["--warn-lag", "10"][..], 0),
        (&["--warn-lag", "9"], 1),
        (&["--crit-lag", "10"], 0),
        (&["--crit-lag", "9"], 2),
        (&["--warn-lag", "1", "--crit-lag", "9"], 2),
        (&["--warn-behind", "5000"], 0),
        (&["--warn-behind", "4999"], 1),
        (&["--crit-behind", "4999", "--warn-lag", "0"], 2),
        (&["--warn-lag", "18446744073709551615"], 0),
    ] {
        let (found, first) = run(&behind(), args);
        assert_eq!(found, code, "{args:?}: {first}");
    }
}

#[test]
fn own_limits_of_lag_replace_the_minute_of_the_state() {
    let mut tree = behind();
    let value = "istore-test-bs7,000007569,0,0,1348833320.000000000";
    set_res(&mut tree, &format!("actual-{SECONDARY}/timestamp"), value);
    assert_eq!(run(&tree, &[]).0, 1);
    let (code, first) = run(&tree, &["--warn-lag", "100"]);
    assert_eq!(code, 0);
    assert!(
        first.starts_with("MARS OK - DeviceA: OutDate, lag 100 s,"),
        "{first}"
    );
    assert_eq!(run(&tree, &["--crit-behind", "9999"]).0, 1);
    set_res(&mut tree, &format!("todo-{SECONDARY}/sync"), "0");
    assert_eq!(run(&tree, &["--warn-lag", "100"]).0, 1);
}

#[test]
fn what_is_wrong_besides_is_told_in_the_first_line() {
    let mut tree = behind();
    set(&mut tree, &format!("alive-{SECONDARY}"), "0");
    let (code, first) = run(&tree, &["--warn-lag", "60"]);
    assert_eq!(code, 2);
    let wanted = "MARS CRITICAL - marsd is not running on istore-test-bap7, DeviceA: Failed, ";
    assert!(first.starts_with(wanted), "{first}");
    let (code, first) = run(&behind(), &["--warn-lag", "60", "--resource", "nope"]);
    assert_eq!(
        (code, first.as_str()),
        (3, "MARS UNKNOWN - resource nope does not exist")
    );
    let (code, first) = run(
        &{
            let mut tree = behind();
            tree.links
                .retain(|path, _| !path.to_string().contains("device-"));
            tree
        },
        &["--warn-lag", "60"],
    );
    assert_eq!(
        (code, first.as_str()),
        (3, "MARS UNKNOWN - DeviceA: not joined")
    );
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    for (args, code) in [
        (&["--warn-lag", "5"][..], 2),
        (&["--monitor", "--warn-lag", "9", "--crit-lag", "8"], 3),
        (
            &["--monitor", "--warn-behind", "9", "--crit-behind", "8"],
            3,
        ),
        (&["--monitor", "--warn-behind", "10G"], 3),
        (&["--mon", "--warn-lag=-1"], 3),
    ] {
        let ran = Node::steady().run(args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{args:?}");
        assert!(ran.err.contains("--warn-"), "{}", ran.err);
    }
}
