//! Removes a cluster: its processes, loop devices and files. Runs as a process of its own, so that the end of the
//! test, however violent, is the order to clean up.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{sleep, spawn};
use std::time::Duration;

use nix::fcntl::FlockArg;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::major;

use crate::cluster::RunningTime;
use crate::command::{DEADLINE, host, run};
use crate::error::{Context, Result, fail};
use crate::kernel_module::let_go;
use crate::process::Process;
use crate::sandbox::{KEEP, READY, lock_dir};

/// Name of the file that names the init process of a node.
pub const INIT_FILE: &str = "init";
/// Name of the file that names the process that holds the bridge's namespace.
pub const HOLD_FILE: &str = "holder";
/// Exists below `/dev` of a node, and nowhere else.
pub const NODE_MARK: &str = ".mars-tests-node";
const LOOP_MAJOR: u64 = 7;
const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// Body of the supervisor process: waits until the pipe from its owner closes, then removes everything below `dir`.
///
/// # Errors
/// The directory cannot be locked or something cannot be removed.
pub fn supervise(dir: &Path) -> Result {
    // Own session: Ctrl-C in the owner's terminal must not reach the one who cleans up.
    nix::unistd::setsid().context("start a session")?;
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block().context("block signals")?;
    let _lock =
        lock_dir(dir, FlockArg::LockExclusive).context(format!("lock {}", dir.display()))?;
    Process::find(i32::try_from(std::process::id()).context("own process number")?)
        .context("find the own process")?
        .store(&dir.join("supervisor"))?;
    std::io::stdout()
        .write_all(READY)
        .and_then(|()| std::io::stdout().flush())
        .context("report to the owner")?;
    let order = wait_for_owner(signals);
    if order == KEEP {
        // Until `remove_kept` kills this process, the lock says that the cluster is wanted.
        loop {
            std::thread::park();
        }
    }
    destroy(dir)
}

/// What the owner wrote before its pipe closed; a signal also ends the wait.
fn wait_for_owner(signals: SigSet) -> Vec<u8> {
    let (done, wait) = std::sync::mpsc::channel();
    let by_signal = done.clone();
    spawn(move || {
        let _ = signals.wait();
        let _ = by_signal.send(Vec::new());
    });
    spawn(move || {
        let mut order = Vec::new();
        // A broken pipe means the same as a closed one.
        let _ = std::io::stdin().read_to_end(&mut order);
        let _ = done.send(order);
    });
    wait.recv().unwrap_or_default()
}

/// Kills and removes all that belongs to the cluster in `dir`.
///
/// # Errors
/// What could not be removed.
pub fn destroy(dir: &Path) -> Result {
    if !dir.exists() {
        return Ok(());
    }
    for init in processes(dir, INIT_FILE) {
        kill_node(&init)?;
    }
    for holder in processes(dir, HOLD_FILE) {
        holder.kill(KILL_DEADLINE)?;
    }
    let loops = loops_on(dir)?;
    let disks: Vec<PathBuf> = loops.iter().map(|disk| disk.device.clone()).collect();
    let_go(&disks)?;
    for disk in &loops {
        disk.detach()?;
    }
    unmount_below(dir)?;
    fs::remove_dir_all(dir).context(format!("remove {}", dir.display()))
}

/// What a test has mounted on directories of the cluster, the latest first.
fn unmount_below(dir: &Path) -> Result {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("list what is mounted")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let ours: Vec<&str> = places.filter(|at| Path::new(at).starts_with(dir)).collect();
    ours.iter()
        .rev()
        .try_for_each(|at| umount2(*at, MntFlags::MNT_DETACH).context(format!("unmount {at}")))
}

fn processes(dir: &Path, file: &str) -> Vec<Process> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Process::load(&entry.path().join(file)))
        .collect()
}

/// Kills all processes of a node at once and frees what the kernel keeps of it.
///
/// # Errors
/// A process or a device of the node stays.
pub fn kill_node(init: &Process) -> Result {
    let mut loops = mars_loops(init);
    loops.extend(recorded_loops(init));
    let connections = fuse_connections(init);
    let killed = init.kill(Duration::from_secs(5));
    if killed.is_err() {
        // Somebody hangs in a request that nobody answers any more.
        abort_connections(&connections)?;
        init.kill(KILL_DEADLINE)?;
    }
    for device in &loops {
        device.detach()?;
    }
    Ok(())
}

