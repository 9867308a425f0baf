//! What `symlink-spec.md` prints is what the code computes.
#![allow(clippy::unwrap_used)]

use mars_core::log_format::{
    CODE_NEW_DATA, HEADER_LEN, LogTime, Record, TRAILER_LEN, encode_header, encode_trailer,
};
use mars_core::{HostName, Param, VersionValue};

fn spec() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../symlink-spec.md");
    std::fs::read_to_string(path).unwrap()
}

fn chain(host: &str, seq: u64, pos: u64, previous: &str) -> String {
    let host = HostName::new(host).unwrap();
    VersionValue::chain(&host, seq, pos, previous).to_string()
}

#[test]
fn the_version_links_of_sections_6_and_12() {
    let spec = spec();
    let first = chain("A", 1, 8360, "");
    let second = chain("A", 2, 4180, &first);
    let printed = [
        chain("istore-test-bs7", 1, 8360, ""),
        chain("A", 1, 0, ""),
        first.clone(),
        chain("A", 2, 0, &first),
        second.clone(),
        chain("B", 3, 0, &second),
    ];
    for value in printed {
        assert!(spec.contains(&value), "{value}");
    }
}

#[test]
fn the_record_of_section_5() {
    let time = |nanos| LogTime {
        secs: 1_348_749_967,
        nanos,
    };
    let record = Record {
        stamp: time(123_456_789),
        written: time(223_456_789),
        pos: 4096,
        len: 16,
        code: CODE_NEW_DATA,
        crc: 0,
    };
    let (mut header, mut trailer) = ([0; HEADER_LEN], [0; TRAILER_LEN]);
    encode_header(&mut header, &record);
    encode_trailer(&mut trailer, &record);
    let bytes: Vec<u8> = header.into_iter().chain(0..16).chain(trailer).collect();
    let words: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let spec: Vec<String> = spec().split_whitespace().map(String::from).collect();
    assert!(spec.windows(words.len()).any(|w| w == words));
}

#[test]
fn every_link_of_section_12_is_of_the_grammar() {
    let spec = spec();
    let example = spec.split("\n## 12. Worked example").nth(1).unwrap();
    let mut seen = 0;
    // In text: `PATH -> VALUE`; names that stand for several links are left out.
    for quoted in example.split('`').skip(1).step_by(2) {
        let text = quoted.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some((path, value)) = text.split_once(" -> ") else {
            continue;
        };
        if path.contains(['*', '{']) || value.contains(['…', ' ']) {
            continue;
        }
        let path = match path.strip_prefix("/mars/") {
            Some(path) => path.to_string(),
            None => format!("resource-r1/{path}"),
        };
        let link = mars_core::LinkPath::parse(&path).unwrap_or_else(|| panic!("{path}"));
        assert_eq!(link.check_value(value), Ok(()), "{path} -> {value}");
        seen += 1;
    }
    assert!(seen >= 30, "only {seen} links were found");
}

#[test]
fn every_parameter_of_section_13() {
    let spec = spec();
    let section = spec.split("\n## 13. Parameters").nth(1).unwrap();
    for param in Param::ALL {
        let mark = if param.is_per_resource() { " (R)" } else { "" };
        let begin = format!("| `{}`{mark} |", param.name());
        let row = section.lines().find(|l| l.starts_with(&begin)).unwrap();
        let default = format!("| {} |", param.default_value());
        assert!(row.contains(&default), "{row}");
    }
}
