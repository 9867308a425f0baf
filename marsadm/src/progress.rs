//! How much is left of a replay or a sync, and how long it will take at the published rates, in words.

use mars_core::link::{ActualKey, ResourceLink};
use mars_core::{HostName, ResourceView};

/// Bytes of logs that `host` has not applied, as far as it is known.
pub(crate) fn behind_bytes(view: ResourceView<'_>, host: &HostName) -> u64 {
    let Some(own) = view.replay(host) else {
        return 0;
    };
    let ends = view.replays().into_iter().map(|(_, at)| {
        let more = u64::try_from(at.dirty_len).unwrap_or(0);
        (at.log.seq, at.pos.saturating_add(more))
    });
    let Some((last, end)) = ends.max() else {
        return 0;
    };
    if last < own.log.seq {
        return 0;
    }
    if last == own.log.seq {
        return end.saturating_sub(own.pos);
    }
    let logs = view.logs();
    let between: u64 = logs
        .filter(|(log, _)| log.seq >= own.log.seq && log.seq < last)
        .map(|(_, size)| size)
        .sum();
    between.saturating_sub(own.pos).saturating_add(end)
}

/// Text for a replay of `host`: bytes, and seconds if it runs.
pub(crate) fn replay(view: ResourceView<'_>, host: &HostName) -> String {
    let bytes = behind_bytes(view, host);
    let replay = rate(view, host, ActualKey::ReplayRate);
    let fetch = rate(view, host, ActualKey::FileRate);
    // While logs still arrive the slower of both decides.
    let rate = match (replay, fetch) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    };
    remaining(bytes, rate)
}

/// Text for a sync of `host`.
pub(crate) fn sync(view: ResourceView<'_>, host: &HostName) -> String {
    let size = view.size_bytes().unwrap_or(0);
    let left = size.saturating_sub(view.sync_status(host).unwrap_or(0));
    remaining(left, rate(view, host, ActualKey::SyncRate))
}

/// Text for `bytes` at `rate` bytes per second.
fn remaining(bytes: u64, rate: u64) -> String {
    if rate == 0 {
        return format!("{bytes} bytes left");
    }
    let secs = bytes.div_ceil(rate);
    format!(
        "{bytes} bytes left, about {secs} s at {} KiB/s",
        rate / 1024
    )
}

fn rate(view: ResourceView<'_>, host: &HostName, key: ActualKey) -> u64 {
    let value = view.get(ResourceLink::Actual(host.clone(), key));
    value.and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_rounded_up_and_left_out_where_nothing_runs() {
        assert_eq!(remaining(4096, 0), "4096 bytes left");
        let text = remaining(5000, 2048);
        assert_eq!(text, "5000 bytes left, about 3 s at 2 KiB/s");
    }
}
