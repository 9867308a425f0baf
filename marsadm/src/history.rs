//! Compares the version chains of the members: split brain, and whether this node has caught up
//! (`symlink-spec.md` section 6).

use std::collections::BTreeMap;

use mars_core::link::ResourceLink;
use mars_core::plan::branch_of;
use mars_core::{HostName, LinkPath, LogName, ResourceView, VersionValue};

use crate::error::{AdmError, Result};
use crate::wait::Progress;

type Chain = BTreeMap<u64, (VersionValue, String)>;

/// Version links of all members.
pub(crate) struct History {
    chains: BTreeMap<HostName, Chain>,
}

impl History {
    /// Reads the chains of all members of a resource.
    pub(crate) fn of(view: ResourceView<'_>) -> Self {
        let mut chains: BTreeMap<HostName, Chain> = BTreeMap::new();
        for (link, raw) in view.links() {
            if let ResourceLink::Version(seq, host) = link
                && let Ok(value) = VersionValue::parse(raw)
            {
                let chain = chains.entry(host.clone()).or_default();
                chain.insert(*seq, (value, raw.to_string()));
            }
        }
        Self { chains }
    }

    /// The newest log that `host` has a version of.
    fn last(&self, host: &HostName) -> Option<u64> {
        self.chains.get(host)?.keys().next_back().copied()
    }

    fn get(&self, host: &HostName, seq: u64) -> Option<&(VersionValue, String)> {
        self.chains.get(host)?.get(&seq)
    }

    /// Refuses if the chain of `me` contradicts that of any other member.
    pub(crate) fn check_splitbrain(&self, view: ResourceView<'_>, me: &HostName) -> Result<()> {
        check_double_logs(view)?;
        for host in self.chains.keys().filter(|h| *h != me) {
            let Some(seq) = branch_of(view, me, host) else {
                continue;
            };
            let raw = |host| view.version_raw(seq, host).unwrap_or_default();
            return Err(splitbrain(view, seq, (me, raw(me)), (host, raw(host))));
        }
        Ok(())
    }

    /// Whether `me` has applied everything that any member is known to have.
    pub(crate) fn caught_up(&self, view: ResourceView<'_>, me: &HostName) -> Progress<()> {
        let Some(own) = view.replay(me) else {
            return Progress::Waiting(format!("waiting for replay-{me}, which is missing"));
        };
        for (host, pos) in view.replays() {
            if pos.order() > own.order() {
                return Progress::Waiting(format!(
                    "waiting for replay of what {host} has (at {},{} here, {},{} there)",
                    own.log, own.pos, pos.log, pos.pos
                ));
            }
        }
        let Some(newest) = self.chains.keys().filter_map(|h| self.last(h)).max() else {
            return Progress::Done(());
        };
        let Some((mine, raw)) = self.get(me, newest) else {
            return Progress::Waiting(format!(
                "waiting for replay of log {newest} (at {},{} here)",
                own.log, own.pos
            ));
        };
        if mine.log_host != *me
            && let Some((theirs, their_raw)) = self.get(&mine.log_host, newest)
            && raw != their_raw
        {
            return Progress::Waiting(format!(
                "waiting for replay of log {newest} of {} (byte {} here, {} there)",
                mine.log_host, mine.pos, theirs.pos
            ));
        }
        Progress::Done(())
    }
}

fn check_double_logs(view: ResourceView<'_>) -> Result<()> {
    let mut before: Option<&LogName> = None;
    for (log, _) in view.logs() {
        if let Some(other) = before.filter(|b| b.seq == log.seq) {
            return Err(AdmError::refused(format!(
                "splitbrain at sequence {} detected: both {other} and {log} are here",
                log.seq
            ))
            .link(format!("resource-{}/{log}", view.name()))
            .remedy(repair(view, [&other.host, &log.host])));
        }
        before = Some(log);
    }
    Ok(())
}

fn splitbrain(
    view: ResourceView<'_>,
    seq: u64,
    mine: (&HostName, &str),
    theirs: (&HostName, &str),
) -> AdmError {
    let position = |host: &HostName| {
        view.replay(host)
            .map_or_else(|| "unknown".to_string(), |p| format!("{},{}", p.log, p.pos))
    };
    let link =
        |host: &HostName| LinkPath::res(view.name(), ResourceLink::Version(seq, host.clone()));
    AdmError::refused(format!(
        "splitbrain at sequence {seq} detected: {} stands at {}, {} stands at {}",
        mine.0,
        position(mine.0),
        theirs.0,
        position(theirs.0)
    ))
    .link(format!(
        "{} -> {}, but {} -> {}",
        link(mine.0),
        mine.1,
        link(theirs.0),
        theirs.1
    ))
    .remedy(repair(view, [mine.0, theirs.0]))
}

/// The two ways out: one for each side that may be kept.
fn repair(view: ResourceView<'_>, sides: [&HostName; 2]) -> String {
    let res = view.name();
    let keep = |right: &HostName, wrong: &HostName| {
        format!(
            "to keep the data of {right}, there: marsadm --force primary {res}; then on {wrong}: marsadm invalidate {res}"
        )
    };
    format!(
        "decide whose data is right, the other's is thrown away\n        {}\n        {}",
        keep(sides[0], sides[1]),
        keep(sides[1], sides[0])
    )
}
