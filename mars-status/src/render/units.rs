//! Numbers in the units of the display.

/// Bytes of a GiB, shown as GB.
const GIB: f64 = 1_073_741_824.0;
/// Bytes of a MiB, shown as mb.
const MIB: f64 = 1_048_576.0;

/// Bytes as `0.088`, in GiB.
#[allow(clippy::cast_precision_loss)] // three digits are shown
pub(super) fn gb(bytes: u64) -> String {
    format!("{:.3}", bytes as f64 / GIB)
}

/// Signed bytes in GiB.
#[allow(clippy::cast_precision_loss)]
pub(super) fn gb_signed(bytes: i64) -> String {
    format!("{:.3}", bytes as f64 / GIB)
}

/// Bytes as `0.010`, in TiB.
#[allow(clippy::cast_precision_loss)]
pub(super) fn tb(bytes: u64) -> String {
    format!("{:.3}", bytes as f64 / GIB / 1024.0)
}

/// Bytes per second as `12.50`, in MiB; `None` if that shows as nothing.
#[allow(clippy::cast_precision_loss)]
pub(super) fn rate_mb(bytes: i64) -> Option<String> {
    let text = format!("{:.2}", bytes as f64 / MIB);
    (text != "0.00" && text != "-0.00").then_some(text)
}

/// KiB as `33195.25`, in MiB.
#[allow(clippy::cast_precision_loss)]
pub(super) fn kib_as_mb(kib: i64) -> String {
    format!("{:.2}", kib as f64 / 1024.0)
}

/// Foreign text on one line of its own: what would move a cursor is written out.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// What stands behind a percentage: the sign, and the rate if there is one.
pub(super) fn percent_tail(rate: i64) -> String {
    match rate_mb(rate) {
        Some(mb) => format!("%, by {mb} mb/s"),
        None => "%".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_printed_in_the_documentation() {
        assert_eq!(tb(10_737_418_240), "0.010");
        assert_eq!(gb(94_097_408), "0.088");
        assert_eq!(rate_mb(-621_522_453).as_deref(), Some("-592.73"));
        assert_eq!(kib_as_mb(33_991_936), "33195.25");
    }

    #[test]
    fn foreign_text_moves_no_cursor() {
        assert_eq!(plain("a\x1b[2Jb\nc\u{9b}d é"), "a\\u{1b}[2Jb\\nc\\u{9b}d é");
    }

    #[test]
    fn a_rate_that_shows_as_nothing_is_left_out() {
        assert_eq!(percent_tail(0), "%");
        assert_eq!(percent_tail(-1), "%");
        assert_eq!(percent_tail(1_048_576), "%, by 1.00 mb/s");
    }
}
