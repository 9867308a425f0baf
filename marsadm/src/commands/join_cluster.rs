//! `join-cluster`: exchanges addresses and keys with a node of the cluster, by rsync over ssh.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use mars_core::{HostName, LinkPath, Tree};
use mars_tree::{TreeDir, key};

use super::cluster::create_local_part;
use crate::address;
use crate::context::{Context, Edit, say, warn};
use crate::error::{AdmError, Result};
use crate::exit::Exit;
use crate::ssh::{self, Peer, SshOptions};

const REMOTE_ROOT: &str = "/mars/";
const REMOTE_IPS: &str = "/mars/ips/";

/// Joins the cluster that `peer` belongs to.
pub(crate) fn run(
    ctx: &mut Context,
    peer: &str,
    ip: Option<&str>,
    options: &SshOptions,
) -> Result<()> {
    let good = peer.parse::<std::net::IpAddr>().is_ok() || HostName::new(peer).is_ok();
    if !good {
        return Err(AdmError::new(
            Exit::Usage,
            format!("'{peer}' is neither a host name nor an address"),
        ));
    }
    let given = ip.map(address::parse).transpose()?;
    if !ctx.opts.force {
        check_new(ctx)?;
    }
    ctx.check_writable()?;
    say(&format!("joining cluster via rsync (peer='{peer}')"));
    let session = Peer::connect(peer, options)?;
    let name = check_peer(&session, peer)?;
    if ctx.opts.dry_run {
        say(&format!("would exchange {REMOTE_IPS} with {name}"));
        return Ok(());
    }
    ctx.dir.create_root()?;
    let staged = fetch(ctx, &session)?;
    check_staged(ctx, &staged, &name)?;
    let address = given.unwrap_or_else(|| address::format_ip(session.local_ip));
    merge(ctx, &staged)?;
    create_local_part(ctx, Some(&address))?;
    push(ctx, &session)?;
    let tree = ctx.tree();
    let nodes: Vec<&str> = tree.hosts().map(HostName::as_str).collect();
    ctx.done(&format!(
        "successfully joined the cluster of {name}, with the nodes: {}",
        nodes.join(" ")
    ));
    Ok(())
}

/// A node that already knows resources or other nodes belongs to another cluster.
fn check_new(ctx: &Context) -> Result<()> {
    let tree = ctx.tree();
    let resource = tree.resources().next().map(|r| format!("resource-{r}/"));
    let other = tree
        .hosts()
        .find(|h| *h != ctx.me())
        .map(|h| LinkPath::Ip(h.clone()).to_string());
    match resource.or(other) {
        None => Ok(()),
        Some(link) => Err(AdmError::refused(
            "Sorry, some resources already exist!\n  This node belongs to a cluster already, and two clusters cannot be merged.",
        )
        .link(link)
        .remedy("leave that cluster first; if you are sure that both are the same: --force")),
    }
}

/// The name of the peer, which must be in a cluster and have rsync.
fn check_peer(session: &Peer, peer: &str) -> Result<HostName> {
    let done = session.exec("uname -n && test -d /mars/ips && rsync --version")?;
    let mut lines = done.output.lines();
    let name = lines.next().unwrap_or_default();
    let name = HostName::new(name)
        .map_err(|e| AdmError::new(Exit::Peer, format!("name of the peer {peer}: {e}")))?;
    if done.status == 0 {
        return Ok(name);
    }
    let said = done.errors.trim_end();
    let what = format!(
        "{name} has no /mars/ips, or no rsync{}{said}",
        if said.is_empty() { "" } else { ": " }
    );
    Err(AdmError::new(Exit::Peer, what).remedy(format!(
        "on {name}: marsadm create-cluster, and install rsync"
    )))
}

/// A directory below the root that goes away with this value.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        // Hidden, and replaced by the next try.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Addresses and keys as the peer has them, and the deletion orders: what this node writes must be newer than an order
/// that made the cluster forget a node of the same name.
fn fetch(ctx: &Context, session: &Peer) -> Result<Tree> {
    let staging = Staging(ctx.dir.root().join(".tmp-join"));
    let dir = TreeDir::new(&staging.0);
    let _ = fs::remove_dir_all(&staging.0);
    dir.create_dir("ips")?;
    let mut target = staging.0.clone().into_os_string();
    target.push("/");
    let only = [
        "--include=/ips/***",
        "--include=/todo-global/***",
        "--exclude=*",
    ];
    ssh::rsync(
        session,
        &rsync_args(&only, format!("peer:{REMOTE_ROOT}").into(), target),
    )?;
    let loaded = dir.load();
    for problem in loaded.problems {
        warn(&format!("of the peer: {problem} (left out)"));
    }
    Ok(loaded.tree)
}

/// Links with their times, nothing hidden.
fn rsync_args(filters: &[&str], from: OsString, to: OsString) -> Vec<OsString> {
    // Without the window rsync takes two times within one second for the same and leaves its own.
    let options = [
        "--recursive",
        "--links",
        "--times",
        "--modify-window=-1",
        "--exclude=.*",
    ];
    let words = options.iter().chain(filters).map(OsString::from);
    words.chain([from, to]).collect()
}

fn check_staged(ctx: &Context, staged: &Tree, name: &HostName) -> Result<()> {
    let me = ctx.me();
    if name == me {
        return Err(
            AdmError::refused(format!("the peer has the name of this node: {me}"))
                .remedy("every node needs a name of its own (uname -n, or MARS_HOST)"),
        );
    }
    for link in [LinkPath::Ip(name.clone()), LinkPath::Key(name.clone())] {
        if staged.get(&link).is_none() {
            return Err(
                AdmError::new(Exit::Peer, format!("{name} is itself in no cluster"))
                    .link(format!("{link} is missing on {name}"))
                    .remedy(format!("on {name}: marsadm create-cluster")),
            );
        }
    }
    let own = key::load_or_create(ctx.dir.root(), me)?.public_hex;
    let link = LinkPath::Key(me.clone());
    match staged.get(&link) {
        Some(known) if known != own && !ctx.opts.force => Err(AdmError::refused(format!(
            "the cluster knows a node {me} already, with another key"
        ))
        .link(format!("{link} on {name}"))
        .remedy("if that was this node before it was set up anew: --force; else give this node another name")),
        _ => Ok(()),
    }
}

/// Newer links of the others; of the own ones only the stamps are noted, so that the own values win.
fn merge(ctx: &Context, staged: &Tree) -> Result<()> {
    ctx.observe(staged);
    ctx.apply(&[Edit::Dir("ips".into())])?;
    for (path, link) in &staged.links {
        let other = match path {
            LinkPath::Ip(host) | LinkPath::Key(host) => host != ctx.me(),
            _ => false,
        };
        if other {
            ctx.dir.write_newer(path, link)?;
        }
    }
    Ok(())
}

/// Own address and key (and what else is known) to the peer, from where they spread.
fn push(ctx: &Context, session: &Peer) -> Result<()> {
    // Written anew, so that they are newer than what the cluster may have from before.
    let tree = ctx.tree();
    for link in [
        LinkPath::Ip(ctx.me().clone()),
        LinkPath::Key(ctx.me().clone()),
    ] {
        if let Some(value) = tree.get(&link) {
            ctx.apply(&[Edit::Set(link, value.into())])?;
        }
    }
    let mut from: OsString = ctx.dir.root().join("ips").into();
    from.push("/");
    ssh::rsync(
        session,
        &rsync_args(&[], from, format!("peer:{REMOTE_IPS}").into()),
    )
}
