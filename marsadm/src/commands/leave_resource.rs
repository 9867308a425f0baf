//! `leave-resource`: gives up this node's copy; all nodes forget its links through deletion orders. With the last member
//! the resource goes too.

use std::fs;
use std::path::Path;

use mars_core::link::{ActualKey, NO_PRIMARY, ResourceLink};
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Switch};

use crate::context::{Context, Edit, is_alive, say};
use crate::error::{AdmError, Result};
use crate::resource::primary_of;
use crate::wait::{Interrupt, Progress, wait_or_tell};

use super::delete_resource;

const STOP_SECS: u64 = 60;

/// Leaves a resource.
pub(crate) fn run(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    check_role(view, &me)?;
    if !ctx.opts.force {
        check_switches(view, &me)?;
        wait_until_stopped(ctx, res, &me)?;
    }
    if view.members().into_iter().all(|host| *host == me) {
        say("no other member is left: the resource goes with this one");
        return delete_resource::remove(ctx, res);
    }
    let path = |link: &ResourceLink| LinkPath::res(res, link.clone());
    let mut edits = redirect_peers(view, &me);
    let own: Vec<&ResourceLink> = view
        .links()
        .map(|(link, _)| link)
        .filter(|link| link.member() == Some(&me))
        .collect();
    let disk = ctx.dir.link_path(&path(&ResourceLink::Data(me.clone())));
    let sparse = fs::symlink_metadata(&disk).is_ok_and(|m| m.is_file());
    // The disk goes first: from then on the daemon of this node does not write any of the other links.
    if sparse {
        let kept = ctx.dir.resource_dir(res).join(format!("left-{me}"));
        set_aside(ctx, &disk, &kept)?;
    }
    let is_data = |link: &ResourceLink| matches!(link, ResourceLink::Data(_));
    for link in own.iter().filter(|l| is_data(l) && !sparse) {
        edits.insert(0, Edit::Remove(path(link)));
    }
    for link in own.iter().filter(|l| !is_data(l)) {
        edits.push(Edit::Remove(path(link)));
    }
    // A node that is no member has no use for logs.
    let logs = view.logs();
    edits.extend(logs.map(|(log, _)| Edit::RemoveLog(res.clone(), log.clone())));
    for link in &own {
        edits.push(Edit::Order(path(link).to_string()));
    }
    ctx.apply(&edits)?;
    ctx.done(&format!("successfully left resource '{res}'"));
    Ok(())
}

fn check_role(view: ResourceView<'_>, me: &HostName) -> Result<()> {
    let res = view.name();
    let primary = LinkPath::res(res, ResourceLink::Primary);
    if primary_of(view)?.as_ref() == Some(me) {
        return Err(
            AdmError::refused("operation 'leave-resource' cannot be executed on primary")
                .link(format!("{primary} -> {me}"))
                .remedy(format!(
                    "on another member: marsadm primary {res}; or here: marsadm secondary {res}"
                )),
        );
    }
    let key = ResourceLink::Actual(me.clone(), ActualKey::IsPrimary);
    if view.actual(me, ActualKey::IsPrimary) {
        return Err(AdmError::refused("the device is still served here")
            .link(format!(
                "{} -> 1 (primary is {})",
                LinkPath::res(res, key),
                view.get(ResourceLink::Primary).unwrap_or(NO_PRIMARY)
            ))
            .remedy("close it and wait until everything is written back"));
    }
    Ok(())
}

fn check_switches(view: ResourceView<'_>, me: &HostName) -> Result<()> {
    let res = view.name();
    let commands = [
        (Switch::Attach, "detach"),
        (Switch::Connect, "disconnect-local"),
        (Switch::Sync, "pause-sync-local"),
        (Switch::AllowReplay, "pause-replay-local"),
    ];
    for (switch, command) in commands {
        if view.switch(me, switch) {
            let link = LinkPath::res(res, ResourceLink::Todo(me.clone(), switch));
            return Err(AdmError::refused(format!("switch '{link}' is not off"))
                .link(format!("{link} -> 1"))
                .remedy(format!("marsadm {command} {res}; or --force")));
        }
    }
    Ok(())
}

/// What the switches have stopped ends a moment later.
fn wait_until_stopped(ctx: &mut Context, res: &ResourceName, me: &HostName) -> Result<()> {
    let running = [
        ActualKey::CopySyncstatus(me.clone()),
        ActualKey::LogfileUpdate,
    ];
    let interrupt = Interrupt::arm()?;
    let timeout = ctx.timeout(STOP_SECS);
    wait_or_tell(ctx, &interrupt, timeout, |tree| {
        let view = tree.resource(res);
        let found = running.iter().find(|key| view.actual(me, (*key).clone()));
        Ok(match found.filter(|_| is_alive(tree, me)) {
            Some(key) => {
                let link = LinkPath::res(res, ResourceLink::Actual(me.clone(), key.clone()));
                Progress::Waiting(format!("waiting for '{link}' to become 0"))
            }
            None => Progress::Done(()),
        })
    })
}

/// Who synced from the node `me` that leaves syncs from the peer of that node, or from the primary, from now on.
pub(super) fn redirect_peers(view: ResourceView<'_>, me: &HostName) -> Vec<Edit> {
    let mut edits = Vec::new();
    let primary = view.primary().flatten();
    for (link, value) in view.links() {
        let ResourceLink::Connect(host) = link else {
            continue;
        };
        if value != me.as_str() || host == me {
            continue;
        }
        let path = LinkPath::res(view.name(), link.clone());
        let members = view.members().into_iter().cloned();
        let mut peers = view
            .connect(me)
            .into_iter()
            .chain(primary.clone())
            .chain(members);
        let peer = peers.find(|peer| peer != host && peer != me);
        match peer {
            Some(peer) => {
                say(&format!("changing '{path}' from '{me}' to '{peer}'"));
                edits.push(Edit::Set(path, peer.to_string()));
            }
            None => {
                edits.push(Edit::Remove(path.clone()));
                edits.push(Edit::Order(path.to_string()));
            }
        }
    }
    edits
}

/// A sparse file holds data: it is kept under another name.
pub(super) fn set_aside(ctx: &Context, disk: &Path, kept: &Path) -> Result<()> {
    if ctx.opts.dry_run {
        say(&format!(
            "would rename {} to {}",
            disk.display(),
            kept.display()
        ));
        return Ok(());
    }
    fs::rename(disk, kept).map_err(|e| AdmError::system("rename", disk.display(), e))?;
    say(&format!(
        "the disk of this node is kept as '{}', remove it when it is not needed",
        kept.display()
    ));
    Ok(())
}
