//! Gaps in the logs: who marks itself, when a gap is crossed, and when everything is synced.

use alloc::format;
use alloc::string::{String, ToString};

use super::*;
use crate::link::LinkPath;
use crate::name::ResourceName;
use crate::stamp::Stamp;
use crate::tree::Tree;
use crate::version::VersionValue;

const SIZE: u64 = 1 << 20;

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

/// The versions of A: log 1 ends at 500, 2 is a gap, 3 has begun.
fn versions() -> [String; 3] {
    let one = VersionValue::chain(&host("A"), 1, 500, "").to_string();
    let two = VersionValue::chain(&host("A"), 2, 0, &one).to_string();
    let three = VersionValue::chain(&host("A"), 3, 0, &two).to_string();
    [one, two, three]
}

impl Case {
    /// B at byte `pos` of log 1, all synced; A has made the gap 2 and logs to 3.
    fn new(pos: u64) -> Self {
        let mut case = Self {
            tree: Tree::default(),
            res: ResourceName::new("r").unwrap(),
            facts: Facts {
                pos: Some(ReplayPos::new(log(1, "A"), pos)),
                log_end: Some(500),
                ..Facts::default()
            },
            me: host("B"),
        };
        case.put("size", &SIZE.to_string()).put("primary", "A");
        case.put("connect-B", "A");
        for node in ["A", "B"] {
            case.put(&format!("data-{node}"), "/dev/x")
                .put(&format!("syncstatus-{node}"), &SIZE.to_string());
            for switch in Switch::ALL {
                case.put(&format!("todo-{node}/{}", switch.as_str()), "1");
            }
        }
        for (seq, value) in (1..).zip(versions()) {
            case.put(&format!("version-00000000{seq}-A"), &value);
        }
        case.put("replay-A", "log-000000003-A,0,0")
            .put("replay-B", &format!("log-000000001-A,{pos},0"))
            .put("unlogged-A", "000000002");
        case.file(1, 500);
        case.offer("A", 1, 500, true).offer("A", 3, 0, false);
        case
    }

    fn put(&mut self, link: &str, value: &str) -> &mut Self {
        let path = LinkPath::parse(&format!("resource-r/{link}")).unwrap();
        self.tree.put(path, value, Stamp::default()).unwrap();
        self
    }

    fn file(&mut self, seq: u64, size: u64) -> &mut Self {
        let logs = self.tree.logs.entry(self.res.clone()).or_default();
        logs.insert(log(seq, "A"), size);
        self
    }

    fn offer(&mut self, peer: &str, seq: u64, durable: u64, complete: bool) -> &mut Self {
        let offers = self.facts.offers.entry(host(peer)).or_default();
        offers.push(LogOffer {
            log: log(seq, "A"),
            durable,
            complete,
        });
        self
    }

    fn marked(&mut self, synced: u64) -> &mut Self {
        self.put("syncbase-B", &format!("000000002,{synced}"))
            .put("syncstatus-B", "0")
    }

    fn plan(&self) -> Plan {
        plan(self.tree.resource(&self.res), &self.facts, &self.me)
    }
}

#[test]
fn a_gap_ahead_marks_the_disk_once_and_replay_goes_on() {
    let mut case = Case::new(100);
    let mark = SyncBase {
        gap: 2,
        synced: SIZE,
    };
    assert_eq!(case.plan().mark, Some(mark));
    let plan = case.marked(SIZE).plan();
    assert_eq!((plan.mark, plan.sync, plan.error), (None, None, None));
    assert_eq!(plan.replay, case.facts.pos);
    let past = Case {
        facts: Facts {
            pos: Some(ReplayPos::new(log(3, "A"), 0)),
            ..Facts::default()
        },
        ..Case::new(0)
    };
    assert_eq!(past.plan().mark, None);
}

#[test]
fn at_the_gap_only_its_regions_are_synced_from_its_maker() {
    let mut case = Case::new(500);
    let sync = SyncFrom {
        peer: host("A"),
        start: 0,
        gap: Some(GapSync {
            seq: 2,
            synced: SIZE,
        }),
    };
    assert_eq!(case.marked(SIZE).plan().sync, Some(sync));
    case.tree
        .put(LinkPath::Jammed(host("A")), "1", Stamp::default())
        .unwrap();
    let jammed = case.plan();
    assert_eq!((jammed.sync, jammed.rebase), (None, None));
    assert!(jammed.waiting.unwrap().contains("jammed-A"));
    let mut behind = Case::new(500);
    behind.put("replay-A", "log-000000001-A,500,0");
    assert_eq!(behind.marked(SIZE).plan().sync, None);
}

