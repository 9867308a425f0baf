//! When and from whom is synced, and when a disk is consistent.

use super::*;

#[test]
fn sync_waits_for_a_source_that_is_not_behind() {
    let mut case = Case::new("B", log(3, "A"), 100);
    case.put("syncstatus-B", "4096")
        .put("connect-B", "A")
        .file(log(3, "A"), 100)
        .end(100);
    assert!(case.plan().waiting.unwrap().contains("not connected"));
    case.offer("A", log(3, "A"), 200, false)
        .put("replay-A", "log-000000003-A,50,0");
    assert_eq!(case.plan().sync, None);
    case.put("replay-A", "log-000000003-A,100,0");
    let from_a = SyncFrom {
        peer: host("A"),
        start: 4096,
        gap: None,
    };
    assert_eq!(case.plan().sync, Some(from_a));
    assert_eq!(case.plan().replay, None);
    case.put("todo-B/sync", "0");
    assert_eq!(case.plan().sync, None);
}

#[test]
fn sync_turns_to_another_member_of_the_same_history() {
    let digest = |c: char| alloc::string::String::from_iter([c; 32]);
    let mut case = Case::new("B", log(3, "A"), 100);
    case.put("syncstatus-B", "4096")
        .put("connect-B", "A")
        .put("data-C", "/dev/x")
        .put("syncstatus-C", "1048576")
        .put("replay-A", "log-000000003-A,100,0")
        .put("replay-C", "log-000000003-A,100,0")
        .offer("C", log(3, "A"), 100, false);
    assert_eq!(case.plan().sync, None);
    assert_eq!(case.plan().sync_elsewhere, Some(host("C")));
    // What was begun there goes on there.
    case.facts.sync_source = Some(host("C"));
    let from = case.plan().sync.map(|sync| (sync.peer, sync.start));
    assert_eq!(from, Some((host("C"), 4096)));
    assert_eq!(case.plan().sync_elsewhere, None);
    case.put("syncstatus-B", "0");
    assert_eq!(case.plan().sync, None);
    assert_eq!(case.plan().sync_elsewhere, Some(host("C")));
    // A member of the other side of a split brain is no source.
    case.put("version-000000002-A", &format!("{},A,50,0", digest('a')))
        .put("version-000000002-C", &format!("{},C,50,0", digest('c')));
    assert_eq!(case.plan().sync_elsewhere, None);
    case.put("version-000000002-C", &format!("{},A,50,0", digest('a')));
    assert_eq!(case.plan().sync_elsewhere, Some(host("C")));
    // Nor one that has more of a log than what the primary, which has gone on, had of it.
    case.put("version-000000003-A", &format!("{},C,90,0", digest('d')))
        .put("version-000000004-A", &format!("{},A,5,0", digest('e')))
        .put("version-000000003-C", &format!("{},C,100,0", digest('f')));
    assert_eq!(case.plan().sync_elsewhere, None);
    case.put("version-000000003-C", &format!("{},C,80,0", digest('f')));
    assert_eq!(case.plan().sync_elsewhere, Some(host("C")));
    case.put("syncstatus-C", "8192");
    assert_eq!(case.plan().sync_elsewhere, None);
}

#[test]
fn a_disk_is_consistent_only_behind_the_end_of_its_sync() {
    let mut case = Case::new("B", log(1, "A"), 0);
    case.put("replay-B", "log-000000001-A,100,0")
        .put("syncpos-B", "log-000000001-A,200,0");
    assert!(!is_consistent(case.tree.resource(&case.res), &host("B")));
    case.put("replay-B", "log-000000001-A,200,0");
    assert!(is_consistent(case.tree.resource(&case.res), &host("B")));
    case.put("syncstatus-B", "5");
    assert!(!is_consistent(case.tree.resource(&case.res), &host("B")));
}

#[test]
fn a_sync_begins_at_the_log_that_its_source_writes_now() {
    let mut case = Case::new("B", log(1, "A"), 0);
    case.put("syncstatus-B", "0")
        .put("connect-B", "A")
        .put("replay-A", "log-000000001-A,900,0")
        .offer("A", log(1, "A"), 900, true);
    assert!(case.plan().sync.is_some());
    // It has a new log, and the old one is of no use, but the tree does not tell yet.
    case.facts.offers.clear();
    case.offer("A", log(2, "A"), 0, false);
    let plan = case.plan();
    assert_eq!((plan.sync, plan.rebase), (None, None));
    assert!(plan.waiting.unwrap().contains("log-000000001-A"));
    case.put("replay-A", "log-000000002-A,0,0")
        .version("A", 900);
    let plan = case.plan();
    assert_eq!(plan.rebase.unwrap().log, log(2, "A"));
    assert_eq!(plan.sync, None);
    // What is begun goes on.
    case.put("syncstatus-B", "4096");
    assert_eq!(
        (case.plan().rebase, case.plan().sync.is_some()),
        (None, true)
    );
}

#[test]
fn a_disk_that_waits_for_an_own_log_that_is_gone_is_synced_anew() {
    // B left and came again while the primary A was still replaying B's log 2; A is at its own log 3 now.
    let digest = alloc::string::String::from_iter(['a'; 32]);
    let mut case = Case::new("B", log(2, "B"), 0);
    case.put("replay-B", "log-000000002-B,0,0")
        .put("syncpos-B", "log-000000003-A,0,0")
        .put("connect-B", "A")
        .put("replay-A", "log-000000003-A,0,0")
        .put("version-000000002-A", &format!("{digest},B,700,0"))
        .offer("A", log(2, "B"), 700, true)
        .offer("A", log(3, "A"), 0, false);
    let begins = case.plan().rebase.map(|step| step.log);
    assert_eq!(begins, Some(log(3, "A")));
    // Half done it is begun anew, too; and while A is still at B's log, it is not begun.
    case.put("syncstatus-B", "4096");
    assert!(case.plan().rebase.is_some());
    case.put("syncstatus-B", "0")
        .put("replay-A", "log-000000002-B,300,0");
    let plan = case.plan();
    assert_eq!((plan.rebase, plan.sync), (None, None));
    assert!(plan.waiting.unwrap().contains("log-000000002-B"));
    // With the log, or where there was nothing in it, the sync goes its way.
    case.put("replay-A", "log-000000002-B,0,0");
    assert!(case.plan().sync.is_some());
    case.put("replay-A", "log-000000002-B,300,0")
        .file(log(2, "B"), 700);
    assert!(case.plan().sync.is_some());
}
