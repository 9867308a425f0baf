//! Histories that exclude each other: the primary goes its way, its followers with it, and who went another is told.

use super::*;
use crate::version::VersionValue;

impl Case {
    /// The version links of a node: writer and last position of each log from 1 on.
    fn chain(&mut self, node: &str, logs: &[(&str, u64)]) -> &mut Self {
        let mut previous = alloc::string::String::new();
        for (seq, (writer, pos)) in (1..).zip(logs) {
            previous = VersionValue::chain(&host(writer), seq, *pos, &previous).to_string();
            self.put(&format!("version-{seq:09}-{node}"), &previous);
        }
        self
    }
}

/// A wrote 700 bytes of log 1, Z was made primary when it had 600 of them and wrote log 2. Then A was chosen.
fn chosen(me: &str, at: LogName, pos: u64) -> Case {
    let mut case = Case::new(me, at, pos);
    case.put("data-Z", "/dev/x")
        .put("syncstatus-Z", "1048576")
        .put("todo-Z/attach", "1")
        .chain("A", &[("A", 700)])
        .chain("Z", &[("A", 600), ("Z", 50)]);
    if me != "Z" {
        case.offer("Z", log(1, "A"), 600, true)
            .offer("Z", log(2, "Z"), 50, false);
    }
    case
}

#[test]
fn histories_exclude_each_other_only_where_none_can_follow_the_other() {
    let end_a = [("A", 700)];
    let gone_on_a = [("A", 700), ("A", 20)];
    for (other, at) in [
        (&[("A", 700)][..], None),
        (&[("A", 600)], None),
        (&[("A", 900)], None),
        (&[("A", 600), ("Z", 50)], Some(1)),
        (&[("A", 700), ("Z", 50)], None),
        (&[("Z", 700)], Some(1)),
    ] {
        let mut case = Case::new("A", log(1, "A"), 700);
        case.chain("A", &end_a).chain("Z", other);
        let view = case.tree.resource(&case.res);
        assert_eq!(branch_of(view, &host("A"), &host("Z")), at, "{other:?}");
        assert_eq!(branch_of(view, &host("Z"), &host("A")), at, "{other:?}");
    }
    for (other, at) in [
        (&[("A", 900)][..], Some(1)),
        (&[("A", 700), ("Z", 50)], Some(2)),
        (&[("A", 700), ("A", 10)], None),
    ] {
        let mut case = Case::new("A", log(2, "A"), 20);
        case.chain("A", &gone_on_a).chain("Z", other);
        let view = case.tree.resource(&case.res);
        assert_eq!(branch_of(view, &host("A"), &host("Z")), at, "{other:?}");
    }
}

#[test]
fn the_primary_goes_on_and_removes_what_others_wrote_behind_another_end() {
    let mut case = chosen("A", log(1, "A"), 700);
    case.file(log(1, "A"), 700).file(log(2, "Z"), 50).end(700);
    let plan = case.plan();
    assert_eq!(plan.switch.unwrap().next, log(2, "A"));
    assert_eq!(plan.discard, [log(2, "Z")]);
    assert_eq!((plan.fetch, plan.error, plan.waiting), (None, None, None));
    // At the beginning of its own log.
    case.facts.pos = Some(ReplayPos::new(log(2, "A"), 0));
    case.chain("A", &[("A", 700), ("A", 0)]).end(0);
    assert!(matches!(case.plan().shim, ShimPlan::Start(_)));
    case.shim(ShimState::Logging, &[(log(2, "A"), false)]);
    assert_eq!(case.plan().discard, [log(2, "Z")]);
    // Nothing is decided: nothing goes.
    case.put("primary", "(none)");
    assert!(case.plan().discard.is_empty());
    // Of the same history.
    case.put("primary", "A")
        .chain("A", &[("A", 700)])
        .chain("Z", &[("A", 700), ("Z", 50)]);
    case.tree
        .links
        .retain(|path, _| !path.to_string().ends_with("version-000000002-A"));
    assert!(case.plan().discard.is_empty());
}

#[test]
fn who_did_not_go_the_other_way_follows_the_primary() {
    let mut case = chosen("B", log(1, "A"), 700);
    case.file(log(1, "A"), 700)
        .end(700)
        .chain("B", &[("A", 700)])
        .offer("A", log(1, "A"), 700, true)
        .offer("A", log(2, "A"), 30, false);
    let plan = case.plan();
    assert_eq!(plan.switch.unwrap().next, log(2, "A"));
    assert_eq!(plan.fetch, Some((log(2, "A"), host("A"))));
    case.put("primary", "(none)");
    assert!(case.plan().error.unwrap().contains("SPLIT BRAIN"));
}

