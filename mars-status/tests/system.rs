//! `--system`
#![allow(clippy::unwrap_used)]

mod support;

use support::*;

#[test]
fn parameters_are_shown_with_limit_and_current_value() {
    let node = Node::steady();
    node.write_run("sys/loadavg_limit", "5\n");
    node.write_run("sys/network_traffic_limit_kb", "1000\n");
    node.write_run("sys/network_traffic_rate_kb", "17\n");
    node.write_run("sys/percent_mem_limit_kb", "garbage\n");
    let ran = node.run(&["--system"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for wanted in [
        "-> AVG-Limit: is set to 5 \n",
        "-> Network-Traffic-Limit: is set to 1000 kb/s, current 17 kb/s\n",
        "-> Memory-Limit: is unset, used full speed\n",
        "-> Mars-Transaktion running normaly\n-> Diskspace on Cluster: ok\n-> check resource DeviceA",
    ] {
        assert!(
            ran.out.contains(wanted),
            "{wanted} is missing in\n{}",
            ran.out
        );
    }
    let space = ran
        .out
        .lines()
        .find(|l| l.contains("Free-Space-Limit on /mars"))
        .unwrap();
    assert!(
        space.contains(", current ") && space.ends_with(" mb"),
        "{space}"
    );
    assert!(!node.run(&[]).out.contains("AVG-Limit"));
}

#[test]
fn full_disks_are_told_and_fail_the_node() {
    let mut tree = fixture("steady.manifest");
    set(&mut tree, "rest-space-istore-test-bs7", "-2048");
    let ran = Node::new(&tree, SECONDARY).run(&["--system"]);
    assert!(ran.out.contains("-> Diskspace on Cluster:\n\t-> TODO: Remotesystem istore-test-bs7 have mars-disk full (-2.00 kb Limit) !!!\n\n"), "{}", ran.out);
    assert!(
        ran.out
            .contains("Failed = (System: Remote-Mars-Disk full)(joined)"),
        "{}",
        ran.out
    );
    assert!(
        ran.out
            .contains("Failed = (System: Mars-Disk full, MARS stopping)(joined)"),
        "{}",
        ran.out
    );

    set(&mut tree, "rest-space-istore-test-bap7", "0");
    set(&mut tree, "jammed-istore-test-bap7", "1");
    let ran = Node::new(&tree, SECONDARY).run(&["--system"]);
    assert!(
        ran.out.contains(
            "\n\t-> TODO: Local Partition /mars full (0.00 kb Limit) !!! mars is stopping !!!\n\n"
        ),
        "{}",
        ran.out
    );
    assert!(
        ran.out
            .contains("-> Mars-Transaktion and Replication not running !!!\n"),
        "{}",
        ran.out
    );
}
