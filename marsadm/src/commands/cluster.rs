//! `create-cluster`, and the local part that `join-cluster` shares with it.

use mars_core::LinkPath;
use mars_tree::key;

use crate::address;
use crate::context::{Context, Edit};
use crate::error::{AdmError, Result};

/// Makes this node the first of a new cluster.
pub(crate) fn create(ctx: &mut Context, ip: Option<&str>) -> Result<()> {
    let tree = ctx.tree();
    if tree.dirs.contains("ips") && !ctx.opts.force {
        return Err(AdmError::refused("cluster is already created")
            .link("ips/")
            .remedy("nothing is to be done; a new node uses: marsadm join-cluster PEER"));
    }
    create_local_part(ctx, ip)?;
    if !ctx.opts.dry_run {
        ctx.done(&format!("successfully created cluster on {}", ctx.me()));
    }
    Ok(())
}

/// Creates what every node of a cluster has. An address is changed only if `ip` is given; other links are kept.
pub(crate) fn create_local_part(ctx: &Context, ip: Option<&str>) -> Result<()> {
    let me = ctx.me().clone();
    let tree = ctx.quiet_tree();
    let mut edits: Vec<Edit> = [
        "ips".to_string(),
        "userspace".into(),
        "defaults".into(),
        format!("defaults-{me}"),
        "todo-global".into(),
    ]
    .into_iter()
    .map(Edit::Dir)
    .collect();
    let ip_link = LinkPath::Ip(me.clone());
    let address = match (ip, tree.get(&ip_link)) {
        (Some(ip), _) => Some(address::parse(ip)?),
        (None, Some(_)) => None,
        (None, None) => Some(address::of_route_out()?),
    };
    if !ctx.opts.dry_run {
        ctx.dir.create_root()?;
        ctx.check_writable()?;
        let key = key::load_or_create(ctx.dir.root(), &me)?;
        let link = LinkPath::Key(me.clone());
        if tree.get(&link) != Some(&key.public_hex) {
            edits.push(Edit::Set(link, key.public_hex));
        }
    }
    if let Some(address) = address {
        edits.push(Edit::Set(ip_link, address));
    }
    let deleted = LinkPath::Deleted(me);
    if tree.get(&deleted).is_none() {
        edits.push(Edit::Set(deleted, "1".into()));
    }
    ctx.apply(&edits)
}
