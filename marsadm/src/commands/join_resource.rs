//! `join-resource`: this node gets a copy of an existing resource.

use mars_core::link::ResourceLink;
use mars_core::plan::is_consistent;
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Tree};

use super::resource::{NewMember, member_edits};
use crate::context::{Context, Edit, is_alive, say};
use crate::device::Disk;
use crate::error::{AdmError, Result};
use crate::rebase::{self, Start};
use crate::resource::parse_name;
use crate::wait::{Interrupt, Progress, wait_for};

const APPEAR_SECS: u64 = 10;

/// What the tree must tell before a node can join.
struct Source {
    host: HostName,
    bytes: u64,
    start: Start,
}

/// Joins `res` with a disk of this node.
pub(crate) fn run(ctx: &mut Context, res: &str, disk: &str, name: Option<&str>) -> Result<()> {
    let name_of_res = parse_name(res)?;
    let me = ctx.me().clone();
    let source = wait_for_source(ctx, &name_of_res)?;
    let tree = ctx.tree();
    let view = tree.resource(&name_of_res);
    if view.data(&me).is_some() {
        return Err(
            AdmError::refused(format!("resource '{res}' is already joined"))
                .link(LinkPath::res(&name_of_res, ResourceLink::Data(me))),
        );
    }
    let ip = LinkPath::Ip(me.clone());
    if tree.get(&ip).is_none() {
        return Err(AdmError::missing(format!(
            "my ip of '{me}' is not registered -- please run 'join-cluster' first"
        ))
        .link(format!("{ip} is missing")));
    }
    let mut new = NewMember::check(ctx, &tree, res, disk, name)?;
    check_size(&mut new, source.bytes)?;
    ctx.check_writable()?;
    say(&format!("joining to existing resource '{res}'"));
    new.announce();
    let mut edits = rebase::edits(view, &me, &source.start);
    // The peers: this node syncs from the source, the source from this node unless it has a peer.
    let connect =
        |host: &HostName| LinkPath::res(&name_of_res, ResourceLink::Connect(host.clone()));
    edits.push(Edit::Set(connect(&me), source.host.to_string()));
    if view.connect(&source.host).is_none() {
        edits.push(Edit::Set(connect(&source.host), me.to_string()));
    }
    edits.extend(member_edits(&new, &me));
    ctx.apply(&edits)?;
    if !ctx.opts.dry_run {
        new.make_sparse(&ctx.dir, &me)?;
        ctx.dir.sync_dirs()?;
    }
    ctx.done(&format!("successfully joined resource '{res}'"));
    Ok(())
}

/// Waits for a resource that marsd is just receiving; without marsd there is nothing to wait for.
fn wait_for_source(ctx: &mut Context, res: &ResourceName) -> Result<Source> {
    let me = ctx.me().clone();
    let interrupt = Interrupt::arm()?;
    let timeout = ctx.timeout(APPEAR_SECS);
    wait_for(ctx, &interrupt, timeout, |tree| {
        match find_source(tree, res, &me) {
            Ok(source) => Ok(Progress::Done(source)),
            Err(error) if !is_alive(tree, &me) => Err(error),
            Err(error) => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                Ok(Progress::Waiting(format!(
                    "waiting for the tree of the peers: {first}"
                )))
            }
        }
    })
}

fn find_source(tree: &Tree, res: &ResourceName, me: &HostName) -> Result<Source> {
    if !tree.dirs.contains(&format!("resource-{res}")) {
        return Err(
            AdmError::missing(format!("resource '{res}' does not exist"))
                .link(format!("resource-{res}/"))
                .remedy("check the name, and that marsd runs here and on a member of the resource"),
        );
    }
    let view = tree.resource(res);
    let size = LinkPath::res(res, ResourceLink::Size);
    let bytes = view
        .size_bytes()
        .ok_or_else(|| AdmError::missing(format!("resource '{res}' has no size")).link(size))?;
    let host = source_host(view, me)?;
    let stand_in = || stand_in(tree, view, me).filter(|_| !is_alive(tree, &host));
    if let Some((host, start)) = stand_in() {
        say(&format!("using '{host}' as source"));
        return Ok(Source { host, bytes, start });
    }
    let start = rebase::start(view, &host).map_err(|what| {
        AdmError::missing(format!(
            "cannot tell where to begin: {what} is not known here"
        ))
        .remedy(format!("is marsd running here and on {host}?"))
    })?;
    Ok(Source { host, bytes, start })
}

/// While the primary is away: the living member that has got furthest and has whole data.
fn stand_in(tree: &Tree, view: ResourceView<'_>, me: &HostName) -> Option<(HostName, Start)> {
    let mut members = view.replays();
    members.sort_by_key(|(_, pos)| std::cmp::Reverse(pos.order()));
    let fit = |host: &HostName| host != me && is_alive(tree, host) && is_consistent(view, host);
    members
        .into_iter()
        .filter(|(host, _)| fit(host))
        .find_map(|(host, _)| Some((host.clone(), rebase::start(view, host).ok()?)))
}

/// The primary; without one the writer of the newest log that is known.
fn source_host(view: ResourceView<'_>, me: &HostName) -> Result<HostName> {
    let link = LinkPath::res(view.name(), ResourceLink::Primary);
    let primary = view
        .primary()
        .ok_or_else(|| AdmError::missing("cannot determine primary").link(&link))?;
    if let Some(host) = primary {
        return Ok(host);
    }
    let newest = view
        .replays()
        .into_iter()
        .filter(|(host, _)| *host != me)
        .max_by_key(|(_, pos)| pos.order());
    let host = newest.map(|(host, _)| host.clone()).ok_or_else(|| {
        AdmError::missing("there is no primary, and no member with a replay position").link(&link)
    })?;
    say(&format!("using '{host}' as primary"));
    Ok(host)
}

/// A smaller disk cannot hold the data; of a larger one only the beginning is used.
fn check_size(new: &mut NewMember, bytes: u64) -> Result<()> {
    if new.bytes < bytes {
        return Err(AdmError::refused(format!(
            "the disk is too small: it has {} bytes, resource '{}' has {bytes}",
            new.bytes, new.res
        ))
        .link(format!(
            "{} -> {bytes}",
            LinkPath::res(&new.res, ResourceLink::Size)
        ))
        .remedy("take a larger one"));
    }
    if new.bytes > bytes {
        if matches!(new.disk, Disk::Device(_)) {
            say(&format!(
                "the disk is larger ({} bytes), {bytes} bytes of it are used",
                new.bytes
            ));
        } else {
            say(&format!("adjusting size to {bytes}"));
            new.disk = Disk::Sparse(bytes);
            new.bytes = bytes;
        }
    }
    Ok(())
}
