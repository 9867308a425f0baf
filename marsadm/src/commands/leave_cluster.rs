//! `leave-cluster`: all nodes forget this node, or (`--host`) a dead one that will not come back and cannot say so itself
//! (`symlink-spec.md` section 7).

use mars_core::link::ResourceLink;
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Tree};

use super::leave_resource::redirect_peers;
use crate::context::{Context, Edit, is_alive, say};
use crate::error::{AdmError, Result};

/// Makes this node, or that of `--host`, leave.
pub(crate) fn run(ctx: &mut Context) -> Result<()> {
    let tree = ctx.tree();
    match ctx.opts.node.clone().filter(|host| host != ctx.me()) {
        Some(host) => remove(ctx, &tree, &host),
        None => leave(ctx, &tree),
    }
}

/// Orders all nodes to forget address and key of this node.
fn leave(ctx: &mut Context, tree: &Tree) -> Result<()> {
    let me = ctx.me().clone();
    let member = tree
        .resources()
        .find(|r| tree.resource(r).members().contains(&me));
    if let Some(res) = member.filter(|_| !ctx.opts.force) {
        return Err(AdmError::refused("I am member of some resources")
            .link(format!("resource-{res}/data-{me}"))
            .remedy(format!("marsadm leave-resource {res}")));
    }
    let links = [LinkPath::Ip(me.clone()), LinkPath::Key(me.clone())];
    if tree.get(&links[0]).is_none() {
        return Err(AdmError::missing(format!("{me} is in no cluster"))
            .link(format!("{} is missing", links[0])));
    }
    let orders: Vec<Edit> = links.iter().map(|l| Edit::Order(l.to_string())).collect();
    ctx.apply(&orders)?;
    if !is_alive(tree, &me) {
        // Without a daemon nobody carries the order out here.
        let removals: Vec<Edit> = links.into_iter().map(Edit::Remove).collect();
        ctx.apply(&removals)?;
    }
    ctx.done(&format!("{me} leaves the cluster"));
    Ok(())
}

/// Orders all nodes to forget another node and its memberships; its disks and its tree are not touched.
fn remove(ctx: &mut Context, tree: &Tree, host: &HostName) -> Result<()> {
    let resources: Vec<ResourceName> = tree
        .resources()
        .filter(|res| {
            tree.resource(res)
                .links()
                .any(|(l, _)| l.member() == Some(host))
        })
        .collect();
    check(ctx, tree, host, &resources)?;
    let mut gone: Vec<LinkPath> = node_links(host)
        .into_iter()
        .filter(|path| tree.get(path).is_some())
        .collect();
    if gone.is_empty() && resources.is_empty() {
        return Err(
            AdmError::missing(format!("{host} is in no cluster that is known here"))
                .link(format!("{} is missing", LinkPath::Ip(host.clone()))),
        );
    }
    let mut edits = Vec::new();
    for res in &resources {
        let view = tree.resource(res);
        say(&format!("{host} leaves resource '{res}'"));
        edits.extend(redirect_peers(view, host));
        let own = view.links().filter(|(link, _)| link.member() == Some(host));
        gone.extend(own.map(|(link, _)| LinkPath::res(res, link.clone())));
    }
    edits.extend(gone.iter().cloned().map(Edit::Remove));
    edits.extend(gone.iter().map(|path| Edit::Order(path.to_string())));
    ctx.apply(&edits)?;
    ctx.done(&format!("{host} is removed from the cluster"));
    Ok(())
}

fn check(ctx: &Context, tree: &Tree, host: &HostName, resources: &[ResourceName]) -> Result<()> {
    if is_alive(tree, host) && !ctx.opts.force {
        let link = LinkPath::Alive(host.clone());
        return Err(
            AdmError::refused(format!("{host} gives signs of life: it must leave by itself"))
                .link(format!("{link} -> 1"))
                .remedy(format!(
                    "there: marsadm leave-resource all; marsadm leave-cluster; if {host} was lost just now: wait 100 s, or --force"
                )),
        );
    }
    let leads = |view: ResourceView<'_>| view.is_designated_primary(host);
    if let Some(res) = resources.iter().find(|res| leads(tree.resource(res))) {
        let link = LinkPath::res(res, ResourceLink::Primary);
        return Err(
            AdmError::refused(format!("{host} is primary of resource '{res}'"))
                .link(format!("{link} -> {host}"))
                .remedy(format!("on another member: marsadm --force primary {res}")),
        );
    }
    Ok(())
}

/// What stands in the tree about a node beside the resources.
fn node_links(host: &HostName) -> [LinkPath; 7] {
    let host = || host.clone();
    [
        LinkPath::Ip(host()),
        LinkPath::Key(host()),
        LinkPath::Alive(host()),
        LinkPath::Exhausted(host()),
        LinkPath::Jammed(host()),
        LinkPath::RestSpace(host()),
        LinkPath::Deleted(host()),
    ]
}
