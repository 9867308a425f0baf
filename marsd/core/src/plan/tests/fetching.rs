//! Which log is fetched from whom, and what is said where it cannot be had.

use super::*;

#[test]
fn a_secondary_fetches_and_replays_live() {
    let mut case = Case::new("B", log(1, "A"), 0);
    case.offer("A", log(1, "A"), 600, false);
    assert_eq!(case.plan().fetch, Some((log(1, "A"), host("A"))));
    assert_eq!(case.plan().replay, None);
    case.file(log(1, "A"), 600).end(600);
    assert_eq!(case.plan().replay, Some(ReplayPos::new(log(1, "A"), 0)));
    case.put("todo-B/connect", "0");
    assert_eq!(case.plan().fetch, None);
    assert!(case.plan().replay.is_some());
}

#[test]
fn a_peer_that_has_no_more_is_left_for_one_that_has() {
    let one = log(1, "A");
    let mut case = Case::new("B", one.clone(), 50);
    case.file(one.clone(), 50)
        .offer("A", one.clone(), 80, true)
        .offer("C", one.clone(), 50, false);
    case.facts.fetching = Some((one.clone(), host("C")));
    assert_eq!(case.plan().fetch, Some((one.clone(), host("A"))));
    // As long as it has something to give it is kept: who is ahead may change all the time.
    case.file(one.clone(), 40);
    assert_eq!(case.plan().fetch, Some((one, host("C"))));
}

#[test]
fn the_next_log_is_fetched_only_after_this_one_is_whole() {
    let mut case = Case::new("B", log(1, "A"), 0);
    case.file(log(1, "A"), 600)
        .offer("A", log(1, "A"), 700, true)
        .offer("A", log(2, "A"), 50, false);
    assert_eq!(case.plan().fetch.unwrap().0, log(1, "A"));
    case.file(log(1, "A"), 700);
    assert_eq!(case.plan().fetch.unwrap().0, log(2, "A"));
}

#[test]
fn a_copy_that_goes_beyond_the_end_of_a_log_is_shown_and_asks_for_nothing_more_of_it() {
    // A wrote log 1; B took the role by force with less of it, and A has left it since.
    let mut case = Case::new("C", log(1, "A"), 900);
    for link in ["data-C", "syncstatus-C"] {
        case.put(
            link,
            if link == "data-C" {
                "/dev/x"
            } else {
                "1048576"
            },
        );
    }
    for switch in Switch::ALL {
        case.put(&format!("todo-C/{}", switch.as_str()), "1");
    }
    case.put("primary", "B");
    case.file(log(1, "A"), 900).end(900);
    case.offer("B", log(1, "A"), 800, true)
        .offer("B", log(2, "B"), 0, false);
    case.offer("D", log(1, "A"), 300, false);
    let plan = case.plan();
    assert_eq!(plan.fetch, Some((log(2, "B"), host("B"))));
    assert_eq!(plan.switch, None);
    let why = plan.waiting.unwrap();
    assert!(why.contains("split brain"), "{why}");
    assert!(why.contains("'marsadm invalidate'"), "{why}");
    // Bytes of which it is not known that they are records do not count: a fetch cuts them off.
    case.facts.log_end = None;
    assert_eq!(case.plan().fetch, Some((log(1, "A"), host("B"))));
    // As long as the writer goes on with it, or anybody has more, it is waited for.
    case.end(900);
    case.offer("A", log(1, "A"), 1000, false);
    assert_eq!(case.plan().fetch, Some((log(1, "A"), host("A"))));
    assert_eq!(case.plan().waiting, None);
}

#[test]
fn a_pause_stops_the_transfer_says_why_and_lets_replay_go_on() {
    let mut case = Case::new("B", log(1, "A"), 100);
    case.file(log(1, "A"), 200)
        .end(200)
        .offer("A", log(1, "A"), 300, false)
        .version("B", 100);
    let free = case.plan();
    assert_eq!(free.fetch, Some((log(1, "A"), host("A"))));
    case.facts.paused = Some("the load is high".into());
    let paused = case.plan();
    assert_eq!((paused.fetch, paused.sync), (None, None));
    assert_eq!(paused.waiting.as_deref(), Some("the load is high"));
    assert_eq!(paused.replay, free.replay);
    assert!(paused.replay.is_some());

    let mut case = Case::new("B", log(1, "A"), 0);
    case.put("syncstatus-B", "4096")
        .put("connect-B", "A")
        .put("replay-A", "log-000000001-A,0,0")
        .offer("A", log(1, "A"), 0, false);
    assert!(case.plan().sync.is_some());
    case.facts.paused = Some("the load is high".into());
    assert_eq!(case.plan().sync, None);
    assert_eq!(case.plan().waiting.as_deref(), Some("the load is high"));
    // What cannot run anyhow does not wait for the load.
    case.put("todo-B/connect", "0");
    assert_eq!(case.plan().waiting, None);
}

