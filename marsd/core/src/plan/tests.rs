//! The table of decisions, one situation per test.

use alloc::format;
use alloc::string::ToString;

use super::*;
use crate::control::{Counters, LogStatus, ShimState};
use crate::link::{ActualKey, LinkPath, ResourceLink};
use crate::name::ResourceName;
use crate::stamp::Stamp;
use crate::tree::Tree;

struct Case {
    tree: Tree,
    res: ResourceName,
    facts: Facts,
    me: HostName,
}

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn log(seq: u64, name: &str) -> LogName {
    LogName::new(seq, &host(name))
}

impl Case {
    /// A member `me` of a resource of 1 MiB, synced, all switches on, at `pos` of `log`, primary `A`.
    fn new(me: &str, at: LogName, pos: u64) -> Self {
        let res = ResourceName::new("r").unwrap();
        let facts = Facts {
            pos: Some(ReplayPos::new(at, pos)),
            ..Facts::default()
        };
        let mut case = Self {
            tree: Tree::default(),
            res,
            facts,
            me: host(me),
        };
        case.put("size", "1048576").put("primary", "A");
        for node in ["A", "B"] {
            case.put(&format!("data-{node}"), "/dev/x")
                .put(&format!("syncstatus-{node}"), "1048576");
            for switch in Switch::ALL {
                case.put(&format!("todo-{node}/{}", switch.as_str()), "1");
            }
        }
        case
    }

    fn put(&mut self, link: &str, value: &str) -> &mut Self {
        let path = LinkPath::parse(&format!("resource-r/{link}")).unwrap();
        self.tree.put(path, value, Stamp::default()).unwrap();
        self
    }

    fn file(&mut self, name: LogName, size: u64) -> &mut Self {
        self.tree
            .logs
            .entry(self.res.clone())
            .or_default()
            .insert(name, size);
        self
    }

    fn end(&mut self, end: u64) -> &mut Self {
        self.facts.log_end = Some(end);
        self
    }

    fn offer(&mut self, peer: &str, log: LogName, durable: u64, complete: bool) -> &mut Self {
        self.facts
            .offers
            .entry(host(peer))
            .or_default()
            .push(LogOffer {
                log,
                durable,
                complete,
            });
        self
    }

    fn version(&mut self, node: &str, pos: u64) -> &mut Self {
        let at = ReplayPos::new(log(1, "A"), pos);
        let value = chain_version(self.tree.resource(&self.res), &self.me, &at).unwrap();
        self.put(&format!("version-000000001-{node}"), &value)
    }

    fn plan(&self) -> Plan {
        plan(self.tree.resource(&self.res), &self.facts, &self.me)
    }

    fn shim(&mut self, state: ShimState, logs: &[(LogName, bool)]) -> &mut Self {
        let logs = logs
            .iter()
            .map(|(log, complete)| LogStatus {
                log: log.clone(),
                logged: 0,
                durable: 0,
                written_back: 0,
                written_back_stamp: Stamp::default(),
                complete: *complete,
            })
            .collect();
        self.facts.shim = ShimFacts::Up(ShimStatus {
            state,
            device: Some("/dev/mars/r".into()),
            size_bytes: 1_048_576,
            logs,
            error: None,
            counters: Counters::default(),
        });
        self
    }
}

#[test]
fn who_has_not_joined_does_nothing() {
    let mut case = Case::new("A", log(1, "A"), 0);
    case.facts.pos = None;
    assert_eq!(case.plan(), Plan::default());
}

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
fn a_log_of_unknown_end_is_replayed_to_find_it() {
    let mut case = Case::new("A", log(1, "A"), 100);
    case.file(log(1, "A"), 500);
    assert_eq!(case.plan().replay, Some(ReplayPos::new(log(1, "A"), 100)));
    case.put("todo-A/allow-replay", "0");
    assert_eq!(case.plan(), Plan::default());
}

#[test]
fn a_log_shorter_than_its_position_is_an_error() {
    let mut case = Case::new("A", log(1, "A"), 500);
    case.file(log(1, "A"), 400).end(400);
    assert!(case.plan().error.unwrap().contains("byte 500"));
}

#[test]
fn detached_means_nothing_runs_and_a_shim_stops() {
    let mut case = Case::new("A", log(1, "A"), 0);
    case.file(log(1, "A"), 0).end(0).put("todo-A/attach", "0");
    assert_eq!(case.plan(), Plan::default());
    case.shim(ShimState::Logging, &[(log(1, "A"), false)]);
    assert_eq!(case.plan().shim, ShimPlan::Stop);
}

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
fn the_switch_wants_equal_version_links() {
    let mut case = Case::new("B", log(1, "A"), 700);
    case.file(log(1, "A"), 700)
        .end(700)
        .offer("A", log(1, "A"), 700, true)
        .offer("A", log(2, "A"), 0, false);
    assert!(
        case.plan()
            .waiting
            .unwrap()
            .contains("version-000000001-A says none")
    );
    case.version("A", 700);
    assert_eq!(case.plan().switch.unwrap().next, log(2, "A"));
    let other = "00000000000000000000000000000000,A,700,0";
    case.put("version-000000001-A", other);
    assert!(case.plan().error.unwrap().contains("SPLIT BRAIN at log 1"));
}

#[test]
fn the_writer_of_the_next_log_must_agree_too() {
    // A crashed, B was forced to primary at byte 500 and began log 2; A has 700 bytes of its own log 1.
    let mut case = Case::new("A", log(1, "A"), 700);
    case.put("primary", "B")
        .file(log(1, "A"), 700)
        .end(700)
        .offer("B", log(2, "B"), 50, false);
    case.version("B", 500);
    let plan = case.plan();
    assert_eq!(plan.switch, None);
    assert!(plan.waiting.unwrap().contains("split brain"));
}

