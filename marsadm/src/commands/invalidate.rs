//! `invalidate` and `invalidate-remote`: throw a copy away and sync anew.

use mars_core::link::{ActualKey, NO_PRIMARY, ResourceLink};
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Switch};

use crate::context::{Context, Edit, is_alive, say};
use crate::error::{AdmError, Result};
use crate::rebase;
use crate::resource::primary_of;
use crate::ssh::{self, SshOptions};
use crate::wait::{Interrupt, Progress, wait_for};

const STOP_SECS: u64 = 60;

/// Throws the data of this node away; the sync starts as soon as the daemon sees it.
pub(crate) fn run(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    let source = check(view, &me)?;
    rebase::start(view, &source).map_err(|what| not_known(res, &what))?;
    let own = |link: ResourceLink| LinkPath::res(res, link);
    let replay = own(ResourceLink::Todo(me.clone(), Switch::AllowReplay));
    let sync = own(ResourceLink::Todo(me.clone(), Switch::Sync));
    let transfer = own(ResourceLink::Todo(me.clone(), Switch::Connect));
    let replayed = view.switch(&me, Switch::AllowReplay);
    let transferred = view.switch(&me, Switch::Connect);
    let stop = [&replay, &sync, &transfer].map(|link| Edit::Set(link.clone(), "0".into()));
    ctx.apply(&stop)?;
    let mut result = stop_and_rebase(ctx, res, &source);
    // The switches come back whether it worked or not; the sync is on again also after a fake-sync.
    let mut back = vec![Edit::Set(sync, "1".into())];
    for (was_on, link) in [(replayed, replay), (transferred, transfer)] {
        if was_on {
            back.push(Edit::Set(link, "1".into()));
        }
    }
    if result.is_ok() && view.connect(&me).as_ref() != Some(&source) {
        back.push(Edit::Set(
            own(ResourceLink::Connect(me.clone())),
            source.to_string(),
        ));
    }
    let restored = ctx.apply(&back);
    if result.is_ok() {
        result = restored;
    }
    result?;
    ctx.done(&format!(
        "resource {res} is invalidated on {me} and will be synced from {source}"
    ));
    Ok(())
}

fn check(view: ResourceView<'_>, me: &HostName) -> Result<HostName> {
    let res = view.name();
    let primary = LinkPath::res(res, ResourceLink::Primary);
    let source = primary_of(view)?;
    if source.as_ref() == Some(me) || view.actual(me, ActualKey::IsPrimary) {
        return Err(
            AdmError::refused("operation 'invalidate' cannot be executed on primary")
                .link(format!(
                    "{primary} -> {}",
                    view.get(ResourceLink::Primary).unwrap_or("")
                ))
                .remedy("make another node primary first"),
        );
    }
    source.ok_or_else(|| {
        AdmError::refused("there is no primary to sync from")
            .link(format!("{primary} -> {NO_PRIMARY}"))
            .remedy(format!(
                "on the node with the right data: marsadm primary {res}"
            ))
    })
}

fn not_known(res: &ResourceName, what: &str) -> AdmError {
    AdmError::missing(format!(
        "cannot tell where to begin: {what} is not known here"
    ))
    .link(format!("resource-{res}/"))
    .remedy("wait until the tree of the primary has arrived; is marsd running on both?")
}

/// Waits until nothing writes the own position any more, then begins anew.
fn stop_and_rebase(ctx: &mut Context, res: &ResourceName, source: &HostName) -> Result<()> {
    let me = ctx.me().clone();
    let interrupt = Interrupt::arm()?;
    if !ctx.opts.dry_run {
        let timeout = ctx.timeout(STOP_SECS);
        wait_for(ctx, &interrupt, timeout, |tree| {
            let view = tree.resource(res);
            let rate = ResourceLink::Actual(me.clone(), ActualKey::ReplayRate);
            let busy = view.actual(&me, ActualKey::CopySyncstatus(me.clone()))
                || view.actual(&me, ActualKey::LogfileUpdate)
                || view.get(rate).is_some_and(|v| v != "0");
            Ok(if busy && is_alive(tree, &me) {
                Progress::Waiting("waiting for transfer, sync and replay to stop".into())
            } else {
                Progress::Done(())
            })
        })?;
    }
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let start = rebase::start(view, source).map_err(|what| not_known(res, &what))?;
    ctx.apply(&rebase::edits(view, &me, &start))
}

/// Runs `invalidate` on the other members over ssh: only a node itself may speak about its disk.
pub(crate) fn remote(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    let primary = primary_of(view)?;
    let wanted = ctx.opts.node.clone();
    let targets: Vec<HostName> = view
        .members()
        .into_iter()
        .filter(|&h| *h != me && wanted.as_ref().is_none_or(|w| w == h))
        .cloned()
        .collect();
    if let Some(host) = wanted.as_ref().filter(|w| primary.as_ref() == Some(*w)) {
        return Err(AdmError::refused(format!(
            "{host} is primary: its data is what the others are synced from"
        ))
        .link(format!(
            "{} -> {host}",
            LinkPath::res(res, ResourceLink::Primary)
        )));
    }
    let targets: Vec<HostName> = targets
        .into_iter()
        .filter(|h| primary.as_ref() != Some(h))
        .collect();
    if targets.is_empty() {
        return Err(AdmError::missing(format!(
            "no other member of resource '{res}' can be invalidated"
        )));
    }
    let mut result = Ok(());
    for host in targets {
        if ctx.opts.dry_run {
            say(&format!("would run 'marsadm invalidate {res}' on {host}"));
            continue;
        }
        let address = tree
            .get(&LinkPath::Ip(host.clone()))
            .unwrap_or(host.as_str());
        let timeout = ctx.opts.timeout_secs;
        let timeout = timeout.map_or_else(String::new, |secs| format!(" --timeout {secs}"));
        match ssh::run_remote(
            address,
            &format!("marsadm{timeout} invalidate {res}"),
            &SshOptions::default(),
        ) {
            Ok(output) => say(&format!("{host}: {}", output.trim_end())),
            Err(error) => {
                let remedy = format!("run on {host}: marsadm invalidate {res}");
                result = Err(AdmError::new(error.code, format!("{host}: {error}")).remedy(remedy));
                if let Err(error) = &result {
                    crate::print_error(error);
                }
            }
        }
    }
    result.map_err(|e| AdmError::new(e.code, "not all members were invalidated, see above"))
}
