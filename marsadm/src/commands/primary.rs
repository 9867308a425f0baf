//! `primary`: takes the role over, after making sure that nothing is lost and nobody else writes
//! (`symlink-spec.md` section 8.4).

use std::time::{Duration, Instant};

use mars_core::link::{ActualKey, NO_PRIMARY, ResourceLink};
use mars_core::plan::{is_consistent, knows_primary};
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Switch, Tree};

use crate::context::{Context, Edit, is_alive, say, silent_secs, warn};
use crate::error::{AdmError, Result};
use crate::exit::Exit;
use crate::history::History;
use crate::progress;
use crate::resource::primary_of;
use crate::wait::{Interrupt, Progress, wait_for};

const TIMEOUT_SECS: u64 = 60;
const SETTLE: Duration = Duration::from_secs(2);

/// Makes this node the primary of `res`.
pub(crate) fn run(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    let link = LinkPath::res(res, ResourceLink::Primary);
    if ctx.opts.force {
        return force(ctx, &tree, res, &link);
    }
    let old = primary_of(view)?;
    if old.as_ref() == Some(&me) {
        say("I am already primary.");
        return Ok(());
    }
    say(&format!("trying to switch {me} to primary..."));
    check(&tree, view, &me, old.as_ref())?;
    let interrupt = Interrupt::arm()?;
    check_history(ctx, &interrupt, res)?;
    say(&format!("OK, it seems that sync has finished on {me}."));
    if ctx.opts.dry_run {
        return ctx.apply(&[Edit::Set(link, me.to_string())]);
    }
    if let Some(old) = &old {
        set(ctx, &link, NO_PRIMARY)?;
        ctx.done(&format!("primary changed from '{old}' to '{NO_PRIMARY}'"));
    }
    let timeout = ctx.timeout(TIMEOUT_SECS);
    let mut contradiction = None;
    let ready = wait_for(ctx, &interrupt, timeout, |tree| {
        let verdict = may_switch(tree, res, &me, old.as_ref());
        settled(verdict, &mut contradiction)
    });
    if let Err(error) = ready {
        restore(ctx, &link, old.as_ref());
        return Err(error);
    }
    set(ctx, &link, me.as_str())?;
    let from = old.as_ref().map_or(NO_PRIMARY, HostName::as_str);
    ctx.done(&format!("primary changed from '{from}' to '{me}'"));
    wait_for_device(ctx, &interrupt, res)
}

fn set(ctx: &mut Context, link: &LinkPath, value: &str) -> Result<()> {
    ctx.apply(&[Edit::Set(link.clone(), value.into())])
}

/// Checks what waiting would not change.
fn check(tree: &Tree, view: ResourceView<'_>, me: &HostName, old: Option<&HostName>) -> Result<()> {
    let res = view.name();
    let own = |link: ResourceLink| LinkPath::res(res, link);
    let size = view.size_bytes().ok_or_else(|| {
        AdmError::missing(format!("resource '{res}' has no size")).link(own(ResourceLink::Size))
    })?;
    let sync_link = own(ResourceLink::SyncStatus(me.clone()));
    let Some(synced) = view.sync_status(me) else {
        return Err(
            AdmError::missing("nothing is known about the sync of this node")
                .link(format!("{sync_link} is missing"))
                .remedy(format!("marsadm invalidate {res}")),
        );
    };
    if synced < size {
        return Err(AdmError::refused(format!(
            "sync has not yet finished, only {synced} / {size} bytes transferred"
        ))
        .link(format!("{sync_link} -> {synced}"))
        .remedy(format!("wait for it: marsadm wait-sync {res}")));
    }
    if !is_consistent(view, me) {
        let until = view.sync_pos(me);
        let text = until.map_or_else(String::new, |p| format!(" before {},{}", p.log, p.pos));
        return Err(AdmError::refused(format!(
            "the data of this node is not consistent{text}: the logs written during the sync are not yet replayed"
        ))
        .link(own(ResourceLink::Replay(me.clone())))
        .remedy(format!("wait for it: marsadm wait-sync {res}")));
    }
    for (switch, command) in [
        (Switch::Attach, "attach"),
        (Switch::Connect, "connect-local"),
    ] {
        if !view.switch(me, switch) {
            let link = own(ResourceLink::Todo(me.clone(), switch));
            return Err(AdmError::refused(format!("{link} must have value 1"))
                .link(link)
                .remedy(format!("marsadm {command} {res}")));
        }
    }
    check_old_is_alive(tree, view, me)?;
    if let Some(old) = old.filter(|h| !is_alive(tree, h)) {
        warn(&format!("the primary {old} gives no sign of life"));
    }
    Ok(())
}