#[test]
fn a_damaged_copy_is_fetched_again_and_a_damaged_source_is_left_out() {
    let mut case = Case::new("B", log(1, "A"), 300);
    case.file(log(1, "A"), 500).end(500);
    case.offer("A", log(1, "A"), 500, true)
        .offer("C", log(1, "A"), 500, true);
    assert_eq!(case.plan().fetch, None);
    case.facts.damaged = true;
    assert_eq!(case.plan().fetch, Some((log(1, "A"), host("A"))));
    let mut bad = |peer: &str, is_proven: bool, rests: bool| {
        let copy = BadCopy {
            at: 400,
            cause: "wrong checksum".into(),
            is_proven,
            rests,
        };
        case.facts.bad_copies.insert(host(peer), copy);
        (case.plan().fetch, case.plan().error)
    };
    let from = |peer: &str| Some((log(1, "A"), host(peer)));
    assert_eq!(bad("A", false, false), (from("C"), None));
    assert!(bad("C", false, false).0.is_some(), "it may be mended");
    assert_eq!(bad("A", true, true), (from("C"), None));
    assert_eq!(
        bad("C", true, false),
        (from("C"), None),
        "the end is not known"
    );
    case.end(400);
    let error = case.plan().error.unwrap();
    assert!(error.contains("log-000000001-A is damaged at byte 400, on A too (wrong checksum)"));
    assert!(case.plan().replay.is_some(), "what is whole is replayed");
    case.offer("D", log(1, "A"), 450, false);
    assert_eq!((case.plan().fetch, case.plan().error), (from("D"), None));
}

#[test]
fn what_follows_a_log_that_is_damaged_everywhere_is_not_fetched() {
    let mut case = Case::new("B", log(1, "A"), 300);
    case.file(log(1, "A"), 300).end(300);
    case.offer("A", log(1, "A"), 500, true)
        .offer("A", log(2, "A"), 80, false);
    let copy = BadCopy {
        at: 300,
        cause: "wrong checksum".into(),
        is_proven: true,
        rests: true,
    };
    case.facts.bad_copies.insert(host("A"), copy);
    let plan = case.plan();
    assert_eq!((plan.fetch, plan.switch), (None, None));
    // Who is to be primary without it takes over.
    case.put("primary", "B");
    case.facts.offers.get_mut(&host("A")).unwrap().pop();
    assert_eq!(case.plan().switch.unwrap().next, log(2, "B"));
}

#[test]
fn a_log_that_is_nowhere_is_named() {
    let mut case = Case::new("B", log(1, "A"), 300);
    case.offer("A", log(2, "A"), 80, false);
    let waiting = case.plan().waiting.unwrap();
    assert!(
        waiting.contains("log-000000001-A is missing here"),
        "{waiting}"
    );
    assert!(waiting.contains("'marsadm invalidate r'"), "{waiting}");
    case.offer("C", log(1, "A"), 400, true);
    assert_eq!(case.plan().waiting, None);
    assert_eq!(case.plan().fetch, Some((log(1, "A"), host("C"))));
    // A part of it is here again, but not yet what was replayed.
    case.file(log(1, "A"), 100).end(100);
    let plan = case.plan();
    assert_eq!((plan.error, plan.replay), (None, None));
    assert!(plan.waiting.unwrap().contains("fetched again"));
}

#[test]
fn an_empty_log_is_not_offered_as_long_as_another_one_of_its_number() {
    // A has rotated when B had just become primary, and follows B.
    let mut case = Case::new("A", log(2, "B"), 700);
    case.file(log(1, "A"), 900)
        .file(log(2, "A"), 0)
        .file(log(2, "B"), 700);
    let view = case.tree.resource(&case.res);
    let pos = case.facts.pos.clone().unwrap();
    let offers = offers_of_files(view, &pos, Some(700), &case.me);
    let offered: Vec<_> = offers
        .iter()
        .map(|o| (o.log.clone(), o.durable, o.complete))
        .collect();
    assert_eq!(
        offered,
        [
            (log(1, "A"), 900, true),
            (log(2, "A"), 0, true),
            (log(2, "B"), 700, false),
        ]
    );
}

#[test]
fn a_log_that_was_left_early_is_not_offered_as_whole() {
    // B was invalidated with 500 of the 700 bytes of log 1, and began anew at log 2.
    let mut case = Case::new("B", log(2, "A"), 0);
    case.file(log(1, "A"), 500).version("B", 700);
    let whole = |case: &Case| {
        let view = case.tree.resource(&case.res);
        let pos = case.facts.pos.clone().unwrap();
        offers_of_files(view, &pos, Some(0), &case.me)[0].complete
    };
    assert!(!whole(&case));
    case.file(log(1, "A"), 700);
    assert!(whole(&case));
}
