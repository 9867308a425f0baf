//! The block of one node.

use mars_core::link::Switch;
use mars_core::status::{Alive, Code, Copy, Member, NodeStatus, Replay, ReplayStatus, SyncStatus};

use super::units::{gb, gb_signed, percent_tail, plain, rate_mb, tb};
use super::{Ink, Screen, lines};
use crate::facts::Mount;
use crate::model::Resource;

pub(super) fn render(screen: &mut Screen, resource: &Resource, node: &NodeStatus) {
    let place = if node.is_local { "local" } else { "remote" };
    screen.faint(format!(
        "   -> {place} Node ({}) as {}",
        node.host,
        node.role.as_str()
    ));
    let Some(member) = &node.member else {
        screen.faint("   -> Resource is not joined to this node\n");
        return;
    };
    alive(screen, member.alive);
    devices(screen, resource, node, member);
    sync(screen, &member.sync);
    if let Some(verify) = &member.verify {
        screen.red(format!(
            "\t\t---> WORK: Verify in progress = ({}% < 100.00%)\n",
            verify.percent
        ));
    }
    log(screen, resource, node, &member.replay);
    replayed(screen, &member.replay);
    actual(screen, member);
    switches(screen, member);
    let code = node.code().unwrap_or(Code::Failed);
    let ink = if code == Code::UpToDate {
        Ink::Green
    } else {
        Ink::Red
    };
    screen.faint("\tStatus  : ");
    screen.put(ink, code.as_str());
    screen.faint(format!(" = {}\n", lines::brackets(node)));
}

fn alive(screen: &mut Screen, alive: Alive) {
    screen.faint(", System");
    match alive {
        Alive::Yes => screen.faint(" alive\n"),
        Alive::Stopped { age_secs } | Alive::Silent { age_secs } => {
            screen.red(format!(
                " unknown (last message before {age_secs} sec) !!!\n"
            ));
        }
        Alive::Never => screen.red(" unknown (no message yet) !!!\n"),
    }
}

fn devices(screen: &mut Screen, resource: &Resource, node: &NodeStatus, member: &Member) {
    screen.faint(format!(
        "\tDevices : Disk-Device {}, used as Mars-Device /dev/mars/{}",
        match &member.disk {
            Some(disk) => plain(disk),
            None => format!("(a file on {})", node.host),
        },
        plain(&member.device)
    ));
    let size = resource.status.size_bytes;
    if member.act_size_bytes == size {
        screen.faint(", not resized");
    } else {
        screen.red(format!(
            "\n\t\t---> HINT: resizing used ({} != {})",
            size.unwrap_or(0),
            member.act_size_bytes.unwrap_or(0)
        ));
    }
    if !node.is_local {
        return screen.faint("\n");
    }
    match &resource.mount {
        Mount::At(dir) => screen.faint(format!(" and mountet as {}\n", plain(dir))),
        Mount::NotMounted => screen.red("\n\t\t---> TODO: enable to mount\n"),
        Mount::NoDevice => screen
            .red("\n\t\t---> HINT: unable to mount, Device is Secondary or mars is starting\n"),
    }
}

fn sync(screen: &mut Screen, sync: &SyncStatus) {
    let done = sync.done_bytes;
    let percent = sync.percent;
    let tail = percent_tail(sync.rate);
    screen.faint(format!(
        "\tSync    : {done} bytes ({}TB) synced = {percent}{tail}\n",
        tb(done)
    ));
    match &sync.state {
        Copy::Good => {}
        Copy::Incomplete => screen.red(format!(
            "\t\t---> WORK: Sync in progress = ({percent}% < 100.00%)\n"
        )),
        Copy::NotConsistent { until, now } => {
            let now = match now {
                Some(now) => format!("{},{}", now.log, now.pos),
                None => "nowhere".into(),
            };
            screen.red(format!(
                "\t\t---> WORK: Sync finished, not consistent until {},{} is replayed = (now {now})\n",
                until.log, until.pos
            ));
        }
    }
}