/// Refuses if the histories contradict each other for a while.
fn check_history(ctx: &mut Context, interrupt: &Interrupt, res: &ResourceName) -> Result<()> {
    let me = ctx.me().clone();
    let mut contradiction = None;
    wait_for(ctx, interrupt, ctx.timeout(TIMEOUT_SECS), |tree| {
        let view = tree.resource(res);
        let verdict = History::of(view).check_splitbrain(view, &me);
        settled(verdict.map(Progress::Done), &mut contradiction)
    })
}

/// A node that served the device and is silent cannot say that it stopped.
fn check_old_is_alive(tree: &Tree, view: ResourceView<'_>, me: &HostName) -> Result<()> {
    for host in other_primaries(view, me) {
        if is_alive(tree, &host) {
            continue;
        }
        let link = ResourceLink::Actual(host.clone(), ActualKey::IsPrimary);
        let last =
            silent_secs(tree, &host).map_or_else(|| "never".into(), |s| format!("{s:.0} s ago"));
        return Err(AdmError::refused(format!(
            "{host} serves the device as far as is known, and gives no sign of life (last: {last})"
        ))
        .link(format!("{} -> 1", LinkPath::res(view.name(), link)))
        .remedy(format!(
            "start marsd on {host}; if that node is lost: marsadm primary --force {}",
            view.name()
        )));
    }
    Ok(())
}

fn other_primaries(view: ResourceView<'_>, me: &HostName) -> Vec<HostName> {
    view.links()
        .filter_map(|(link, value)| match link {
            ResourceLink::Actual(host, ActualKey::IsPrimary) if value == "1" && host != me => {
                Some(host.clone())
            }
            _ => None,
        })
        .collect()
}

/// Links of another node arrive one after the other: what contradicts must do so for a while to be believed.
fn settled(
    verdict: Result<Progress<()>>,
    contradiction: &mut Option<Instant>,
) -> Result<Progress<()>> {
    match verdict {
        Err(error) if contradiction.get_or_insert_with(Instant::now).elapsed() >= SETTLE => {
            Err(error)
        }
        Err(_) => Ok(Progress::Waiting("waiting for the tree to settle".into())),
        Ok(progress) => {
            *contradiction = None;
            Ok(progress)
        }
    }
}

/// The conditions for the switch, in the order in which they come true.
fn may_switch(
    tree: &Tree,
    res: &ResourceName,
    me: &HostName,
    old: Option<&HostName>,
) -> Result<Progress<()>> {
    let view = tree.resource(res);
    if let Some(Some(other)) = view.primary() {
        return Err(
            AdmError::refused(format!("{other} was made primary meanwhile")).link(format!(
                "{} -> {other}",
                LinkPath::res(res, ResourceLink::Primary)
            )),
        );
    }
    let others = other_primaries(view, me);
    if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(HostName::as_str).collect();
        return Ok(Progress::Waiting(format!(
            "waiting for {} other primary host(s) to disappear: {}, whose device is open or still writing back{}",
            others.len(),
            names.join(" "),
            dirty(view, &others)
        )));
    }
    // What it said last may be older than its role.
    let unheard = |old: &&HostName| is_alive(tree, old) && !knows_primary(view, old);
    if let Some(old) = old.filter(unheard) {
        return Ok(Progress::Waiting(format!(
            "waiting for {old}, which was primary, to say that it does not serve the device (does marsd run there, and is it connected?)"
        )));
    }
    let history = History::of(view);
    history.check_splitbrain(view, me)?;
    let progress = history.caught_up(view, me);
    if let Progress::Waiting(reason) = progress {
        let reason = format!("{reason} ({})", progress::replay(view, me));
        let cannot = if !is_alive(tree, me) {
            Some("marsd does not run here")
        } else if !view.switch(me, Switch::AllowReplay) {
            Some("replay is switched off here, see resume-replay-local")
        } else {
            None
        };
        return Ok(Progress::Waiting(match cannot {
            Some(cannot) => format!("{cannot}: {reason}"),
            None => reason,
        }));
    }
    Ok(Progress::Done(()))
}

