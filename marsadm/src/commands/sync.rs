//! `fake-sync`, `wait-sync` and `wait-replay`.

use mars_core::link::{ActualKey, ResourceLink};
use mars_core::plan::is_consistent;
use mars_core::{HostName, LinkPath, ResourceName, Switch};

use crate::context::{Context, Edit, is_alive};
use crate::error::{AdmError, Result};
use crate::history::History;
use crate::progress;
use crate::wait::{Interrupt, Progress, wait_for, wait_or_tell};

const STOP_SECS: u64 = 60;

/// Declares the disk of this node valid: the sync is switched off, and once it has stopped counts as finished.
pub(crate) fn fake(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let me = ctx.me().clone();
    let size = tree.resource(res).size_bytes().ok_or_else(|| {
        AdmError::missing(format!("resource '{res}' has no size"))
            .link(LinkPath::res(res, ResourceLink::Size))
    })?;
    let own = |link: ResourceLink| LinkPath::res(res, link);
    let switch = own(ResourceLink::Todo(me.clone(), Switch::Sync));
    ctx.apply(&[Edit::Set(switch, "0".into())])?;
    if !ctx.opts.dry_run {
        let interrupt = Interrupt::arm()?;
        let timeout = ctx.timeout(STOP_SECS);
        wait_for(ctx, &interrupt, timeout, |tree| {
            let running = tree
                .resource(res)
                .actual(&me, ActualKey::CopySyncstatus(me.clone()));
            Ok(if running && is_alive(tree, &me) {
                Progress::Waiting("waiting for the running sync to stop".into())
            } else {
                Progress::Done(())
            })
        })?;
    }
    // Without a position the sync counts as consistent at once.
    ctx.apply(&[
        Edit::Remove(own(ResourceLink::SyncPos(me.clone()))),
        Edit::Set(own(ResourceLink::SyncStatus(me.clone())), size.to_string()),
    ])?;
    ctx.done(&format!("successfully started fake-sync on resource {res}"));
    Ok(())
}

/// Waits until a node (this one, or `--node`) has synced and is consistent.
pub(crate) fn wait_sync(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let node = target(ctx, res)?;
    let interrupt = Interrupt::arm()?;
    let timeout = ctx.timeout(0);
    wait_or_tell(ctx, &interrupt, timeout, |tree| {
        let view = tree.resource(res);
        let (done, size) = (view.sync_status(&node), view.size_bytes());
        Ok(match (done, size) {
            (Some(done), Some(size)) if done < size => Progress::Waiting(format!(
                "waiting for sync of {node} ({done} / {size} bytes): {}",
                progress::sync(view, &node)
            )),
            _ if !is_consistent(view, &node) => Progress::Waiting(format!(
                "waiting for {node} to replay what was written during the sync ({})",
                progress::replay(view, &node)
            )),
            _ => Progress::Done(()),
        })
    })?;
    ctx.done(&format!("resource {res} is synced on {node}"));
    Ok(())
}

/// Waits until a node (this one, or `--node`) has replayed everything that any member is known to have.
pub(crate) fn wait_replay(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let node = target(ctx, res)?;
    let interrupt = Interrupt::arm()?;
    let timeout = ctx.timeout(0);
    wait_or_tell(ctx, &interrupt, timeout, |tree| {
        let view = tree.resource(res);
        let history = History::of(view);
        history.check_splitbrain(view, &node)?;
        Ok(match history.caught_up(view, &node) {
            Progress::Waiting(reason) => {
                Progress::Waiting(format!("{reason} ({})", progress::replay(view, &node)))
            }
            done => done,
        })
    })?;
    ctx.done(&format!("resource {res} is replayed on {node}"));
    Ok(())
}

fn target(ctx: &mut Context, res: &ResourceName) -> Result<HostName> {
    let node = ctx.opts.node.clone().unwrap_or_else(|| ctx.me().clone());
    if node == *ctx.me() {
        return Ok(node);
    }
    if !ctx.quiet_tree().resource(res).members().contains(&node) {
        return Err(AdmError::missing(format!(
            "{node} has not joined resource '{res}'"
        )));
    }
    Ok(node)
}
