//! The table of decisions, one situation per test.

mod branching;
mod fetching;
mod publishing;
mod serving;
mod syncing;

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
