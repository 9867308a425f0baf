//! Spellings of all options, as Getopt::Long took them, and their combinations.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use mars_status::options::{self, Options, Parsed, Show};
use support::Node;

fn parsed(args: &[&str]) -> Parsed {
    let args = ["mars-status"].iter().chain(args).map(OsString::from);
    options::parse(&args.collect::<Vec<_>>())
}

fn options(args: &[&str]) -> Options {
    match parsed(args) {
        Parsed::Run(options) => options,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn unambiguous_beginnings_are_enough() {
    let base = ["--resource=r", "--interval=3"];
    for (long, beginnings) in [
        ("--history", &["--hi", "-hist", "--HISTORY", "-hi"][..]),
        ("--system", &["--s", "--sys", "-system", "--System"]),
        ("--debug", &["--de", "--deb", "-debug"]),
        (
            "--monitor",
            &["--m", "--mon", "-monitor", "--Monitor", "\u{2013}monitor"],
        ),
        ("--cstate", &["--c", "--cs", "-cstate", "\u{2014}cstate"]),
        ("--dstate", &["--ds", "-dstate", "--DState"]),
        ("--role", &["--ro", "-role"]),
        ("--json", &["--j", "-json"]),
        ("--version", &["--v", "-v", "-V", "--ver", "-version"]),
    ] {
        let wanted = options(&[&base[..], &[long]].concat());
        assert_ne!(wanted, options(&base), "{long}");
        for short in beginnings {
            assert_eq!(options(&[&base[..], &[short]].concat()), wanted, "{short}");
            assert_eq!(options(&[&[*short], &base[..]].concat()), wanted, "{short}");
        }
    }
    for help in ["--h", "-h", "--he", "-help", "-?", "--HELP"] {
        assert!(matches!(parsed(&[help]), Parsed::Help(_)), "{help}");
    }
}

#[test]
fn values_stand_behind_a_sign_or_apart_and_keep_their_case() {
    for args in [
        &["--resource=Rr", "--interval=5"][..],
        &["--resource", "Rr", "--interval", "5"],
        &["-ressource=Rr", "-i", "5"],
        &["--RESSOURCE=Rr", "--int=5"],
        &["--res", "Rr", "--i=5"],
        &["--re=Rr", "-interval", "5"],
        &["--ress=Rr", "--interval=9", "--interval=5"],
        &["--resource=x", "--resource=Rr", "--inter", "5"],
    ] {
        let options = options(args);
        assert_eq!(options.resource.unwrap().as_str(), "Rr", "{args:?}");
        assert_eq!(options.interval, Some(Duration::from_secs(5)), "{args:?}");
    }
}

#[test]
fn what_is_ambiguous_or_unknown_is_refused_with_its_name() {
    for bad in [
        "--r",
        "--d",
        "--x",
        "-monitorx",
        "--historyy",
        "word",
        "--monitor=1",
    ] {
        match parsed(&[bad]) {
            Parsed::Wrong { text, .. } => {
                assert!(
                    text.contains(bad.trim_matches(['-', '=', '1'])),
                    "{bad}: {text}"
                );
            }
            other => panic!("{bad}: {other:?}"),
        }
    }
    let bytes = OsString::from_vec(vec![b'-', b'-', 0xff]);
    let wrong = options::parse(&["mars-status".into(), bytes]);
    assert!(matches!(wrong, Parsed::Wrong { .. }), "{wrong:?}");
}

#[test]
fn lines_win_over_the_screen_and_versions_over_both() {
    let shown = |args: &[&str]| options(&[&["--resource=r"], args].concat()).show;
    let lines = |monitor, role, dstate, cstate| Show::Lines {
        monitor,
        role,
        dstate,
        cstate,
    };
    assert_eq!(shown(&["--history", "--system", "--debug"]), Show::Screen);
    assert_eq!(shown(&["--monitor"]), lines(true, true, true, true));
    assert_eq!(shown(&["--role"]), lines(false, true, false, false));
    assert_eq!(
        shown(&["--role", "--cstate"]),
        lines(false, true, false, true)
    );
    assert_eq!(
        shown(&["--dstate", "--monitor"]),
        lines(true, false, true, false)
    );
    assert_eq!(shown(&["--version", "--monitor", "--role"]), Show::Versions);
}

/// Every set of options is answered, with a code that is documented.
#[test]
fn all_options_can_be_combined() {
    let all = [
        "--history",
        "--system",
        "--debug",
        "--monitor",
        "--cstate",
        "--dstate",
        "--role",
        "--json",
    ];
    let node = Node::steady();
    let held = node.hold_lock();
    for set in 0..1_u32 << all.len() {
        let chosen = all.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
        let mut args: Vec<&str> = chosen.map(|(_, option)| *option).collect();
        args.push("--resource=DeviceA");
        assert!(matches!(parsed(&args), Parsed::Run(_)), "{args:?}");
        // Of the processes a part is enough.
        if set % 7 == 0 {
            let ran = node.run(&args);
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{args:?}");
            assert!(!ran.out.is_empty(), "{args:?}");
        }
    }
    drop(held);
}