/// What the other primaries have logged and not yet written back, as far as it is published.
fn dirty(view: ResourceView<'_>, hosts: &[HostName]) -> String {
    let lens = hosts.iter().filter_map(|h| view.replay(h));
    match lens.map(|pos| pos.dirty_len).filter(|len| *len > 0).sum() {
        0i64 => String::new(),
        bytes => format!(" ({bytes} bytes not yet written back)"),
    }
}

/// Puts the old primary back, unless somebody else has decided meanwhile; says what is now.
fn restore(ctx: &mut Context, link: &LinkPath, old: Option<&HostName>) {
    let Some(old) = old else { return };
    let now = ctx.dir.read_link(link).ok().flatten();
    if now.as_ref().is_none_or(|l| l.value != NO_PRIMARY) {
        let now = now.map_or_else(|| "unknown".into(), |l| l.value);
        say(&format!("primary is now '{now}'"));
        return;
    }
    match set(ctx, link, old.as_str()) {
        Ok(()) => say(&format!("primary restored to '{old}'")),
        Err(error) => warn(&format!(
            "primary is now '{NO_PRIMARY}', it could not be restored: {error}"
        )),
    }
}

/// With a running marsd the device appears soon; without one the link is all.
fn wait_for_device(ctx: &mut Context, interrupt: &Interrupt, res: &ResourceName) -> Result<()> {
    let me = ctx.me().clone();
    if !is_alive(&ctx.quiet_tree(), &me) {
        say(&format!(
            "marsd does not run on {me}: the device appears when it is started"
        ));
        return Ok(());
    }
    let timeout = ctx.timeout(TIMEOUT_SECS);
    wait_for(ctx, interrupt, timeout, |tree| {
        let view = tree.resource(res);
        if view.actual(&me, ActualKey::IsPrimary) {
            return Ok(Progress::Done(()));
        }
        let key = ResourceLink::Actual(me.clone(), ActualKey::Error);
        Ok(Progress::Waiting(match view.get(key) {
            None | Some("none") => "waiting for the device".into(),
            Some(error) => format!("waiting for the device (marsd says: {error})"),
        }))
    })
    .map_err(|error| match error.code {
        Exit::Timeout => AdmError::new(
            Exit::Timeout,
            format!("primary is set to '{me}', but the device has not appeared: {error}"),
        ),
        _ => error,
    })
}

/// Names what other members are known to have and this node has not.
fn warn_losses(view: ResourceView<'_>, me: &HostName) {
    let own = view.replay(me);
    let mine = own
        .as_ref()
        .map_or_else(|| "nothing".into(), |o| format!("{},{}", o.log, o.pos));
    let bytes = progress::behind_bytes(view, me);
    for (host, pos) in view.replays() {
        let end = pos
            .pos
            .saturating_add(u64::try_from(pos.dirty_len).unwrap_or(0));
        let ahead = own
            .as_ref()
            .is_none_or(|o| (pos.log.seq, end) > (o.log.seq, o.pos));
        if host != me && ahead {
            warn(&format!(
                "{host} is at {},{end}, this node at {mine}: what lies between ({bytes} bytes of logs as far as is known) is lost unless it is here already, and {host} must be invalidated",
                pos.log
            ));
        }
    }
}

/// Sets the link whatever speaks against it, after saying what that costs.
fn force(ctx: &mut Context, tree: &Tree, res: &ResourceName, link: &LinkPath) -> Result<()> {
    let view = tree.resource(res);
    let me = ctx.me().clone();
    say(&format!("FORCING myself ({me}) to primary..."));
    warn_losses(view, &me);
    if !is_consistent(view, &me) {
        warn("the data of this node is NOT consistent: the sync is not finished");
    }
    for host in other_primaries(view, &me) {
        warn(&format!(
            "{host} still serves the device: if it goes on writing, this is a split brain"
        ));
    }
    let old = view
        .get(ResourceLink::Primary)
        .unwrap_or("unknown")
        .to_string();
    set(ctx, link, me.as_str())?;
    ctx.done(&format!("primary changed from '{old}' to '{me}'"));
    if ctx.opts.dry_run || !view.switch(&me, Switch::Attach) {
        return Ok(());
    }
    let interrupt = Interrupt::arm()?;
    wait_for_device(ctx, &interrupt, res)
}