#[test]
fn two_logs_of_one_number_stop_the_start_but_not_a_running_primary() {
    let mut case = Case::new("A", log(1, "A"), 700);
    case.file(log(1, "A"), 700)
        .file(log(2, "A"), 0)
        .offer("B", log(2, "B"), 50, false);
    assert!(case.plan().error.unwrap().contains("SPLIT BRAIN"));
    case.shim(ShimState::Logging, &[(log(2, "A"), false)]);
    assert_eq!(case.plan(), Plan::default());
}

#[test]
fn an_empty_log_of_a_former_primary_is_given_up() {
    let digest = |c: char| alloc::string::String::from_iter([c; 32]);
    let (mine, theirs) = (log(2, "B"), log(2, "A"));
    let mut case = Case::new("B", mine.clone(), 0);
    case.file(mine.clone(), 0)
        .end(0)
        .offer("A", theirs.clone(), 50, false)
        .put("version-000000001-A", &format!("{},A,70,0", digest('a')))
        .put("version-000000001-B", &format!("{},A,90,0", digest('b')));
    // The other side began before what is on the disk here.
    assert_eq!(case.plan().instead, None);
    case.put("version-000000001-B", &format!("{},A,70,0", digest('a')));
    assert_eq!(case.plan().instead, Some(theirs.clone()));
    assert_eq!(case.plan().error, None);
    // The primary of the two keeps its own.
    case.put("primary", "B");
    assert_eq!(case.plan().instead, None);
    case.put("primary", "A").file(mine, 10);
    assert!(case.plan().error.unwrap().contains("SPLIT BRAIN"));
}

#[test]
fn an_empty_log_of_another_node_stops_nobody() {
    let mut case = Case::new("C", log(2, "Z"), 0);
    case.put("data-C", "/dev/x")
        .put("syncstatus-C", "1048576")
        .put("primary", "Z")
        .offer("A", log(2, "A"), 0, false)
        .offer("Z", log(2, "Z"), 50, false);
    for switch in Switch::ALL {
        case.put(&format!("todo-C/{}", switch.as_str()), "1");
    }
    assert_eq!(case.plan().error, None);
    assert_eq!(case.plan().fetch, Some((log(2, "Z"), host("Z"))));
}

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
fn what_was_said_of_the_role_counts_if_it_is_newer_than_the_role() {
    let mut case = Case::new("A", log(1, "A"), 0);
    let knows = |case: &Case| knows_primary(case.tree.resource(&case.res), &host("A"));
    assert!(!knows(&case), "nothing was said");
    for (set, said, counts) in [(5, 4, false), (5, 5, false), (5, 6, true), (7, 6, false)] {
        for (link, secs) in [("primary", set), ("actual-A/is-primary", said)] {
            let path = LinkPath::parse(&format!("resource-r/{link}")).unwrap();
            let value = if link == "primary" { "(none)" } else { "0" };
            case.tree.put(path, value, Stamp::new(secs, 0)).unwrap();
        }
        assert_eq!(knows(&case), counts, "{set} {said}");
    }
}

#[test]
fn what_a_killed_daemon_said_of_its_work_is_taken_back() {
    let mut case = Case::new("B", log(1, "A"), 0);
    let links = ["actual-B/logfile-update", "actual-B/copy-syncstatus-B"];
    let said = |case: &Case| {
        let view = case.tree.resource(&case.res);
        let out = publish(view, &case.facts, &Published::default(), &case.me);
        let says = |path: &str| {
            let found = out.iter().find(|(link, _)| {
                LinkPath::res(&case.res, link.clone()).to_string() == format!("resource-r/{path}")
            });
            found.map(|(_, value)| value.clone())
        };
        links.map(says)
    };
    assert_eq!(said(&case), [None, None]);
    for link in links {
        case.put(link, "1");
    }
    assert_eq!(said(&case), [Some("0".into()), Some("0".into())]);
}

#[test]
fn the_end_of_the_old_primary_is_published_before_the_position() {
    let case = Case::new("A", log(1, "A"), 8360);
    let at = ReplayPos::new(log(1, "A"), 0);
    let links = position_links(case.tree.resource(&case.res), &at, 8360, &case.me);
    assert_eq!(links[0].0, ResourceLink::Version(1, host("A")));
    assert_eq!(
        links[0].1,
        crate::version::VersionValue::chain(&host("A"), 1, 8360, "").to_string()
    );
    assert_eq!(
        links[1],
        (
            ResourceLink::Replay(host("A")),
            "log-000000001-A,0,0".to_string()
        )
    );
}

#[test]
fn who_came_back_stays_primary_until_its_log_is_read() {
    let mut case = Case::new("A", log(1, "A"), 0);
    case.put("actual-A/is-primary", "1").file(log(1, "A"), 8360);
    let links = |case: &Case| {
        let view = case.tree.resource(&case.res);
        publish(view, &case.facts, &Published::default(), &case.me)
    };
    let primary = |case: &Case| {
        let is =
            |link: &ResourceLink| matches!(link, ResourceLink::Actual(_, ActualKey::IsPrimary));
        let all = links(case);
        let at = all.iter().position(|(link, _)| is(link)).unwrap();
        let replay = all
            .iter()
            .position(|(link, _)| matches!(link, ResourceLink::Replay(_)));
        assert_eq!(all[at].1 == "1", at < replay.unwrap(), "{all:?}");
        all[at].1.clone()
    };
    assert_eq!(primary(&case), "1");
    case.end(8360);
    assert_eq!(primary(&case), "0");
    // What was never primary has nothing of its own to tell.
    let mut case = Case::new("A", log(1, "A"), 0);
    case.file(log(1, "A"), 8360);
    assert_eq!(primary(&case), "0");
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
