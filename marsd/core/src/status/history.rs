//! What the version links say about each log that is here (`symlink-spec.md` sections 6 and 11).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::link::{LinkPath, ResourceLink};
use crate::name::HostName;
use crate::position::LogName;
use crate::resource::ResourceView;
use crate::tree::Tree;
use crate::version::VersionValue;

use super::replay::shown_log_size;

/// History of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHistory {
    /// The log.
    pub log: LogName,
    /// Its size here in bytes.
    pub size_bytes: u64,
    /// What each node says about it.
    pub sources: Vec<Source>,
    /// What follows from that.
    pub verdict: Verdict,
    /// Another log has the same number.
    pub has_twin: bool,
    /// An order to delete it exists.
    pub is_ordered_deleted: bool,
}

/// One version link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Whose it is.
    pub host: HostName,
    /// Its digest.
    pub digest: String,
    /// Bytes of the log it speaks of.
    pub pos: u64,
    /// Its digest differs from that of the first source, at the same position.
    pub is_split_brain: bool,
}

/// What follows from the version links of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not every node has a link.
    CountDiffers {
        /// Nodes.
        nodes: usize,
        /// Links.
        links: usize,
    },
    /// They differ.
    Different,
    /// They are equal, and this is the newest log.
    Newest,
    /// They are equal, and nothing was ever logged.
    Unused,
    /// They are equal, and a newer log exists.
    Deletable,
}

/// The history of all logs that are on `me`, lowest first, for a resource of `nodes` nodes.
pub fn history(
    tree: &Tree,
    view: &ResourceView<'_>,
    me: &HostName,
    nodes: usize,
) -> Vec<LogHistory> {
    let ordered = ordered_names(tree, view);
    let by_seq = sources(view);
    let newest = view.logs().map(|(log, _)| log.seq).max();
    let mut out: Vec<LogHistory> = view
        .logs()
        .map(|(log, file)| {
            let sources = by_seq.get(&log.seq).cloned().unwrap_or_default();
            LogHistory {
                verdict: verdict(&sources, nodes, newest == Some(log.seq)),
                size_bytes: shown_log_size(view, log, me).unwrap_or(file),
                sources,
                has_twin: false,
                is_ordered_deleted: ordered.contains(log),
                log: log.clone(),
            }
        })
        .collect();
    for i in 1..out.len() {
        if out[i - 1].log.seq == out[i].log.seq {
            out[i - 1].has_twin = true;
            out[i].has_twin = true;
        }
    }
    out
}

fn sources(view: &ResourceView<'_>) -> BTreeMap<u64, Vec<Source>> {
    let mut out: BTreeMap<u64, Vec<Source>> = BTreeMap::new();
    for (link, value) in view.links() {
        let ResourceLink::Version(seq, host) = link else {
            continue;
        };
        let Ok(value) = VersionValue::parse(value) else {
            continue;
        };
        let sources = out.entry(*seq).or_default();
        let is_split_brain = sources
            .first()
            .is_some_and(|first| first.digest != value.digest && first.pos == value.pos);
        sources.push(Source {
            host: host.clone(),
            digest: value.digest,
            pos: value.pos,
            is_split_brain,
        });
    }
    out
}

fn verdict(sources: &[Source], nodes: usize, newest: bool) -> Verdict {
    let Some(first) = sources.first().filter(|_| sources.len() == nodes) else {
        return Verdict::CountDiffers {
            nodes,
            links: sources.len(),
        };
    };
    let equal = sources
        .iter()
        .all(|s| s.digest == first.digest && s.pos == first.pos);
    if !equal {
        Verdict::Different
    } else if newest {
        Verdict::Newest
    } else if first.pos == 0 {
        Verdict::Unused
    } else {
        Verdict::Deletable
    }
}

/// Logs of this resource that some deletion order names.
fn ordered_names(tree: &Tree, view: &ResourceView<'_>) -> Vec<LogName> {
    tree.links
        .range(LinkPath::DeleteOrder(0)..=LinkPath::DeleteOrder(u64::MAX))
        .filter_map(|(_, link)| {
            let mut parts = link.value.rsplit('/');
            let log = LogName::parse(parts.next()?).ok()?;
            let res = parts.next()?.strip_prefix("resource-")?;
            (res == view.name().as_str()).then_some(log)
        })
        .collect()
}