#[test]
fn what_is_synced_goes_across_the_gap_and_no_further_than_it() {
    let mut case = Case::new(500);
    case.put("syncbase-B", "000000002,1048576");
    let step = SwitchStep {
        finished: ReplayPos::new(log(1, "A"), 500),
        next: log(3, "A"),
    };
    assert_eq!(case.plan().switch, Some(step));
    // Log 3 is here, its writes are not to be applied before the gap is crossed.
    let mut eager = Case::new(500);
    eager.file(3, 4180);
    let plan = eager.marked(SIZE).plan();
    assert_eq!((plan.switch, plan.replay, plan.error), (None, None, None));
    assert!(plan.sync.is_some());
    let mut unknown = Case::new(500);
    unknown.put("unlogged-A", "none").file(3, 4180);
    let plan = unknown.plan();
    assert_eq!((plan.switch, plan.replay), (None, None));
    assert!(plan.error.unwrap().contains("not consecutive"));
}

#[test]
fn another_history_is_a_split_brain() {
    let mut case = Case::new(600);
    case.facts.log_end = Some(600);
    let plan = case.marked(SIZE).plan();
    assert!(plan.error.unwrap().contains("SPLIT BRAIN"));
    assert_eq!((plan.sync, plan.switch, plan.rebase), (None, None, None));
    let mut twin = Case::new(500);
    twin.facts
        .offers
        .entry(host("C"))
        .or_default()
        .push(LogOffer {
            log: log(2, "C"),
            durable: 100,
            complete: false,
        });
    assert!(
        twin.marked(SIZE)
            .plan()
            .error
            .unwrap()
            .contains("SPLIT BRAIN")
    );
}

#[test]
fn without_base_or_logs_everything_is_synced_from_behind_the_gap() {
    let rebase = RebaseStep {
        log: log(3, "A"),
        previous: versions()[1].clone(),
    };
    let mut case = Case::new(500);
    assert_eq!(case.marked(0).plan().rebase, Some(rebase.clone()));
    // Log 1 is not whole here and nobody has it any more.
    let mut lost = Case::new(100);
    lost.file(1, 100).facts.log_end = Some(100);
    lost.facts.offers.clear();
    lost.marked(SIZE).offer("A", 3, 0, false);
    assert_eq!(lost.plan().rebase, Some(rebase));
    // As long as nobody is connected nothing is known to be lost.
    lost.facts.offers.clear();
    assert_eq!(lost.plan().rebase, None);
    lost.facts.offers.insert(host("A"), Vec::new());
    assert_eq!(lost.plan().rebase, None);
}

#[test]
fn the_map_of_a_node_that_is_gone_is_not_waited_for() {
    let mut case = Case::new(500);
    case.put("primary", "C").put("connect-B", "C");
    case.put("syncstatus-C", "1048576")
        .put("replay-C", "log-000000003-A,9,0")
        .put("version-000000002-C", &versions()[1]);
    case.facts.offers.clear();
    case.marked(SIZE).offer("C", 3, 9, false);
    let plan = case.plan();
    assert_eq!(plan.rebase.map(|r| r.log), Some(log(3, "A")));
    let plan = case.offer("A", 3, 9, true).plan();
    assert!(plan.rebase.is_none() && plan.sync.is_some());
}

/// A, whose writes went past the logs behind byte 500 of log 1.
fn passing() -> Case {
    let mut case = Case::new(500);
    case.me = host("A");
    case.facts.offers.clear();
    case.facts.passed = Some(log(1, "A"));
    case
}

fn decide(case: &mut Case) {
    let path = LinkPath::parse("resource-r/primary").unwrap();
    case.tree.put(path, "A", Stamp::new(9, 0)).unwrap();
}

#[test]
fn a_primary_logs_again_only_by_decision_and_with_room_and_leaves_the_gap_out() {
    let at = ReplayPos::new(log(1, "A"), 500);
    let mut case = passing();
    assert_eq!(case.plan().shim, ShimPlan::Pass(at.clone()));
    decide(&mut case);
    let step = SwitchStep {
        finished: at.clone(),
        next: log(3, "A"),
    };
    assert_eq!(case.plan().switch, Some(step.clone()));
    case.facts.exhausted = true;
    assert_eq!(case.plan().shim, ShimPlan::Pass(at.clone()));
    // Died while it went back to logging: the next log is here.
    let mut died = passing();
    died.file(3, 4180);
    assert_eq!(died.plan().switch, Some(step));
    // A successor of a killed shim goes on as it was.
    let mut killed = passing();
    killed.facts.shim = ShimFacts::Down(Resume {
        loop_device: "/dev/loop0".into(),
    });
    assert_eq!(killed.plan().shim, ShimPlan::Pass(at.clone()));
    // Never logged here, and no room to begin.
    let mut full = Case::new(500);
    full.me = host("B");
    full.put("primary", "B").put("unlogged-A", "none");
    full.facts.offers.clear();
    full.facts.full = true;
    assert_eq!(full.plan().shim, ShimPlan::Pass(at));
}
