//! Warnings and errors, with the times that people read.

use chrono::{DateTime, Local, TimeZone};

use super::Screen;
use super::units::plain;
use crate::model::Debug;

const LEVELS: [&str; 4] = ["MARS_FATAL", "MARS_ERROR", "MARS_WARN", "MARS_INFO"];

pub(super) fn render(screen: &mut Screen, debug: &Debug) {
    for (title, lines) in [
        ("-> MARS WARNINGS:\n", &debug.warnings),
        ("-> MARS ERRORS:\n", &debug.errors),
    ] {
        if lines.is_empty() {
            continue;
        }
        screen.red(title);
        for line in lines {
            screen.faint(format!("\t{}\n", plain(&format_message(line, &Local))));
        }
    }
}

/// `SEC.NSEC LEVEL text` as `Fri Sep 28 12:57:00 2012: text`.
fn format_message<Z: TimeZone>(line: &str, zone: &Z) -> String
where
    Z::Offset: std::fmt::Display,
{
    let (secs, rest) = split_time(line).unwrap_or((0, line));
    let rest = rest.trim_start();
    let text = LEVELS
        .iter()
        .find_map(|level| rest.strip_prefix(level))
        .map_or(rest, str::trim_start);
    let time = DateTime::from_timestamp(secs, 0).unwrap_or_default();
    let time = time.with_timezone(zone).format("%a %b %e %H:%M:%S %Y");
    format!("{time}: {text}")
}

fn split_time(line: &str) -> Option<(i64, &str)> {
    let (number, rest) = line.split_once(' ')?;
    let (secs, fraction) = number.split_once('.')?;
    let plain = fraction.bytes().all(|b| b.is_ascii_digit());
    Some((secs.parse().ok().filter(|_| plain)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;

    #[test]
    fn as_printed_in_the_documentation() {
        let line = "1348837020.123456789 MARS_WARN    mars_peer0[5] ernel/mars_net.c 520 mars_recv_raw(): #7068 got EOF";
        assert_eq!(
            format_message(line, &Utc),
            "Fri Sep 28 12:57:00 2012: mars_peer0[5] ernel/mars_net.c 520 mars_recv_raw(): #7068 got EOF"
        );
    }

    #[test]
    fn a_line_without_a_time_is_kept() {
        assert_eq!(
            format_message("something else", &Utc),
            "Thu Jan  1 00:00:00 1970: something else"
        );
        assert_eq!(
            format_message("99999999999999.5 x", &Utc),
            "Thu Jan  1 00:00:00 1970: x"
        );
    }
}
