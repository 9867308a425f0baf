//! `log-rotate`, `log-delete` and `log-delete-all` (`symlink-spec.md` sections 5.7, 7 and 8.8).

use std::collections::BTreeSet;

use mars_core::link::ResourceLink;
use mars_core::plan::ORDER_ROOT;
use mars_core::{LinkPath, LogName, ResourceName, ResourceView, Tree};

use crate::context::{Context, Edit, say};
use crate::error::{AdmError, Result};
use crate::history::History;
use crate::resource::check_primary;

/// Begins the next log, unless the newest one is empty.
pub(crate) fn rotate(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    check_primary(view, &me, "log-rotate")?;
    let own = view.logs().filter(|(log, _)| log.host == me).last();
    let own = own.map(|(log, size)| (log.clone(), Some(size)));
    // The one that was written may have been lost: a new one says that it goes on without it.
    let lost = view.replay(&me).map(|at| at.log);
    let lost = lost.filter(|log| log.host == me && view.log_size(log).is_none());
    let own = own.max(lost.map(|log| (log, None)));
    let Some((newest, size)) = own else {
        return Err(AdmError::missing("cannot find any logfiles of this node")
            .link(format!("resource-{res}/log-*-{me}"))
            .remedy("marsd makes the first one as soon as this node is primary; is it running?"));
    };
    if let Some((later, _)) = view.logs().last().filter(|(l, _)| l.seq > newest.seq) {
        return Err(
            AdmError::refused(format!("the newest logfile {later} is not of this node"))
                .link(format!("resource-{res}/{later}"))
                .remedy("wait until marsd has completed the switch to primary"),
        );
    }
    if size == Some(0) {
        let path = format!("{ORDER_ROOT}resource-{res}/{newest}");
        say(&format!(
            "an empty logfile '{path}' already exists, nothing to do."
        ));
        return Ok(());
    }
    if view.gaps_of(&me).contains(newest.seq + 1) {
        return Err(AdmError::refused(format!(
            "{me} writes past its logs since it had no room for them"
        ))
        .link(format!("resource-{res}/unlogged-{me}"))
        .remedy(format!(
            "make room in the tree, then: marsadm secondary {res}; marsadm primary {res}"
        )));
    }
    let next = LogName::new(newest.seq + 1, &me);
    ctx.apply(&[Edit::NewLog(res.clone(), next.clone())])?;
    ctx.done(&format!(
        "successfully rotated resource {res} to logfile '{next}'"
    ));
    Ok(())
}

/// Orders the deletion of the lowest log that nobody needs.
pub(crate) fn delete_next(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    delete(ctx, res, 1)
}

/// Orders the deletion of all logs that nobody needs.
pub(crate) fn delete_all(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    delete(ctx, res, usize::MAX)
}

/// The lowest log number that some member needs, and why.
struct Border {
    seq: u64,
    holders: Vec<String>,
}

fn delete(ctx: &mut Context, res: &ResourceName, at_most: usize) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    History::of(view).check_splitbrain(view, &me)?;
    let border = border(view)?;
    say(&format!(
        "max allowed deletable logfile number: {:09}",
        border.seq
    ));
    let ordered = ordered(&ctx.orders());
    let path = |log: &LogName| format!("resource-{res}/{log}");
    let logs: Vec<&LogName> = view.logs().map(|(log, _)| log).collect();
    let chosen: Vec<&LogName> = logs
        .iter()
        .copied()
        .filter(|log| log.seq < border.seq && !ordered.contains(&path(log)))
        .take(at_most)
        .collect();
    let mut edits = Vec::new();
    for log in &chosen {
        say(&format!("chosen '{ORDER_ROOT}{}' for deletion", path(log)));
        edits.push(Edit::Order(path(log)));
    }
    let kept = logs
        .iter()
        .filter(|log| !chosen.contains(log) && !ordered.contains(&path(log)))
        .map(|log| log.seq)
        .min()
        .unwrap_or(border.seq)
        .min(border.seq);
    let left_over = old_versions(view, kept, &ordered);
    if !left_over.is_empty() {
        say("removing left-over version symlinks...");
        edits.extend(left_over.into_iter().map(Edit::Order));
    }
    ctx.apply(&edits)?;
    if at_most > 1 || chosen.is_empty() {
        report_blocked(res, &logs, &border, chosen.is_empty())?;
    }
    Ok(())
}

/// Says who needs the logs that are finished and were kept; an error if nothing could be deleted because of that.
fn report_blocked(
    res: &ResourceName,
    logs: &[&LogName],
    border: &Border,
    none: bool,
) -> Result<()> {
    let newest = logs.iter().map(|log| log.seq).max().unwrap_or(0);
    let kept = logs
        .iter()
        .filter(|l| l.seq >= border.seq && l.seq < newest)
        .count();
    if kept == 0 {
        if none {
            say(&format!(
                "no logfile of resource {res} is deletable, nothing to do."
            ));
        }
        return Ok(());
    }
    let text = format!(
        "{kept} finished logfile(s) from number {:09} on are still needed: {}",
        border.seq,
        border.holders.join(", ")
    );
    if !none {
        say(&text);
        return Ok(());
    }
    Err(AdmError::refused(text).remedy(
        "bring that member up to date (mars-status shows what it waits for), or make it leave: marsadm leave-resource",
    ))
}

/// What the members need (`symlink-spec.md` section 8.8).
fn border(view: ResourceView<'_>) -> Result<Border> {
    let mut needs: Vec<(u64, String)> = Vec::new();
    for host in view.members() {
        let Some(replay) = view.replay(host) else {
            let link = LinkPath::res(view.name(), ResourceLink::Replay(host.clone()));
            return Err(
                AdmError::refused(format!("nothing is known of what {host} has replayed"))
                    .link(format!("{link} is missing"))
                    .remedy(format!("wait for {host}, or make it leave the resource")),
            );
        };
        let at = format!("{host} (replay at {},{})", replay.log, replay.pos);
        needs.push((replay.log.seq, at));
        if let Some(sync) = view.sync_pos(host).filter(|s| s.order() > replay.order()) {
            needs.push((
                sync.log.seq,
                format!("{host} (consistent from {},{})", sync.log, sync.pos),
            ));
        }
    }
    let seq = needs.iter().map(|(seq, _)| *seq).min().ok_or_else(|| {
        AdmError::missing(format!("resource '{}' has no replay links", view.name()))
    })?;
    Ok(Border {
        seq,
        holders: needs
            .into_iter()
            .filter(|(s, _)| *s == seq)
            .map(|(_, at)| at)
            .collect(),
    })
}

/// Targets of the orders that exist, relative to the root.
fn ordered(tree: &Tree) -> BTreeSet<String> {
    tree.links
        .iter()
        .filter(|(path, _)| matches!(path, LinkPath::DeleteOrder(_)))
        .filter_map(|(_, link)| link.value.strip_prefix(ORDER_ROOT).map(String::from))
        .collect()
}

/// Version links that lie before the predecessor of the lowest kept log.
fn old_versions(view: ResourceView<'_>, kept: u64, ordered: &BTreeSet<String>) -> Vec<String> {
    view.links()
        .filter_map(|(link, _)| match link {
            ResourceLink::Version(seq, _) if seq + 1 < kept => {
                Some(LinkPath::res(view.name(), link.clone()).to_string())
            }
            _ => None,
        })
        .filter(|path| !ordered.contains(path))
        .collect()
}
