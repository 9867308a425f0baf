//! The switches: connect, attach, sync and replay, on and off, here or on all nodes; `up` and `down` are sequences of them.

use std::path::Path;

use mars_core::link::{ActualKey, ResourceLink};
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Switch};

use crate::context::{Context, Edit};
use crate::device;
use crate::error::{AdmError, Result};

/// One switch command.
#[derive(Debug)]
pub(crate) struct SwitchCommand {
    /// Name of the command, for messages.
    name: &'static str,
    /// What it starts or stops, for messages.
    subject: &'static str,
    switch: Switch,
    on: bool,
    everywhere: bool,
}

const fn command(
    name: &'static str,
    subject: &'static str,
    switch: Switch,
    on: bool,
    everywhere: bool,
) -> SwitchCommand {
    SwitchCommand {
        name,
        subject,
        switch,
        on,
        everywhere,
    }
}

const ON_ATTACH: SwitchCommand = command("attach", "attach", Switch::Attach, true, false);
const OFF_ATTACH: SwitchCommand = command("detach", "attach", Switch::Attach, false, false);
const ON_CONNECT: SwitchCommand = command("connect", "connect", Switch::Connect, true, true);
const OFF_CONNECT: SwitchCommand = command("disconnect", "connect", Switch::Connect, false, true);
const ON_SYNC: SwitchCommand = command("resume-sync", "sync", Switch::Sync, true, true);
const OFF_SYNC: SwitchCommand = command("pause-sync", "sync", Switch::Sync, false, true);
const ON_REPLAY: SwitchCommand =
    command("resume-replay", "replay", Switch::AllowReplay, true, true);
const OFF_REPLAY: SwitchCommand =
    command("pause-replay", "replay", Switch::AllowReplay, false, true);

pub(crate) static ATTACH: [SwitchCommand; 1] = [ON_ATTACH];
pub(crate) static DETACH: [SwitchCommand; 1] = [OFF_ATTACH];
pub(crate) static CONNECT: [SwitchCommand; 1] = [ON_CONNECT];
pub(crate) static DISCONNECT: [SwitchCommand; 1] = [OFF_CONNECT];
pub(crate) static RESUME_SYNC: [SwitchCommand; 1] = [ON_SYNC];
pub(crate) static PAUSE_SYNC: [SwitchCommand; 1] = [OFF_SYNC];
pub(crate) static RESUME_REPLAY: [SwitchCommand; 1] = [ON_REPLAY];
pub(crate) static PAUSE_REPLAY: [SwitchCommand; 1] = [OFF_REPLAY];
pub(crate) static CONNECT_LOCAL: [SwitchCommand; 1] = [command(
    "connect-local",
    "connect",
    Switch::Connect,
    true,
    false,
)];
pub(crate) static DISCONNECT_LOCAL: [SwitchCommand; 1] = [command(
    "disconnect-local",
    "connect",
    Switch::Connect,
    false,
    false,
)];
pub(crate) static RESUME_SYNC_LOCAL: [SwitchCommand; 1] = [command(
    "resume-sync-local",
    "sync",
    Switch::Sync,
    true,
    false,
)];
pub(crate) static PAUSE_SYNC_LOCAL: [SwitchCommand; 1] = [command(
    "pause-sync-local",
    "sync",
    Switch::Sync,
    false,
    false,
)];
pub(crate) static RESUME_REPLAY_LOCAL: [SwitchCommand; 1] = [command(
    "resume-replay-local",
    "replay",
    Switch::AllowReplay,
    true,
    false,
)];
pub(crate) static PAUSE_REPLAY_LOCAL: [SwitchCommand; 1] = [command(
    "pause-replay-local",
    "replay",
    Switch::AllowReplay,
    false,
    false,
)];
/// In this order.
pub(crate) static UP: [SwitchCommand; 4] = [ON_ATTACH, ON_CONNECT, ON_SYNC, ON_REPLAY];
/// The reverse of `up`.
pub(crate) static DOWN: [SwitchCommand; 4] = [OFF_REPLAY, OFF_SYNC, OFF_CONNECT, OFF_ATTACH];

/// Carries out a sequence of switch commands; if one may not be done, none is.
pub(crate) fn run(ctx: &mut Context, res: &ResourceName, commands: &[SwitchCommand]) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    if !ctx.opts.force && commands.iter().any(|c| c.switch == Switch::Attach && !c.on) {
        check_detach(view, &me)?;
    }
    let mut edits = Vec::new();
    let mut messages = Vec::new();
    for command in commands {
        if commands.len() > 1 {
            messages.push(command.name.to_string());
        }
        for host in hosts(view, &me, command.everywhere) {
            let link = ResourceLink::Todo(host.clone(), command.switch);
            let wanted = if command.on { "1" } else { "0" };
            let already = view.get(link.clone()) == Some(wanted);
            messages.push(message(command, res, &host, &me, already));
            if !already {
                edits.push(Edit::Set(LinkPath::res(res, link), wanted.into()));
            }
        }
    }
    ctx.apply(&edits)?;
    for message in messages {
        ctx.done(&message);
    }
    Ok(())
}

/// This node, or all members and all others that have switches.
fn hosts(view: ResourceView<'_>, me: &HostName, everywhere: bool) -> Vec<HostName> {
    if !everywhere {
        return vec![me.clone()];
    }
    let mut hosts: Vec<HostName> = view
        .links()
        .filter_map(|(link, _)| match link {
            ResourceLink::Todo(host, _) | ResourceLink::Data(host) => Some(host.clone()),
            _ => None,
        })
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

fn message(
    command: &SwitchCommand,
    res: &ResourceName,
    host: &HostName,
    me: &HostName,
    already: bool,
) -> String {
    let SwitchCommand {
        name, subject, on, ..
    } = command;
    let place = if host == me {
        String::new()
    } else {
        format!(" (node {host})")
    };
    match (*on, already) {
        (true, true) => format!("{name} on resource {res} is already activated{place}"),
        (true, false) => format!("successfully started {name} on resource {res}{place}"),
        (false, true) => format!("{subject} on resource {res} is already stopped by {name}{place}"),
        (false, false) => format!("successfully stopped {subject} on resource {res}{place}"),
    }
}

/// An open device cannot be taken away.
fn check_detach(view: ResourceView<'_>, me: &HostName) -> Result<()> {
    let Some(name) = view.device(me) else {
        return Ok(());
    };
    let path = Path::new("/dev/mars").join(name);
    let served = view.actual(me, ActualKey::IsPrimary) || view.is_designated_primary(me);
    match device::in_use(&path).filter(|_| served) {
        Some(by) => Err(
            AdmError::refused(format!("cannot detach: {} is {by}", path.display()))
                .link(LinkPath::res(
                    view.name(),
                    ResourceLink::Todo(me.clone(), Switch::Attach),
                ))
                .remedy("unmount or close it first"),
        ),
        None => Ok(()),
    }
}
