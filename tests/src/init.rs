//! First process of a node, already inside its new namespaces: builds the root directory of the node, changes into it
//! and then reaps orphans for ever. Its death is the death of the node.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Context, Result, fail};
use crate::process::Process;
use crate::requirements::PROGRAMS;
use crate::supervisor::{HOLD_FILE, INIT_FILE, NODE_MARK};

/// Directories of the machine that a node shares, read-only.
const SHARED: [&str; 9] = [
    "bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt",
];
const KMOD_CONTROL: &str = mars_kmod_core::abi::CONTROL_DEVICE;
const LOOP_NODES: u64 = 256;

/// Body of the init process of node `name`, whose files lie in `dir`.
///
/// # Errors
/// A mount or a file fails.
pub fn init(dir: &Path, name: &str, programs: &Path) -> Result {
    // `/proc` is still that of the machine: this is the number by which the node is found and killed from outside.
    let own = fs::read_link("/proc/self").context("read /proc/self")?;
    let pid = own
        .to_string_lossy()
        .parse()
        .context("own process number")?;
    let process = Process::find(pid).context("find the own process")?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("block SIGCHLD")?;

    nix::unistd::sethostname(name).context(format!("set the host name {name}"))?;
    build_root(dir, programs)?;
    process.store(&dir.join(INIT_FILE))?;
    change_root(&dir.join("fs"))?;
    reap(&signals)
}

/// Body of the process that holds the network namespace of the bridge.
///
/// # Errors
/// Its number cannot be written.
pub fn hold(dir: &Path) -> Result {
    let pid = i32::try_from(std::process::id()).context("own process number")?;
    Process::find(pid)
        .context("find the own process")?
        .store(&dir.join(HOLD_FILE))?;
    loop {
        std::thread::park();
    }
}

fn reap(signals: &SigSet) -> Result {
    loop {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        signals.wait().context("wait for SIGCHLD")?;
    }
}

fn build_root(dir: &Path, programs: &Path) -> Result {
    let root = dir.join("fs");
    mount_at("tmpfs", &root, "tmpfs", "mode=755")?;
    for name in SHARED {
        share(&Path::new("/").join(name), &root.join(name))?;
    }
    for name in ["mars", "root"] {
        bind(&dir.join(name), &root.join(name), MsFlags::empty())?;
    }
    for (name, mode) in [
        ("run", "mode=755"),
        ("tmp", "mode=1777"),
        ("var", "mode=755"),
    ] {
        mount_at("tmpfs", &root.join(name), "tmpfs", mode)?;
    }
    for name in [
        "run/sshd",
        "run/mars",
        "var/log",
        "var/tmp",
        "var/lib",
        "var/cache",
        "mnt",
        "home",
        "srv",
    ] {
        make_dir(&root.join(name))?;
    }
    link("/run", &root.join("var/run"))?;
    mount_at("proc", &root.join("proc"), "proc", "")?;
    mount_at("sysfs", &root.join("sys"), "sysfs", "")?;
    build_dev(&root.join("dev"))?;
    for (from, to) in [
        ("hosts", "etc/hosts"),
        ("hostname", "etc/hostname"),
        ("shadow", "etc/shadow"),
        ("ssh", "etc/ssh"),
    ] {
        bind(
            &dir.join("etc").join(from),
            &root.join(to),
            MsFlags::empty(),
        )?;
    }
    install(programs, &root.join("usr/local/sbin"))
}

/// The programs of this build, under the names that an administrator types.
fn install(programs: &Path, sbin: &Path) -> Result {
    mount_at("tmpfs", sbin, "tmpfs", "mode=755")?;
    for program in PROGRAMS {
        let from = programs.join(program);
        if from.exists() {
            bind(&from, &sbin.join(program), MsFlags::empty())?;
        }
    }
    let own = std::env::current_exe().context("find the own executable")?;
    bind(&own, &sbin.join("mars-node"), MsFlags::empty())?;
    link("marsadm", &sbin.join("MARSADM"))?;
    link("mars-status", &sbin.join("MARS-STATUS"))
}

