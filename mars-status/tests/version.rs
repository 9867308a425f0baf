//! `--version`
#![allow(clippy::unwrap_used)]

mod support;

use support::Node;

#[test]
fn every_spelling_prints_the_five_lines_of_the_header_alone() {
    for arg in ["--version", "-version", "--v", "-v"] {
        let ran = Node::steady().run(&[arg]);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let lines: Vec<&str> = ran.out.lines().collect();
        assert_eq!(
            (ran.code, lines.len(), ran.err.as_str()),
            (Some(0), 5, ""),
            "{arg}: {}",
            ran.out
        );
        assert_eq!(
            lines[0],
            format!("MARS Status - istore-test-bap7, {version}")
        );
        assert_eq!(lines[1], format!("MARS Admin  - marsadm {version}"));
        assert!(lines[2].starts_with("MARS Module - "), "{}", lines[2]);
        assert_eq!(lines[3], format!("MARS Kernel - {}", kernel.trim()));
        assert_eq!(lines[4], "-".repeat(79));
    }
}
