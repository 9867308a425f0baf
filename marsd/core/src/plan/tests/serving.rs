//! When the shim begins, goes on, rotates and stops.

use super::*;

#[test]
fn a_primary_with_an_empty_own_log_starts_logging() {
    let mut case = Case::new("A", log(1, "A"), 0);
    case.file(log(1, "A"), 0).end(0);
    assert_eq!(
        case.plan().shim,
        ShimPlan::Start(ReplayPos::new(log(1, "A"), 0))
    );
    assert_eq!(case.plan().replay, None);
}

#[test]
fn a_primary_never_appends_to_an_old_log() {
    let mut case = Case::new("A", log(1, "A"), 500);
    case.file(log(1, "A"), 500).end(500);
    let plan = case.plan();
    assert_eq!(plan.shim, ShimPlan::Keep);
    assert_eq!(plan.switch.unwrap().next, log(2, "A"));
}

#[test]
fn a_running_shim_rotates_one_log_at_a_time() {
    let mut case = Case::new("A", log(1, "A"), 0);
    case.file(log(1, "A"), 600)
        .file(log(2, "A"), 0)
        .shim(ShimState::Logging, &[(log(1, "A"), false)]);
    assert_eq!(case.plan().shim, ShimPlan::Rotate(log(2, "A")));
    case.file(log(3, "A"), 0).shim(
        ShimState::Logging,
        &[(log(1, "A"), false), (log(2, "A"), false)],
    );
    assert_eq!(case.plan().shim, ShimPlan::Keep);
    case.shim(
        ShimState::Logging,
        &[(log(1, "A"), true), (log(2, "A"), false)],
    );
    assert_eq!(case.plan().shim, ShimPlan::Rotate(log(3, "A")));
}

#[test]
fn a_dead_shim_is_succeeded_where_the_disk_stands() {
    let mut case = Case::new("A", log(1, "A"), 300);
    case.facts.shim = ShimFacts::Down(Resume {
        loop_device: "/dev/loop0".into(),
    });
    case.file(log(1, "A"), 600);
    assert_eq!(
        case.plan().shim,
        ShimPlan::Start(ReplayPos::new(log(1, "A"), 300))
    );
    case.file(log(2, "A"), 100);
    assert_eq!(case.plan().replay, Some(ReplayPos::new(log(1, "A"), 300)));
    case.facts.pos = Some(ReplayPos::new(log(1, "A"), 600));
    case.end(600);
    assert_eq!(case.plan().switch.unwrap().next, log(2, "A"));
}

#[test]
fn a_shim_that_a_killed_daemon_has_only_half_begun_is_not_waited_for() {
    let at = ReplayPos::new(log(2, "A"), 0);
    let mut case = Case::new("A", at.log.clone(), 0);
    let case = case.shim(ShimState::Idle, &[]);
    assert_eq!(case.plan().shim, ShimPlan::Stop, "it has no disk");
    case.shim(ShimState::Attached, &[]);
    assert_eq!(case.plan().shim, ShimPlan::Start(at.clone()));
    case.facts.unheard = true;
    assert_eq!(case.plan().shim, ShimPlan::Keep);
    assert!(case.plan().waiting.is_some());
    case.facts.unheard = false;
    case.facts.passed = Some(at.log.clone());
    assert_eq!(case.plan().shim, ShimPlan::Pass(at));
    // The position was set anew while no daemon ran.
    case.facts.pos = Some(ReplayPos::new(log(2, "B"), 0));
    assert_eq!(case.plan().shim, ShimPlan::Stop);
    let mut secondary = Case::new("B", log(2, "B"), 0);
    for state in [ShimState::Idle, ShimState::Attached] {
        assert_eq!(secondary.shim(state, &[]).plan().shim, ShimPlan::Stop);
    }
}

#[test]
fn a_primary_goes_on_without_its_own_log_only_by_order() {
    let mut case = Case::new("A", log(1, "A"), 300);
    let plan = case.plan();
    assert!(plan.error.unwrap().contains("'marsadm log-rotate r' here"));
    assert_eq!((plan.switch, plan.shim), (None, ShimPlan::Keep));
    // What log-rotate makes.
    case.file(log(2, "A"), 0);
    let step = case.plan().switch.unwrap();
    assert_eq!((step.finished.pos, step.next), (300, log(2, "A")));
}

#[test]
fn a_primary_begins_when_it_has_heard_the_others_but_what_it_serves_it_serves_on() {
    let mut case = Case::new("A", log(1, "A"), 0);
    case.file(log(1, "A"), 0).end(0);
    case.facts.unheard = true;
    assert_eq!(case.plan().shim, ShimPlan::Keep);
    assert!(case.plan().waiting.is_some() && case.plan().switch.is_none());
    case.facts.unheard = false;
    assert!(matches!(case.plan().shim, ShimPlan::Start(_)));
    case.facts.unheard = true;
    case.shim(ShimState::Logging, &[(log(1, "A"), false)]);
    assert_eq!(case.plan().shim, ShimPlan::Keep);
    let mut secondary = Case::new("B", log(1, "A"), 0);
    secondary.facts.unheard = true;
    secondary.offer("A", log(1, "A"), 100, false);
    assert!(secondary.plan().fetch.is_some());
}

#[test]
fn at_the_end_of_the_daemon_nothing_begins_and_the_device_goes_if_it_can() {
    let mut case = Case::new("A", log(1, "A"), 0);
    case.file(log(1, "A"), 0).end(0);
    assert!(matches!(case.plan().shim, ShimPlan::Start(_)));
    case.facts.stopping = true;
    assert_eq!(case.plan(), Plan::default());
    case.shim(ShimState::Logging, &[(log(1, "A"), false)]);
    assert_eq!(case.plan().shim, ShimPlan::Stop);
    case.shim(ShimState::Draining, &[(log(1, "A"), false)]);
    assert_eq!(case.plan().shim, ShimPlan::Keep);
    // A device that waits for a successor would fail with the daemon.
    let loop_device = "/dev/loop0".to_string();
    case.facts.shim = ShimFacts::Down(Resume { loop_device });
    assert!(matches!(case.plan().shim, ShimPlan::Start(_)));

    let mut secondary = Case::new("B", log(1, "A"), 0);
    secondary.offer("A", log(1, "A"), 100, false);
    assert!(secondary.plan().fetch.is_some());
    secondary.facts.stopping = true;
    assert_eq!(secondary.plan(), Plan::default());
}