fn log(screen: &mut Screen, resource: &Resource, node: &NodeStatus, replay: &ReplayStatus) {
    let name = short_name(replay);
    let speed = match rate_mb(replay.file_rate) {
        Some(mb) => format!(", Logfiles received with {mb} mb/s"),
        None => String::new(),
    };
    let delay = match replay.delay_secs {
        Some(secs) => format!(
            ", Delay {:02}:{:02}:{:02} - but not really sure ;)",
            secs / 3600 % 24,
            secs / 60 % 60,
            secs % 60
        ),
        None => String::new(),
    };
    let size = size_text(replay);
    screen.faint(format!(
        "\tLogfile : {size} bytes ({}GB) in {name} active {speed} {delay}\n",
        gb(replay.size_bytes.unwrap_or(0)),
    ));
    if replay.size_bytes.is_none() {
        screen.red(format!("\t\t---> WORK: Logfile empty = (Size: {size})\n"));
    }
    let local = resource.status.local().and_then(|n| n.member.as_ref());
    if let Some(local) = local.filter(|_| !node.is_local) {
        let local = short_name(&local.replay);
        if local != name {
            screen.red(format!(
                "\t\t---> HINT: Logfile Version not actual = ({name} ! {local})\n"
            ));
        }
    }
}

/// Name of the log without its host.
fn short_name(replay: &ReplayStatus) -> String {
    match &replay.log {
        Some(log) => format!("log-{:09}", log.seq),
        None => mars_core::link::NO_PRIMARY.into(),
    }
}

fn size_text(replay: &ReplayStatus) -> String {
    match replay.size_bytes {
        Some(size) => size.to_string(),
        None => "0.0001".into(),
    }
}

fn replayed(screen: &mut Screen, replay: &ReplayStatus) {
    let (pos, todo) = (replay.pos, replay.todo_bytes);
    let tail = percent_tail(replay.replay_rate);
    screen.faint(format!(
        "\tReplayed: {pos} bytes ({}GB) now replayed, Todo {todo} ({}GB) = ",
        gb(pos),
        gb_signed(todo)
    ));
    match &replay.state {
        Replay::Stopped(percent) => {
            screen.faint(format!("{percent}{tail}\n"));
            screen.red(format!(
                "\t\t---> HINT: Replay not started, Logfile inactive = (Size: {})\n",
                size_text(replay)
            ));
        }
        Replay::Running(percent) => {
            screen.faint(format!("{percent}{tail}\n"));
            screen.red(format!(
                "\t\t---> WORK: Replay in progress = ({percent}% < 100.00%)\n"
            ));
        }
        Replay::Dirty(percent) => screen.faint(format!("{percent}{tail}\n")),
        Replay::Wait => screen.put(Ink::Green, format!("100.00{tail}\n")),
        Replay::Behind { end } => {
            screen.faint(format!("100.00{tail}\n"));
            screen.red(format!(
                "\t\t---> WORK: Logfiles not complete = ({},{pos} < log-{:09},{})\n",
                short_name(replay),
                end.log.seq,
                end.pos
            ));
        }
        Replay::Unknown => {
            screen.faint(format!("0.00{tail}\n"));
            screen.red(
                "\t\t---> TODO: no replay position is known, join or invalidate the resource\n",
            );
        }
    }
}

fn actual(screen: &mut Screen, member: &Member) {
    let text = if member.is_serving {
        format!("Status=Primary, used Device={}", on_off(member.device_on))
    } else {
        format!(
            "Status=Secondary, Syncstatus={}, Logfileupdate={}",
            on_off(member.sync_on),
            on_off(member.fetch_on)
        )
    };
    screen.faint(format!("\tActual  : {text}\n"));
    if let Some(error) = &member.error {
        screen.red(format!("\t\t---> TODO: {}\n", plain(error)));
    }
}

fn switches(screen: &mut Screen, member: &Member) {
    screen.faint("\tSwitches: ");
    for (switch, on) in Switch::ALL.into_iter().zip(member.switches) {
        let (name, before) = match switch {
            Switch::Attach => ("Attach", ""),
            Switch::Connect if member.is_serving => ("Connect", " [masked: "),
            Switch::Connect => ("Connect", " "),
            Switch::Sync => ("Sync", " "),
            Switch::AllowReplay => ("AllowReplay", " "),
        };
        let ink = if on { Ink::Faint } else { Ink::Red };
        screen.faint(before);
        screen.put(ink, format!("{name}={}", on_off(on)));
    }
    screen.faint(if member.is_serving { "]\n" } else { "\n" });
}

const fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
