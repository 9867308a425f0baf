//! The command line: every command with its arguments, and which function carries it out.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use mars_core::HostName;

use crate::commands::{
    self, cluster, compat, invalidate, leave_cluster, logs, primary, resize, resource as member,
    state, switch, sync,
};
use crate::context::{Context, Options};
use crate::error::{AdmError, Result};
use crate::exit::{Exit, TABLE};
use crate::resource::{each, for_each};
use crate::ssh::SshOptions;

/// Administers MARS: asynchronous replication of block devices.
#[derive(Debug, Parser)]
#[command(name = "marsadm", version, after_help = TABLE, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// Do it although a check speaks against it.
    #[arg(long, global = true)]
    force: bool,
    /// Bound of each wait in seconds, 0 for none [default: 60; wait-sync, wait-replay, verify: 0].
    #[arg(long, value_name = "SECONDS", global = true)]
    timeout: Option<u64>,
    /// Say what would be changed, change nothing.
    #[arg(long, global = true)]
    dry_run: bool,
    /// The node that is meant, where a command can mean another node than this one.
    #[arg(long, visible_alias = "host", value_name = "HOST", global = true, value_parser = |s: &str| HostName::new(s))]
    node: Option<HostName>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Res {
    /// Name of the resource, or 'all' for every resource that this node has joined.
    #[arg(value_name = "RESOURCE|all")]
    resource: String,
}

#[derive(Debug, Args)]
struct NewRes {
    /// Name of the resource: letters, digits, '-', '_', at most 16.
    resource: String,
    /// A block device (absolute path), or a size such as 10G to have a sparse file made.
    #[arg(value_name = "DEVICE|SIZE")]
    disk: String,
    /// Name below /dev/mars [default: the name of the resource].
    name: Option<String>,
}

#[derive(Debug, Args)]
struct Address {
    /// Address of this node: ADDRESS[:PORT] or [V6ADDRESS]:PORT [default: the source address of the route out].
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
}

/// The commands in groups: cluster, resource, replication, replay, sync, logfiles, device.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make this node the first of a new cluster.
    CreateCluster(Address),
    /// Join the cluster of PEER, over ssh.
    JoinCluster {
        /// Host name or address of a node of the cluster.
        peer: String,
        #[command(flatten)]
        address: Address,
        #[command(flatten)]
        ssh: SshOptions,
    },
    /// Leave the cluster; with --host, remove a dead node that will not come back, with all its memberships.
    LeaveCluster,
    /// Create a resource, with this node as primary.
    CreateResource(NewRes),
    /// Join an existing resource: this node gets a copy.
    JoinResource(NewRes),
    /// Give up this node's copy of a resource.
    LeaveResource(Res),
    /// Remove a resource that no node is a member of any more, on all nodes; data on the disks stay.
    DeleteResource(Res),
    /// Increase the size of a resource to that of the smallest disk.
    Resize(Res),

    /// Let all nodes transfer logs and sync data.
    Connect(Res),
    /// Stop transfer of logs and sync data on all nodes.
    Disconnect(Res),
    /// Like connect, on this node only.
    ConnectLocal(Res),
    /// Like disconnect, on this node only.
    DisconnectLocal(Res),
    /// Wait until the other members (or --node) can be reached.
    WaitConnect(Res),
    /// All on: attach, connect, resume-sync, resume-replay.
    Up(Res),
    /// All off: pause-replay, pause-sync, disconnect, detach.
    Down(Res),

    /// Let all nodes replay logs.
    ResumeReplay(Res),
    /// Stop replay on all nodes.
    PauseReplay(Res),
    /// Like resume-replay, on this node only.
    ResumeReplayLocal(Res),
    /// Like pause-replay, on this node only.
    PauseReplayLocal(Res),
    /// Wait until this node (or --node) has replayed everything known.
    WaitReplay(Res),

    /// Let all nodes sync.
    ResumeSync(Res),
    /// Stop sync on all nodes.
    PauseSync(Res),
    /// Like resume-sync, on this node only.
    ResumeSyncLocal(Res),
    /// Like pause-sync, on this node only.
    PauseSyncLocal(Res),
    /// Declare the data of this node valid without sync (for empty resources). Undone by invalidate.
    FakeSync(Res),
    /// Throw away the data of this node and sync anew.
    Invalidate(Res),
    /// Throw away the data of every other member that is not primary (or of --node).
    InvalidateRemote(Res),
    /// Wait until this node (or --node) has synced and is consistent.
    WaitSync(Res),

    /// Compare the disks of all secondaries (or of --node) with that of the primary, also while it is written to.
    Verify {
        #[command(flatten)]
        res: Res,
        /// Overwrite what differs with the data of the primary.
        #[arg(long)]
        repair: bool,
    },

    /// Begin a new logfile (on the primary).
    LogRotate(Res),
    /// Delete the next logfile that nobody needs.
    LogDelete(Res),
    /// Delete all logfiles that nobody needs.
    LogDeleteAll(Res),

    /// Use the disk of this node.
    Attach(Res),
    /// Stop all data I/O of the resource on this node.
    Detach(Res),
    /// Make this node the primary.
    Primary(Res),
    /// Give up being primary.
    Secondary(Res),
    /// Wait until the device is closed on all nodes (or on --node).
    WaitUmount(Res),
    /// Print 'primary' or 'secondary'.
    #[command(alias = "state")]
    Role(Res),
    /// Print 'Connect' or 'Disconnect' (a switch is off), as mars-status --cstate.
    Cstate(Res),
    /// Print the state of the data, as mars-status --dstate.
    Dstate(Res),
    /// Print one line per resource: connection, roles, states, device; the own node first.
    Status {
        /// Name of the resource [default: all].
        #[arg(value_name = "RESOURCE|all", default_value = crate::resource::ALL, hide_default_value = true)]
        resource: String,
    },

    /// Print name and version.
    #[command(alias = "v")]
    Version,
    /// Commands of DRBD that have no meaning here.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Parses and carries out a command line, with the program's name first.
