//! What a node says of itself, and when that counts.

use super::*;
use crate::version::VersionValue;

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
        VersionValue::chain(&host("A"), 1, 8360, "").to_string()
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
fn the_end_of_a_log_is_not_published_for_another_one() {
    let mut case = Case::new("A", log(2, "A"), 0);
    case.put(
        "version-000000001-A",
        &VersionValue::chain(&host("A"), 1, 700, "").to_string(),
    );
    let version = |end: (LogName, u64)| {
        let seen = Published {
            log_durable: Some(end),
            ..Published::default()
        };
        let out = publish(case.tree.resource(&case.res), &case.facts, &seen, &case.me);
        let own = ResourceLink::Version(2, host("A"));
        let value = out.into_iter().find(|(link, _)| *link == own).unwrap().1;
        VersionValue::parse(&value).unwrap().pos
    };
    assert_eq!(version((log(2, "A"), 500)), 500);
    assert_eq!(version((log(1, "A"), 700)), 0, "of the log before");
}
