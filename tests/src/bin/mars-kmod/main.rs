//! `mars-kmod`: every request of the kernel module's control device as a command, and replay of a log by hand.

mod replay;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use mars_kmod_core::abi::{self, Attach, Log, Status};
use mars_kmod_core::client::{ClientError, Control};
use mars_tests::{Context, Result, fail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Drive the kernel module of MARS without marsd.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the version of the module.
    Hello,
    /// Attach a disk as resource R (device mars/R) and print its number.
    Attach { resource: String, disk: PathBuf },
    /// Log to a file; without a sequence number that of its name.
    Log {
        id: u64,
        log: PathBuf,
        #[arg(long)]
        mark: Option<PathBuf>,
    },
    /// Send writes straight to the disk.
    Pass { id: u64 },
    /// Enlarge the device.
    Resize { id: u64, bytes: u64 },
    /// Remove the device and write everything back.
    Stop { id: u64 },
    /// Forget a stopped resource.
    Release { id: u64 },
    /// Print the status as KEY=VALUE.
    Status { id: u64 },
    /// Wait until the resource is in that state, or its oldest open log is all written back ("clean").
    Wait {
        id: u64,
        state: String,
        #[arg(default_value_t = 60)]
        secs: u64,
    },
    /// Print the numbers of all resources.
    List,
    /// Apply all valid records of a log to a disk, cut off what follows them, and print the length of the log.
    Replay { log: PathBuf, disk: PathBuf },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mars-kmod: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<String> {
    if let Command::Replay { log, disk } = command {
        return replay::replay(&log, &disk).map(|len| format!("{len}\n"));
    }
    let control = Control::open().map_err(refused)?;
    match command {
        Command::Hello => return Ok(format!("{}\n", control.version())),
        Command::Attach { resource, disk } => return attach(&control, &resource, &disk),
        Command::Log { id, log, mark } => return log_to(&control, id, &log, mark.as_deref()),
        Command::Wait { id, state, secs } => {
            let status = wait(&control, id, Duration::from_secs(secs), |s| {
                state_name(s.state) == state || (state == "clean" && is_clean(s))
            })?;
            return Ok(show(&status));
        }
        _ => {}
    }
    plain_request(&control, &command).map_err(refused)
}

fn plain_request(control: &Control, command: &Command) -> std::result::Result<String, ClientError> {
    match *command {
        Command::Pass { id } => control.pass_through(id)?,
        Command::Resize { id, bytes } => control.resize(id, bytes)?,
        Command::Stop { id } => control.stop(id)?,
        Command::Release { id } => control.release(id)?,
        Command::Status { id } => return control.status(id).map(|s| show(&s)),
        Command::List => {
            return Ok(control
                .all()?
                .iter()
                .map(|s| format!("{}\n", s.id))
                .collect());
        }
        _ => {}
    }
    Ok(String::new())
}

/// Waits for changes until the status is as wanted.
fn wait(
    control: &Control,
    id: u64,
    deadline: Duration,
    wanted: impl Fn(&Status) -> bool,
) -> Result<Status> {
    let end = Instant::now() + deadline;
    loop {
        let status = control.status(id).map_err(refused)?;
        if wanted(&status) {
            return Ok(status);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(fail(format!(
                "not within {} s; the status is:\n{}",
                deadline.as_secs(),
                show(&status)
            )));
        }
        let mut fds = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout).context("wait for a change")? > 0 {
            control.take_changes().map_err(refused)?;
        }
    }
}

fn attach(control: &Control, resource: &str, disk: &Path) -> Result<String> {
    use std::io::{Seek, SeekFrom};
    let mut file = open_rw(disk)?;
    let size_bytes = file
        .seek(SeekFrom::End(0))
        .context(format!("size of {}", disk.display()))?;
    let attach = Attach {
        id: 0,
        size_bytes,
        dirty_max_bytes: 0,
        disk_fd: file.as_raw_fd(),
        reserved: 0,
        owner: field("vm")?,
        resource: field(resource)?,
        device: field(&format!("mars/{resource}"))?,
    };
    let id = control.attach(attach).map_err(refused)?;
    Ok(format!("{id}\n"))
}

fn log_to(control: &Control, id: u64, path: &Path, mark: Option<&Path>) -> Result<String> {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .context("the log has no name")?;
    let seq = name
        .split('-')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .context(format!("{name} is not called log-NUMBER-HOST"))?;
    let log = open_rw(path)?;
    let pos = log
        .metadata()
        .context(format!("size of {}", path.display()))?
        .len();
    let mark = mark.map(mark_file).transpose()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("read the clock")?;
    let begun = control.log(Log {
        id,
        seq,
        pos,
        stamp_secs: i64::try_from(now.as_secs()).context("read the clock")?,
        stamp_nanos: now.subsec_nanos(),
        log_fd: log.as_raw_fd(),
        mark_fd: mark.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        reserved: 0,
        name: field(name)?,
    });
    begun.map(|()| String::new()).map_err(refused)
}

/// The mark file, made if there is none.
fn mark_file(path: &Path) -> Result<File> {
    if !path.exists() {
        fs::write(path, [b' '; 256]).context(format!("create {}", path.display()))?;
    }
    open_rw(path)
}

fn open_rw(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .context(format!("open {}", path.display()))
}

fn field<const N: usize>(text: &str) -> Result<[u8; N]> {
    abi::field(text).context(format!("'{text}' does not fit into {N} bytes"))
}

fn is_clean(status: &Status) -> bool {
    logs(status)
        .iter()
        .all(|log| log.written_back == log.logged)
}

fn logs(status: &Status) -> &[abi::LogStatus] {
    let count = usize::try_from(status.log_count).unwrap_or(0);
    status.logs.get(..count).unwrap_or_default()
}

const STATES: [(u32, &str); 6] = [
    (abi::state::ATTACHED, "attached"),
    (abi::state::LOGGING, "logging"),
    (abi::state::DRAINING, "draining"),
    (abi::state::PASS_THROUGH, "pass-through"),
    (abi::state::FAILED, "failed"),
    (abi::state::STOPPED, "stopped"),
];

fn state_name(state: u32) -> &'static str {
    STATES.iter().find(|s| s.0 == state).map_or("?", |s| s.1)
}

fn show(status: &Status) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "state={}\nflags={}\nopeners={}\nsize={}\nlog_errno={}\ndisk_errno={}\nwrites={}\nflushes={}\nlogged_bytes={}\n\
         written_back_bytes={}\ndirty={}\nlogs={}\n",
        state_name(status.state),
        status.flags,
        status.openers,
        status.size_bytes,
        status.log_failure.errno,
        status.disk_failure.errno,
        status.counters.writes,
        status.counters.flushes,
        status.counters.logged_bytes,
        status.counters.written_back_bytes,
        status.counters.dirty_bytes,
        status.log_count,
    );
    for (index, log) in logs(status).iter().enumerate() {
        let _ = writeln!(
            text,
            "log{index}={} logged{index}={} durable{index}={} written_back{index}={} complete{index}={}",
            log.seq,
            log.logged,
            log.durable,
            log.written_back,
            log.flags & abi::log_flag::COMPLETE,
        );
    }
    text
}

fn refused(error: ClientError) -> mars_tests::Error {
    fail(error.to_string())
}
