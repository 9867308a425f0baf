//! `delete-resource`: removes a resource that has no members any more, on all nodes; what is on the disks stays
//! (`symlink-spec.md` section 7).

use std::fs;
use std::path::{Path, PathBuf};

use mars_core::link::{ActualKey, NO_PRIMARY, ResourceLink};
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Switch};

use crate::context::{Context, Edit, is_alive, say, warn};
use crate::device;
use crate::error::{AdmError, Result};
use crate::resource::{ALL, DEVICE_DIR, find, for_each};
use crate::wait::{Interrupt, Progress, wait_for};

use super::leave_resource::set_aside;

const STOP_SECS: u64 = 60;
const GONE_SECS: u64 = 2;

/// Deletes the resource named `arg`, which this node need not have joined, or all that it has joined.
pub(crate) fn run(ctx: &mut Context, arg: &str) -> Result<()> {
    if arg == ALL {
        return for_each(ctx, arg, &delete);
    }
    let res = find(&ctx.dir, arg, ctx.me())?;
    ctx.focus(&res);
    ctx.tree();
    delete(ctx, &res)
}

fn delete(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    let mut members = view.members();
    let joined = members.remove(&me);
    if !members.is_empty() {
        let names: Vec<&str> = members.iter().map(|h| h.as_str()).collect();
        return Err(AdmError::refused(format!(
            "resource '{res}' has other members: {}",
            names.join(" ")
        ))
        .link(format!("resource-{res}/replay-{}", names.join(", replay-")))
        .remedy(format!("on each of them: marsadm leave-resource {res}")));
    }
    if joined && !ctx.opts.force {
        let link = LinkPath::res(res, ResourceLink::Data(me));
        return Err(AdmError::refused(format!("this node is a member of resource '{res}'"))
            .link(link)
            .remedy(format!(
                "marsadm leave-resource {res} (the last member takes the resource with it); or: marsadm --force delete-resource {res}"
            )));
    }
    if joined {
        stop(ctx, view, &me)?;
    }
    remove(ctx, res)
}

/// Makes this node give up role and disk; if it does not, everything is as before.
fn stop(ctx: &mut Context, view: ResourceView<'_>, me: &HostName) -> Result<()> {
    let res = view.name();
    if let Some(name) = view.device(me) {
        let path = Path::new(DEVICE_DIR).join(name);
        if let Some(by) = device::in_use(&path).filter(|_| view.actual(me, ActualKey::IsPrimary)) {
            return Err(AdmError::refused(format!("{} is {by}", path.display()))
                .remedy("unmount or close it first"));
        }
    }
    let mut links: Vec<(ResourceLink, &str)> = Switch::ALL
        .map(|s| (ResourceLink::Todo(me.clone(), s), "0"))
        .into();
    if view.is_designated_primary(me) {
        links.push((ResourceLink::Primary, NO_PRIMARY));
    }
    let path = |link: &ResourceLink| LinkPath::res(res, link.clone());
    let edits: Vec<Edit> = links
        .iter()
        .map(|(link, value)| Edit::Set(path(link), (*value).into()))
        .collect();
    let back: Vec<Edit> = links
        .iter()
        .filter_map(|(link, _)| Some(Edit::Set(path(link), view.get(link.clone())?.into())))
        .collect();
    ctx.apply(&edits)?;
    if ctx.opts.dry_run {
        return Ok(());
    }
    let interrupt = Interrupt::arm()?;
    let timeout = ctx.timeout(STOP_SECS);
    let stopped = wait_for(ctx, &interrupt, timeout, |tree| {
        let view = tree.resource(res);
        Ok(
            if is_alive(tree, me) && view.actual(me, ActualKey::IsPrimary) {
                Progress::Waiting("waiting for the device to be closed and written back".into())
            } else {
                Progress::Done(())
            },
        )
    });
    if stopped.is_err() {
        ctx.apply(&back)?;
    }
    stopped
}

/// Removes all that there is of a resource, here and by orders everywhere; the last member's disk is kept.
pub(super) fn remove(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    let path = |link: &ResourceLink| LinkPath::res(res, link.clone());
    let own_data = ResourceLink::Data(me.clone());
    let disk = ctx.dir.link_path(&path(&own_data));
    let sparse = fs::symlink_metadata(&disk).is_ok_and(|m| m.is_file());
    if sparse {
        set_aside(ctx, &disk, &kept_place(ctx, res))?;
    }
    // The disk goes first: from then on the daemon of this node leaves the resource alone.
    let mut links: Vec<&ResourceLink> = view.links().map(|(link, _)| link).collect();
    links.sort_by_key(|link| **link != own_data);
    let present = links.iter().filter(|link| !(sparse && ***link == own_data));
    let mut edits: Vec<Edit> = present.map(|link| Edit::Remove(path(link))).collect();
    edits.extend(
        view.logs()
            .map(|(log, _)| Edit::RemoveLog(res.clone(), log.clone())),
    );
    let others = links.iter().filter(|link| ***link != ResourceLink::Size);
    edits.extend(others.map(|link| Edit::Order(path(link).to_string())));
    // Last, so that it outlives the others: it is this order that lets the nodes remove the directory.
    edits.push(Edit::Order(path(&ResourceLink::Size).to_string()));
    ctx.apply(&edits)?;
    if ctx.opts.dry_run {
        say(&format!("would remove directory resource-{res}"));
        return Ok(());
    }
    remove_directory(ctx, res)?;
    ctx.done(&format!(
        "successfully deleted resource '{res}', what is on the disks was not touched"
    ));
    Ok(())
}

/// Removes the directory; what a daemon was just about to write goes too.
fn remove_directory(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let interrupt = Interrupt::arm()?;
    let dir = ctx.dir.clone();
    let gone = wait_for(
        ctx,
        &interrupt,
        Some(std::time::Duration::from_secs(GONE_SECS)),
        |tree| {
            for (link, _) in tree.resource(res).links() {
                dir.remove(&LinkPath::res(res, link.clone()))?;
            }
            Ok(if dir.remove_resource_dir(res)? {
                Progress::Done(())
            } else {
                Progress::Waiting(format!("waiting until resource-{res}/ is empty"))
            })
        },
    );
    ctx.dir.sync_dirs()?;
    if gone.is_err() {
        let place = ctx.dir.resource_dir(res);
        warn(&format!(
            "{} holds files that are not of MARS and stays; remove it before the name is used again",
            place.display()
        ));
    }
    Ok(())
}

/// A name outside the resource that no other node is shown.
fn kept_place(ctx: &Context, res: &ResourceName) -> PathBuf {
    let base = ctx
        .dir
        .root()
        .join(format!("ignore-left-{res}-{}", ctx.me()));
    let numbered = (2u32..).map(|n| PathBuf::from(format!("{}.{n}", base.display())));
    let mut places = std::iter::once(base.clone()).chain(numbered);
    places.find(|p| !p.exists()).unwrap_or(base)
}
