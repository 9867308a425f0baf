//! Names, ranges and precedence of parameters.

use super::*;
use crate::stamp::Stamp;
use alloc::format;

#[test]
fn every_default_is_in_its_range_and_every_name_is_found() {
    for param in Param::ALL {
        let text = param.default_value().to_string();
        assert_eq!(param.parse_value(&text), Ok(param.default_value()));
        assert_eq!(Param::parse_name(param.name()), Some(param));
        // The words say what is checked.
        let words: Vec<u64> = param
            .range()
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|w| w.parse().ok())
            .collect();
        let &[min, max, ..] = words.as_slice() else {
            panic!("{}", param.range());
        };
        for (value, good) in [(min, true), (max, true), (max + 1, false)] {
            let text = value.to_string();
            assert_eq!(param.parse_value(&text).is_ok(), good, "{text}");
        }
    }
    assert_eq!(Param::parse_name("loadavg"), None);
}

#[test]
fn bad_values_name_the_parameter_the_value_and_the_range() {
    for (param, bad) in [
        (Param::PercentMemLimitKb, "71"),
        (Param::NetworkIoTimeout, "9"),
        (Param::LoadavgLimit, "-1"),
        (Param::LoadavgLimit, "+1"),
        (Param::LoadavgLimit, "5.5"),
        (Param::FreeSpaceMb, "8G"),
        (Param::FreeSpaceMb, ""),
        (Param::LogrotAutoGb, "99999999999999999999999"),
    ] {
        let text = param.parse_value(bad).unwrap_err().to_string();
        assert!(text.contains(param.name()), "{text}");
        assert!(text.contains(&format!("'{bad}'")), "{text}");
        assert!(text.contains(param.range()), "{text}");
    }
    let text = Param::NetworkIoTimeout.parse_value("9").unwrap_err();
    assert_eq!(
        text.to_string(),
        "network_io_timeout cannot be '9': allowed are seconds from 10 to 86400, or 0"
    );
    assert_eq!(Param::NetworkIoTimeout.parse_value(" 0\n"), Ok(0));
    assert_eq!(Param::PercentMemLimitKb.parse_value("70"), Ok(70));
}

#[test]
fn a_configuration_is_read_line_by_line() {
    let text = "# limits\n\nloadavg_limit = 5 # high\nfree_space_mb=16\nfree_space_mb=default\n\
                nonsense\nloadavg = 3\nnetwork_io_timeout = 5\n";
    let (settings, problems) = parse_config(text);
    assert_eq!(settings, Settings::from([(Param::LoadavgLimit, 5)]));
    let lines: Vec<usize> = problems.iter().map(|p| p.line).collect();
    assert_eq!(lines, [6, 7, 8]);
    assert_eq!(problems[2].param, Some(Param::NetworkIoTimeout));
    assert!(
        problems[1]
            .to_string()
            .contains("line 7: there is no parameter 'loadavg'")
    );
    assert!(problems[2].to_string().contains("seconds from 10 to"));
}

fn put(tree: &mut Tree, path: &str, value: &str) {
    tree.put(LinkPath::parse(path).unwrap(), value, Stamp::default())
        .unwrap();
}

#[test]
fn the_place_closest_to_the_node_counts() {
    let me = HostName::new("db-1").unwrap();
    let res = ResourceName::new("r").unwrap();
    let param = Param::NetworkTrafficLimitKb;
    let (mut tree, mut config) = (Tree::default(), Settings::new());
    let at = |tree: &Tree, config: &Settings| permanent(tree, &me, config, param);
    assert_eq!(at(&tree, &config), None);
    put(&mut tree, "defaults/network_traffic_limit_kb", "100");
    put(&mut tree, "defaults-db-2/network_traffic_limit_kb", "7");
    assert_eq!(at(&tree, &config), Some(100));
    put(&mut tree, "defaults-db-1/network_traffic_limit_kb", "200");
    assert_eq!(at(&tree, &config), Some(200));
    config.insert(param, 300);
    assert_eq!(at(&tree, &config), Some(300));
    config.clear();
    put(
        &mut tree,
        "defaults-db-1/network_traffic_limit_kb",
        "default",
    );
    assert_eq!(at(&tree, &config), Some(100));

    let own = |tree: &Tree| of_resource(tree, &me, &res, param);
    assert_eq!(own(&tree), None);
    put(
        &mut tree,
        "resource-r/defaults/network_traffic_limit_kb",
        "9",
    );
    assert_eq!(own(&tree), Some(9));
    put(
        &mut tree,
        "resource-r/defaults-db-1/network_traffic_limit_kb",
        "0",
    );
    assert_eq!(own(&tree), Some(0));
}

#[test]
fn no_limit_is_higher_than_any() {
    assert_eq!(lower_limit(0, 0), 0);
    assert_eq!(lower_limit(0, 5), 5);
    assert_eq!(lower_limit(5, 0), 5);
    assert_eq!(lower_limit(5, 4), 4);
}