pub(crate) fn run(args: Vec<OsString>) -> Result<()> {
    let (args, force_prefix) = strip_force(args);
    let program = args.first().cloned().unwrap_or_else(|| "marsadm".into());
    if args.get(1).is_some_and(|a| a == "ssh-pipe") {
        return crate::ssh::pipe_main(&args[2..]);
    }
    if args.get(1).is_some_and(|a| a == "generate") {
        return crate::manual::generate(Cli::command(), &args[2..]);
    }
    let matches = match Cli::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return report(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return report(&error),
    };
    let options = Options {
        force: cli.force || force_prefix,
        timeout_secs: cli.timeout,
        dry_run: cli.dry_run,
        node: cli.node,
    };
    dispatch(cli.command, options, &program.to_string_lossy())
}

/// Takes the prefix `force-` off any argument; `h` is the old short form of `help`.
fn strip_force(args: Vec<OsString>) -> (Vec<OsString>, bool) {
    let mut force = false;
    let strip = |(index, arg): (usize, OsString)| match arg.to_str() {
        Some(text) if index > 0 && text.starts_with("force-") => {
            force = true;
            OsString::from(&text["force-".len()..])
        }
        Some("h") if index == 1 => "help".into(),
        _ => arg,
    };
    (args.into_iter().enumerate().map(strip).collect(), force)
}

fn report(error: &clap::Error) -> Result<()> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        let _ = error.print();
        return Ok(());
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    Err(AdmError::new(Exit::Usage, text))
}

/// The error for a word that is no command, with the nearest command.
fn unknown(word: &OsString) -> AdmError {
    let word = word.to_string_lossy();
    // clap finds the nearest name where no free words are allowed: ask it about the help of that word.
    let asked = Cli::command().try_get_matches_from(["marsadm", "help", word.as_ref()]);
    let near = asked
        .err()
        .and_then(|e| match e.get(ContextKind::SuggestedSubcommand) {
            Some(ContextValue::Strings(names)) => names.first().cloned(),
            Some(ContextValue::String(name)) => Some(name.clone()),
            _ => None,
        });
    let remedy = match near.or_else(|| nearest(&word)) {
        Some(name) => format!("did you mean '{name}'? 'marsadm help' lists all commands"),
        None => "'marsadm help' lists all commands".into(),
    };
    AdmError::new(Exit::Usage, format!("unknown command '{word}'")).remedy(remedy)
}