fn build_dev(dev: &Path) -> Result {
    mount_at("tmpfs", dev, "tmpfs", "mode=755")?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
        ("fuse", 10, 229),
        ("loop-control", 10, 237),
    ] {
        node(
            &dev.join(name),
            SFlag::S_IFCHR,
            0o666,
            makedev(major, minor),
        )?;
    }
    let shift = loop_shift();
    for number in 0..LOOP_NODES {
        let path = dev.join(format!("loop{number}"));
        node(&path, SFlag::S_IFBLK, 0o660, makedev(7, number << shift))?;
    }
    // The control device of the kernel module, if that is loaded.
    if let Ok(meta) = fs::metadata(KMOD_CONTROL) {
        let name = KMOD_CONTROL.trim_start_matches("/dev/");
        node(&dev.join(name), SFlag::S_IFCHR, 0o600, meta.rdev())?;
    }
    make_dir(&dev.join("mars"))?;
    make_dir(&dev.join(NODE_MARK))?;
    mount_at(
        "devpts",
        &dev.join("pts"),
        "devpts",
        "newinstance,ptmxmode=0666,mode=620",
    )?;
    mount_at("tmpfs", &dev.join("shm"), "tmpfs", "mode=1777")?;
    for (target, name) in [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ] {
        link(target, &dev.join(name))?;
    }
    Ok(())
}

/// Loop devices with partitions have their minors further apart.
fn loop_shift() -> u32 {
    let text = fs::read_to_string("/sys/module/loop/parameters/max_part").unwrap_or_default();
    let max_part: u32 = text.trim().parse().unwrap_or(0);
    u32::BITS - max_part.leading_zeros()
}

fn change_root(root: &Path) -> Result {
    std::env::set_current_dir(root).context(format!("enter {}", root.display()))?;
    nix::unistd::pivot_root(".", ".").context("change the root directory")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the old root directory")?;
    std::env::set_current_dir("/").context("enter the new root directory")
}

/// Repeats what stands at `from`: a symlink as a symlink, a directory as a read-only bind mount.
fn share(from: &Path, to: &Path) -> Result {
    let Ok(meta) = fs::symlink_metadata(from) else {
        return Ok(());
    };
    if meta.is_symlink() {
        let target = fs::read_link(from).context(format!("read {}", from.display()))?;
        return link(&target.to_string_lossy(), to);
    }
    bind(from, to, MsFlags::empty())?;
    bind(from, to, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY)
}

fn bind(from: &Path, to: &Path, more: MsFlags) -> Result {
    if from.is_dir() {
        make_dir(to)?;
    } else if !to.exists() {
        fs::write(to, "").context(format!("create {}", to.display()))?;
    }
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND | more, none).context(format!(
        "bind {} to {}",
        from.display(),
        to.display()
    ))
}

fn mount_at(source: &str, at: &Path, kind: &str, options: &str) -> Result {
    make_dir(at)?;
    let options = Some(options).filter(|o| !o.is_empty());
    mount(Some(source), at, Some(kind), MsFlags::empty(), options)
        .context(format!("mount {kind} at {}", at.display()))
}

fn make_dir(path: &Path) -> Result {
    fs::create_dir_all(path).context(format!("create {}", path.display()))
}

fn link(target: &str, at: &Path) -> Result {
    symlink(target, at).context(format!("create the symlink {}", at.display()))
}

fn node(path: &Path, kind: SFlag, mode: u32, device: u64) -> Result {
    mknod(path, kind, Mode::empty(), device).context(format!("create {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .context(format!("set the mode of {}", path.display()))
}

/// Reads the command line of the `mars-node` helper and does what it says.
///
/// # Errors
/// Wrong arguments, or what was asked for failed.
pub fn node_main(args: &[String]) -> Result {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["supervise", dir] => crate::supervisor::supervise(Path::new(dir)),
        ["hold", dir] => hold(Path::new(dir)),
        ["init", dir, name, programs] => init(&PathBuf::from(dir), name, Path::new(programs)),
        ["load" | "state", ..] => crate::load::load_main(&words),
        _ => Err(fail(
            "usage: mars-node supervise DIR | hold DIR | init DIR NAME PROGRAMS | load ... | state ...",
        )),
    }
}