/// Loop devices behind the node's `/dev/mars`.
fn mars_loops(init: &Process) -> Vec<LoopDevice> {
    entries(init, "dev/mars")
        .filter_map(|entry| {
            let meta = fs::metadata(entry.path()).ok()?;
            let is_loop = meta.file_type().is_block_device() && major(meta.rdev()) == LOOP_MAJOR;
            is_loop.then(|| loop_path(meta.rdev())).flatten()
        })
        .filter_map(LoopDevice::bound)
        .collect()
}

/// Loop devices that the node's shims have bound, also those that `/dev/mars` has no name for at this moment.
fn recorded_loops(init: &Process) -> Vec<LoopDevice> {
    entries(init, "run/mars")
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "loop"))
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let (number, sequence) = text.trim_end().split_once(' ')?;
            let device = LoopDevice::bound(PathBuf::from(format!("/dev/loop{number}")))?;
            (device.sequence.trim_end() == sequence).then_some(device)
        })
        .collect()
}

/// What stands in a directory of the node.
fn entries(init: &Process, dir: &str) -> impl Iterator<Item = fs::DirEntry> {
    let root = PathBuf::from(format!("/proc/{}/root", init.pid));
    // Before it has its own root directory this would be the machine's.
    let is_own = root.join("dev").join(NODE_MARK).exists();
    let entries = is_own.then(|| fs::read_dir(root.join(dir)));
    entries.into_iter().flatten().flatten().flatten()
}

fn loop_path(rdev: u64) -> Option<PathBuf> {
    let uevent = format!(
        "/sys/dev/block/{}:{}/uevent",
        major(rdev),
        nix::sys::stat::minor(rdev)
    );
    let text = fs::read_to_string(uevent).ok()?;
    let name = text.lines().find_map(|l| l.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

/// Numbers of the FUSE connections that the node has mounted.
fn fuse_connections(init: &Process) -> BTreeSet<u64> {
    let text = fs::read_to_string(format!("/proc/{}/mountinfo", init.pid)).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains(" - fuse"))
        .filter_map(|line| line.split(' ').nth(2)?.split_once(':')?.1.parse().ok())
        .collect()
}

fn abort_connections(connections: &BTreeSet<u64>) -> Result {
    for number in connections {
        let script = format!(
            "mount -t fusectl none /sys/fs/fuse/connections && echo 1 > /sys/fs/fuse/connections/{number}/abort"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        run(&mut command, &script, DEADLINE)?;
    }
    Ok(())
}

/// Loop devices whose backing file lies below `dir`.
fn loops_on(dir: &Path) -> Result<Vec<LoopDevice>> {
    let blocks = fs::read_dir("/sys/block").context("read /sys/block")?;
    Ok(blocks
        .flatten()
        .filter(|entry| {
            let file = fs::read_to_string(entry.path().join("loop/backing_file"));
            file.is_ok_and(|f| Path::new(f.trim_end()).starts_with(dir))
        })
        .filter_map(|entry| LoopDevice::bound(Path::new("/dev").join(entry.file_name())))
        .collect())
}

/// A loop device as somebody has bound it: as soon as it is free another cluster may take it.
struct LoopDevice {
    device: PathBuf,
    sequence: String,
}

impl LoopDevice {
    fn bound(device: PathBuf) -> Option<Self> {
        let sequence = sequence(&device)?;
        Some(Self { device, sequence })
    }

    /// Frees the device and waits until the kernel has let go of it.
    fn detach(&self) -> Result {
        let mut clock = RunningTime::default();
        while sequence(&self.device).as_ref() == Some(&self.sequence) {
            let answer = host(&["losetup", "--detach", &self.device.to_string_lossy()]);
            if clock.passed() >= KILL_DEADLINE {
                let cause = answer.err().map(|e| e.to_string()).unwrap_or_default();
                let text = format!("{} stays in use {cause}", self.device.display());
                return Err(fail(text));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// A number that no other binding of any block device has; none if the loop device is not bound.
fn sequence(device: &Path) -> Option<String> {
    let dir = Path::new("/sys/block").join(device.file_name()?);
    let number = fs::read_to_string(dir.join("diskseq")).ok()?;
    dir.join("loop/backing_file").exists().then_some(number)
}