/// The command with the smallest edit distance, if that is small.
fn nearest(word: &str) -> Option<String> {
    Cli::command()
        .get_subcommands()
        .map(|c| (distance(word, c.get_name()), c.get_name().to_string()))
        .min()
        .filter(|(d, name)| *d <= 1 + name.len() / 4)
        .map(|(_, name)| name)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn dispatch(command: Command, options: Options, program: &str) -> Result<()> {
    use Command as C;
    let mut ctx = Context::new(options)?;
    let ctx = &mut ctx;
    if let Some(result) = dispatch_switch(ctx, &command) {
        return result;
    }
    match command {
        C::CreateCluster(a) => cluster::create(ctx, a.ip.as_deref()),
        C::JoinCluster { peer, address, ssh } => {
            commands::join_cluster::run(ctx, &peer, address.ip.as_deref(), &ssh)
        }
        C::LeaveCluster => leave_cluster::run(ctx),
        C::CreateResource(n) => member::create(ctx, &n.resource, &n.disk, n.name.as_deref()),
        C::JoinResource(n) => {
            commands::join_resource::run(ctx, &n.resource, &n.disk, n.name.as_deref())
        }
        C::LeaveResource(r) => for_each(ctx, &r.resource, &commands::leave_resource::run),
        C::DeleteResource(r) => commands::delete_resource::run(ctx, &r.resource),
        C::Resize(r) => for_each(ctx, &r.resource, &resize::run),
        C::WaitReplay(r) => for_each(ctx, &r.resource, &sync::wait_replay),
        C::FakeSync(r) => for_each(ctx, &r.resource, &sync::fake),
        C::Invalidate(r) => for_each(ctx, &r.resource, &invalidate::run),
        C::InvalidateRemote(r) => for_each(ctx, &r.resource, &invalidate::remote),
        C::WaitSync(r) => for_each(ctx, &r.resource, &sync::wait_sync),
        C::Verify { res, repair } => for_each(ctx, &res.resource, &|ctx, name| {
            commands::verify::run(ctx, name, repair)
        }),
        C::LogRotate(r) => for_each(ctx, &r.resource, &logs::rotate),
        C::LogDelete(r) => for_each(ctx, &r.resource, &logs::delete_next),
        C::LogDeleteAll(r) => for_each(ctx, &r.resource, &logs::delete_all),
        C::Primary(r) => for_each(ctx, &r.resource, &primary::run),
        C::Secondary(r) => for_each(ctx, &r.resource, &commands::secondary::run),
        C::Role(r) => for_each(ctx, &r.resource, &commands::role::run),
        C::Cstate(r) => for_each(ctx, &r.resource, &state::cstate),
        C::Dstate(r) => for_each(ctx, &r.resource, &state::dstate),
        C::Status { resource } => each(ctx, &resource, false, &state::status),
        C::WaitConnect(r) => for_each(ctx, &r.resource, &commands::wait_connect::run),
        C::WaitUmount(r) => for_each(ctx, &r.resource, &commands::wait_umount::run),
        C::Version => {
            crate::context::say(&format!("{program} {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        C::Other(words) => {
            let word = words.first().cloned().unwrap_or_default();
            compat::run(ctx, &words).unwrap_or_else(|| Err(unknown(&word)))
        }
        // The rest are switches, carried out above.
        _ => Ok(()),
    }
}

fn dispatch_switch(ctx: &mut Context, command: &Command) -> Option<Result<()>> {
    use Command as C;
    let (res, switches): (&Res, &'static [switch::SwitchCommand]) = match command {
        C::Connect(r) => (r, &switch::CONNECT),
        C::Disconnect(r) => (r, &switch::DISCONNECT),
        C::ConnectLocal(r) => (r, &switch::CONNECT_LOCAL),
        C::DisconnectLocal(r) => (r, &switch::DISCONNECT_LOCAL),
        C::ResumeReplay(r) => (r, &switch::RESUME_REPLAY),
        C::PauseReplay(r) => (r, &switch::PAUSE_REPLAY),
        C::ResumeReplayLocal(r) => (r, &switch::RESUME_REPLAY_LOCAL),
        C::PauseReplayLocal(r) => (r, &switch::PAUSE_REPLAY_LOCAL),
        C::ResumeSync(r) => (r, &switch::RESUME_SYNC),
        C::PauseSync(r) => (r, &switch::PAUSE_SYNC),
        C::ResumeSyncLocal(r) => (r, &switch::RESUME_SYNC_LOCAL),
        C::PauseSyncLocal(r) => (r, &switch::PAUSE_SYNC_LOCAL),
        C::Attach(r) => (r, &switch::ATTACH),
        C::Detach(r) => (r, &switch::DETACH),
        C::Up(r) => (r, &switch::UP),
        C::Down(r) => (r, &switch::DOWN),
        _ => return None,
    };
    let run = |ctx: &mut Context, name: &mars_core::ResourceName| switch::run(ctx, name, switches);
    Some(for_each(ctx, &res.resource, &run))
}
