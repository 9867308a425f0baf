//! Which logs a node that writes none can send to others, and how far.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::LogOffer;
use crate::name::HostName;
use crate::position::{LogName, ReplayPos};
use crate::resource::ResourceView;
use crate::version::VersionValue;

/// Whether the `size` bytes that `me` has of a log before that of its position are all of it: it may have left it early, when
/// it began anew at a later one.
pub fn is_whole(view: ResourceView<'_>, log: &LogName, size: u64, me: &HostName) -> bool {
    let applied = |v: VersionValue| v.log_host == log.host && v.pos <= size;
    log.host == *me || view.version(log.seq, me).is_none_or(applied)
}

/// The logs that `me`, whose disk is at `pos`, has to offer; `log_end` is the end of the records of the log of `pos`.
pub fn offers_of_files(
    view: ResourceView<'_>,
    pos: &ReplayPos,
    log_end: Option<u64>,
    me: &HostName,
) -> Vec<LogOffer> {
    let followed = |seq: u64| {
        view.logs()
            .any(|(l, size)| l.seq == seq + 1 && (size > 0 || l.host == *me))
    };
    let extent = |log: &LogName, size: u64| {
        if *log == pos.log {
            let end = log_end?;
            let finished = (log.host == *me && end > 0) || followed(log.seq);
            return Some((end, finished && end == size));
        }
        match log.seq.cmp(&pos.log.seq) {
            // Of another writer with the same number: nothing is added to it any more either.
            Ordering::Equal => Some((size, true)),
            Ordering::Less => Some((size, is_whole(view, log, size, me))),
            Ordering::Greater if followed(log.seq) => Some((size, true)),
            Ordering::Greater => None,
        }
    };
    view.logs()
        .filter_map(|(log, size)| {
            let (durable, complete) = extent(log, size)?;
            Some(LogOffer {
                log: log.clone(),
                durable,
                complete,
            })
        })
        .collect()
}