#[test]
fn who_went_another_way_than_the_primary_is_told_and_keeps_what_it_has() {
    let mut case = chosen("Z", log(2, "Z"), 50);
    case.file(log(1, "A"), 600)
        .file(log(2, "Z"), 50)
        .end(50)
        .offer("A", log(1, "A"), 700, false);
    let plan = case.plan();
    let waiting = plan.waiting.unwrap();
    assert!(waiting.contains("SPLIT BRAIN at log 1"), "{waiting}");
    assert!(waiting.contains("'marsadm invalidate r'"), "{waiting}");
    assert!(plan.discard.is_empty() && plan.switch.is_none());
    case.put("primary", "Z");
    assert_eq!(case.plan().waiting, None);
}

#[test]
fn what_the_other_side_takes_for_the_end_of_a_log_is_not_believed() {
    let mut case = chosen("B", log(1, "A"), 600);
    case.file(log(1, "A"), 600)
        .end(600)
        .chain("B", &[("A", 600)])
        .offer("A", log(1, "A"), 700, true);
    let plan = case.plan();
    assert_eq!(plan.fetch, Some((log(1, "A"), host("A"))));
    assert_eq!((plan.switch, plan.waiting, plan.error), (None, None, None));
    // Nor is more of it than the primary has.
    let mut case = Case::new("B", log(1, "A"), 500);
    case.put("primary", "Z")
        .chain("A", &[("A", 700)])
        .chain("Z", &[("A", 600), ("Z", 50)])
        .chain("B", &[("A", 500)])
        .file(log(1, "A"), 600)
        .end(600)
        .offer("A", log(1, "A"), 700, true)
        .offer("Z", log(1, "A"), 600, true)
        .offer("Z", log(2, "Z"), 50, false);
    assert_eq!(case.plan().fetch, Some((log(2, "Z"), host("Z"))));
}

/// Z was made primary when it had 600 bytes of A's log 1, and so has C. Of A is known what its last version link says.
fn left_behind_with_the_primary(known_of_a: &[(&str, u64)]) -> Case {
    let mut case = Case::new("C", log(1, "A"), 600);
    case.put("data-C", "/dev/x")
        .put("syncstatus-C", "1048576")
        .put("primary", "Z")
        .file(log(1, "A"), 600)
        .end(600)
        .offer("Z", log(1, "A"), 600, true)
        .offer("Z", log(2, "Z"), 50, false)
        .chain("A", known_of_a)
        .chain("Z", &[("A", 600), ("Z", 50)])
        .chain("C", &[("A", 600)]);
    for switch in Switch::ALL {
        case.put(&format!("todo-C/{}", switch.as_str()), "1");
    }
    case
}

#[test]
fn who_stands_where_the_primary_left_a_log_follows_it() {
    for known_of_a in [&[("A", 700)][..], &[("A", 600)], &[("A", 500)], &[]] {
        let mut case = left_behind_with_the_primary(known_of_a);
        let plan = case.plan();
        assert_eq!((plan.error, plan.waiting), (None, None), "{known_of_a:?}");
        assert_eq!(plan.switch.unwrap().next, log(2, "Z"), "{known_of_a:?}");
        // Not so who stands elsewhere, or while nobody is chosen.
        case.put("primary", "(none)");
        let agreed = known_of_a == [("A", 600)];
        assert_eq!(case.plan().switch.is_some(), agreed, "{known_of_a:?}");
        case.put("primary", "Z")
            .chain("Z", &[("A", 550), ("Z", 50)]);
        assert_eq!(case.plan().switch, None, "{known_of_a:?}");
    }
}

#[test]
fn a_disk_that_was_synced_from_what_is_given_up_does_not_follow() {
    for (until, follows) in [
        ("log-000000001-A,600,0", true),
        ("log-000000001-A,650,0", false),
        ("log-000000002-A,10,0", false),
        ("log-000000002-Z,10,0", true),
        ("log-000000003-Z,10,0", true),
    ] {
        // That of C itself, or that of Z, which was made primary before it was consistent.
        for link in ["syncpos-C", "syncpos-Z"] {
            let mut case = left_behind_with_the_primary(&[("A", 700)]);
            let plan = case.put(link, until).plan();
            assert_eq!(plan.switch.is_some(), follows, "{link} {until}");
            let asks = plan.error.is_some_and(|e| e.contains("invalidate r"));
            assert_eq!(asks, !follows, "{link} {until}");
        }
    }
}
