//! Which orders to compare are carried out, and which logs explain a difference.

use alloc::format;
use alloc::string::ToString;

use super::*;
use crate::link::{LinkPath, Switch};
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

fn pos(seq: u64, name: &str, pos: u64) -> ReplayPos {
    ReplayPos::new(LogName::new(seq, &host(name)), pos)
}

impl Case {
    /// A secondary B, synced and at byte 100 of log 2, that is ordered to compare itself with the connected primary A.
    fn new() -> Self {
        let mut case = Self {
            tree: Tree::default(),
            res: ResourceName::new("r").unwrap(),
            facts: Facts {
                pos: Some(pos(2, "A", 100)),
                ..Facts::default()
            },
            me: host("B"),
        };
        case.facts.offers.insert(host("A"), Vec::new());
        case.put("size", "1048576").put("primary", "A");
        for node in ["A", "B"] {
            case.put(&format!("data-{node}"), "/dev/x")
                .put(&format!("syncstatus-{node}"), "1048576")
                .put(&format!("replay-{node}"), "log-000000002-A,100,0");
            for switch in Switch::ALL {
                case.put(&format!("todo-{node}/{}", switch.as_str()), "1");
            }
        }
        case.put("todo-B/verify", "5,check");
        case
    }

    fn put(&mut self, link: &str, value: &str) -> &mut Self {
        self.put_path(&format!("resource-r/{link}"), value)
    }

    fn put_path(&mut self, path: &str, value: &str) -> &mut Self {
        let path = LinkPath::parse(path).unwrap();
        self.tree.put(path, value, Stamp::default()).unwrap();
        self
    }

    fn file(&mut self, seq: u64, name: &str, size: u64) -> &mut Self {
        let logs = self.tree.logs.entry(self.res.clone()).or_default();
        logs.insert(LogName::new(seq, &host(name)), size);
        self
    }

    fn step(&self) -> VerifyStep {
        plan_verify(self.tree.resource(&self.res), &self.facts, &self.me)
    }

    fn refused(&self, why: &str) {
        match self.step() {
            VerifyStep::Refuse(order, text) => {
                assert!(order.number == 5 && text.contains(why), "{text}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }

    fn logs(&self, from: &ReplayPos, to: &ReplayPos) -> Result<Option<Vec<LogSpan>>, String> {
        let view = self.tree.resource(&self.res);
        logs_between(view, &self.facts, &self.me, from, to)
    }
}

#[test]
fn an_order_runs_until_it_is_answered_for_good() {
    let mut case = Case::new();
    let order = VerifyOrder::parse("5,check").unwrap();
    let run = VerifyStep::Run(order, host("A"));
    assert_eq!(case.step(), run);
    for (answer, runs) in [
        ("4,done,0,0,0,none", true),
        ("5,running,4096", true),
        ("5,done,0,0,0,none", false),
        ("5,failed,x", false),
        ("6,running,0", false),
    ] {
        case.put("actual-B/verify", answer);
        let want = if runs {
            run.clone()
        } else {
            VerifyStep::Nothing
        };
        assert_eq!(case.step(), want, "{answer}");
    }
    let mut none = Case::new();
    none.tree
        .links
        .remove(&LinkPath::parse("resource-r/todo-B/verify").unwrap());
    assert_eq!(none.step(), VerifyStep::Nothing);
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason() {
    for (link, value, why) in [
        ("todo-B/verify", "5,stop", "stopped by order"),
        ("primary", "B", "B is primary"),
        ("todo-B/attach", "0", "attach is off"),
        ("todo-B/connect", "0", "connect is off"),
        ("syncstatus-B", "4096", "not synced"),
        ("syncpos-B", "log-000000002-A,101,0", "not yet replayed"),
        ("primary", "(none)", "no peer"),
    ] {
        Case::new().put(link, value).refused(why);
    }
    let mut failed = Case::new();
    failed.facts.failed = Some("the disk is broken".into());
    failed.refused("the disk is broken");
    let mut jammed = Case::new();
    jammed.put_path("jammed-A", "1").refused("stopped logging");
}

#[test]
fn the_primary_is_the_peer_or_else_the_one_to_sync_from_and_may_be_waited_for() {
    let mut case = Case::new();
    case.put("syncstatus-A", "4096");
    assert!(matches!(case.step(), VerifyStep::Wait(_, why) if why.contains("consistent")));
    case.put("syncstatus-A", "1048576");
    case.facts.offers.clear();
    assert!(matches!(case.step(), VerifyStep::Wait(_, why) if why.contains("A is not connected")));
    case.put("connect-B", "C").put("syncstatus-C", "1048576");
    case.put("replay-C", "log-000000002-A,90,0");
    assert!(matches!(case.step(), VerifyStep::Wait(_, why) if why.contains("A is not connected")));
    case.facts.offers.insert(host("C"), Vec::new());
    assert!(matches!(case.step(), VerifyStep::Run(_, peer) if peer == host("C")));
}

#[test]
fn all_records_behind_the_lower_position_are_wanted_from_every_log_that_is_here() {
    let mut case = Case::new();
    case.file(1, "A", 500).file(2, "A", 300);
    let spans = case
        .logs(&pos(1, "A", 400), &pos(2, "A", 300))
        .unwrap()
        .unwrap();
    let spans: Vec<_> = spans.iter().map(|s| (s.log.seq, s.from, s.to)).collect();
    assert_eq!(spans, [(1, 400, 0), (2, 0, 300)]);
    // Not yet here: more of the last log, or whether it is complete.
    assert_eq!(case.logs(&pos(1, "A", 400), &pos(2, "A", 301)), Ok(None));
    assert_eq!(case.logs(&pos(2, "A", 100), &pos(3, "A", 0)), Ok(None));
    case.file(3, "A", 0);
    assert_eq!(case.logs(&pos(2, "A", 100), &pos(3, "A", 0)), Ok(None));
    let offer = super::super::LogOffer {
        log: LogName::new(2, &host("A")),
        durable: 300,
        complete: true,
    };
    case.facts.offers.insert(host("A"), [offer].into());
    let spans = case
        .logs(&pos(2, "A", 100), &pos(3, "A", 0))
        .unwrap()
        .unwrap();
    assert_eq!(spans.len(), 2);
    // What lies behind the end may have been applied by a replay that was killed.
    case.file(3, "A", 700);
    let spans = case
        .logs(&pos(2, "A", 100), &pos(2, "A", 200))
        .unwrap()
        .unwrap();
    assert_eq!((spans[0].to, spans[1].log.seq, spans[1].to), (200, 3, 0));
    let gone = case.logs(&pos(0, "A", 0), &pos(2, "A", 200)).unwrap_err();
    assert!(gone.contains("not here any more"), "{gone}");
    let other = case.logs(&pos(2, "A", 100), &pos(3, "C", 10)).unwrap_err();
    assert!(other.to_string().contains("split brain"), "{other}");
}
