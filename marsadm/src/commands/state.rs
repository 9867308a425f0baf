//! `cstate`, `dstate` and `status`: the words of mars-status, for scripts that know DRBD (`symlink-spec.md` section 11).

use mars_core::status::{Alive, Context as StatusContext, NodeStatus, ResourceStatus};
use mars_core::{HostName, LinkPath, ResourceName, Stamp, Tree};
use mars_tree::{load_daemon_lock, wall_clock};

use crate::context::{Context, say};
use crate::error::{AdmError, Result};
use crate::resource::DEVICE_DIR;

/// Prints `Connect` or `Disconnect`.
pub(crate) fn cstate(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let node = node(ctx, res)?;
    say(connection(&node));
    Ok(())
}

/// Prints `UpToDate`, `UpDateIng`, `OutDate`, `SwitchOff`, `InvaliDate` or `Failed`.
pub(crate) fn dstate(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let node = node(ctx, res)?;
    say(state(&node));
    Ok(())
}

/// Prints one line: the own node first, the others behind slashes.
pub(crate) fn status(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let status = load(ctx, res);
    let join = |word: &dyn Fn(&NodeStatus) -> String| {
        let words: Vec<String> = status.nodes.iter().map(word).collect();
        words.join("/")
    };
    let own = status.local();
    let device = own
        .and_then(|n| n.member.as_ref())
        .map_or("", |m| m.device.as_str());
    say(&format!(
        "{res}: cs:{} ro:{} ds:{} {DEVICE_DIR}{device} nodes:{}",
        own.map_or("unknown", connection),
        join(&|n| n.role.as_str().into()),
        join(&|n| state(n).into()),
        join(&|n| n.host.to_string()),
    ));
    Ok(())
}

fn connection(node: &NodeStatus) -> &'static str {
    if node.is_connected() {
        "Connect"
    } else {
        "Disconnect"
    }
}

fn state(node: &NodeStatus) -> &'static str {
    node.code().map_or("unknown", |code| code.as_str())
}

/// The state of this node, or of `--node`.
fn node(ctx: &Context, res: &ResourceName) -> Result<NodeStatus> {
    let wanted = ctx.opts.node.as_ref().unwrap_or(ctx.me());
    let found = load(ctx, res).nodes.into_iter().find(|n| n.host == *wanted);
    found.ok_or_else(|| {
        let link = LinkPath::res(res, mars_core::link::ResourceLink::Device(wanted.clone()));
        AdmError::missing(format!("{wanted} has not joined resource '{res}'"))
            .link(format!("{link} is missing"))
    })
}

fn load(ctx: &Context, res: &ResourceName) -> ResourceStatus {
    let tree = ctx.quiet_tree();
    let now = wall_clock();
    let context = StatusContext {
        me: ctx.me(),
        now,
        own_alive: own_alive(ctx, &tree, ctx.me(), now),
        with_system: true,
        local_only: false,
        with_history: false,
    };
    ResourceStatus::of(&tree, res, &context)
}

/// The own daemon is dead if nobody holds its lock, however fresh its sign of life is.
fn own_alive(ctx: &Context, tree: &Tree, me: &HostName, now: Stamp) -> Alive {
    match (Alive::of(tree, me, now), load_daemon_lock(&ctx.env.run)) {
        (Alive::Yes, Some(false)) => Alive::Silent { age_secs: 0 },
        (alive, _) => alive,
    }
}
