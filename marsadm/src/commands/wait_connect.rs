//! `wait-connect`: waits until the nodes of a resource hear of each other.

use mars_core::link::ResourceLink;
use mars_core::{HostName, LinkPath, ResourceName, Switch};

use crate::context::{Context, is_alive, silent_secs};
use crate::error::{AdmError, Result};
use crate::wait::{Interrupt, Progress, wait_or_tell};

/// Waits until marsd runs here and on every other member (or on `--node`), and `connect` is on here.
pub(crate) fn run(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    if !view.switch(&me, Switch::Connect) {
        let link = LinkPath::res(res, ResourceLink::Todo(me.clone(), Switch::Connect));
        return Err(AdmError::refused(
            "connect is switched off here, there is nothing to wait for",
        )
        .link(format!(
            "{link} -> {}",
            tree.get(&link).unwrap_or("missing")
        ))
        .remedy(format!("marsadm connect-local {res}")));
    }
    let wanted = ctx.opts.node.clone();
    let others: Vec<HostName> = view
        .members()
        .into_iter()
        .filter(|&h| *h != me && wanted.as_ref().is_none_or(|w| w == h))
        .cloned()
        .collect();
    if others.is_empty() {
        let who = wanted.map_or_else(|| "no other node".into(), |w| w.to_string());
        return Err(
            AdmError::missing(format!("{who} is a member of resource '{res}'"))
                .link(format!("resource-{res}/replay-*"))
                .remedy(format!(
                    "on another node: marsadm join-resource {res} DEVICE"
                )),
        );
    }
    let interrupt = Interrupt::arm()?;
    let timeout = ctx.timeout(0);
    wait_or_tell(ctx, &interrupt, timeout, |tree| {
        if !is_alive(tree, &me) {
            return Ok(Progress::Waiting(format!(
                "waiting for marsd on {me}, this node"
            )));
        }
        let silent = others.iter().find(|h| !is_alive(tree, h));
        Ok(silent.map_or(Progress::Done(()), |host| {
            let last = silent_secs(tree, host);
            let last = last.map_or_else(String::new, |s| format!(" (silent for {s:.0} s)"));
            Progress::Waiting(format!("waiting for marsd on {host}{last}"))
        }))
    })?;
    ctx.done(&format!("resource {res} is connected"));
    Ok(())
}
