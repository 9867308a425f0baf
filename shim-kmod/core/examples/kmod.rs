//! Asks the kernel module for things, one request per call: for tests of the module alone, without marsd.
//!
//! ```text
//! kmod attach RESOURCE DISK SIZE [DIRTY_MAX]      prints the id
//! kmod log ID LOG POS [MARK]                      LOG is a path that ends in log-NNNNNNNNN-HOST
//! kmod pass|stop|release|status ID
//! kmod resize ID SIZE
//! kmod list
//! kmod wait ID STATE|clean|durable|complete       waits by poll and read of the control device
//! ```

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;

use mars_kmod_core::abi::{self, log_flag, state};

type Res<T> = Result<T, Box<dyn Error>>;

struct Control(File);

impl Control {
    fn open() -> Res<Self> {
        let control = Self(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(abi::CONTROL_DEVICE)?,
        );
        let mut hello = abi::Hello {
            abi: abi::ABI_VERSION,
            reserved: 0,
            module_version: [0; 32],
        };
        control.ask(abi::HELLO, &mut hello)?;
        Ok(control)
    }

    fn ask<T>(&self, request: u32, argument: &mut T) -> std::io::Result<()> {
        // SAFETY: Each request goes with its structure, which the module fills at most.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::Ioctl::from(request), argument) };
        if result < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    }

    fn target(&self, request: u32, id: &str, value: u64) -> Res<()> {
        let id = id.parse()?;
        Ok(self.ask(request, &mut abi::Target { id, value })?)
    }

    fn status(&self, request: u32, id: u64) -> std::io::Result<abi::Status> {
        // SAFETY: Integers and arrays of them.
        let mut status: abi::Status = unsafe { std::mem::zeroed() };
        status.id = id;
        self.ask(request, &mut status)?;
        Ok(status)
    }
}

fn text(field: &[u8]) -> &str {
    abi::text(field).unwrap_or("-")
}

fn state_name(number: u32) -> &'static str {
    match number {
        state::ATTACHED => "attached",
        state::LOGGING => "logging",
        state::DRAINING => "draining",
        state::PASS_THROUGH => "pass-through",
        state::FAILED => "failed",
        state::STOPPED => "stopped",
        _ => "?",
    }
}

fn show(s: &abi::Status) {
    println!(
        "{} {} {} {} {} size {} flags {} openers {} change {} device {}:{}",
        s.id,
        text(&s.owner),
        text(&s.resource),
        text(&s.device),
        state_name(s.state),
        s.size_bytes,
        s.flags,
        s.openers,
        s.change,
        s.device_major,
        s.device_minor
    );
    println!("  {:?} {:?}", s.log_failure, s.disk_failure);
    println!("  {:?}", s.counters);
    for log in s.logs.iter().take(s.log_count as usize) {
        println!(
            "  {} seq {} logged {} durable {} written_back {} stamp {}.{:09} flags {}",
            text(&log.name),
            log.seq,
            log.logged,
            log.durable,
            log.written_back,
            log.stamp_secs,
            log.stamp_nanos,
            log.flags
        );
    }
}

fn attach(control: &Control, args: &[String]) -> Res<()> {
    let [resource, disk, size, rest @ ..] = args else {
        return Err("attach RESOURCE DISK SIZE [DIRTY_MAX]".into());
    };
    let disk = OpenOptions::new().read(true).write(true).open(disk)?;
    let mut attach = abi::Attach {
        id: 0,
        size_bytes: size.parse()?,
        dirty_max_bytes: rest.first().map_or(Ok(0), |s| s.parse())?,
        disk_fd: disk.as_raw_fd(),
        reserved: 0,
        owner: abi::field("test").ok_or("owner")?,
        resource: abi::field(resource).ok_or("name of the resource is too long")?,
        device: abi::field(&format!("mars/{resource}")).ok_or("name of the device is too long")?,
    };
    control.ask(abi::ATTACH, &mut attach)?;
    println!("{}", attach.id);
    Ok(())
}

fn log(control: &Control, args: &[String]) -> Res<()> {
    let [id, path, pos, rest @ ..] = args else {
        return Err("log ID LOG POS [MARK]".into());
    };
    let open = |path: &str| OpenOptions::new().read(true).write(true).open(path);
    let name = Path::new(path)
        .file_name()
        .and_then(|n| n.to_str())
        .ok_or("no file name")?;
    let seq = name
        .split('-')
        .nth(1)
        .ok_or("no number in the name of the log")?;
    let file = open(path)?;
    let mark = rest.first().map(|path| open(path)).transpose()?;
    let mut log = abi::Log {
        id: id.parse()?,
        seq: seq.parse()?,
        pos: pos.parse()?,
        stamp_secs: 0,
        stamp_nanos: 0,
        log_fd: file.as_raw_fd(),
        mark_fd: mark.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        reserved: 0,
        name: abi::field(name).ok_or("name of the log is too long")?,
    };
    Ok(control.ask(abi::LOG, &mut log)?)
}

fn reached(s: &abi::Status, what: &str) -> bool {
    let logs = &s.logs[..s.log_count as usize];
    match what {
        "clean" => logs.iter().all(|l| l.written_back == l.logged),
        "durable" => logs.iter().all(|l| l.durable == l.logged),
        "complete" => logs
            .iter()
            .rev()
            .skip(1)
            .all(|l| l.flags & log_flag::COMPLETE != 0),
        name => state_name(s.state) == name,
    }
}

fn wait(control: &mut Control, id: &str, what: &str) -> Res<()> {
    let id = id.parse()?;
    loop {
        let mut change = [0; 8];
        let status = control.status(abi::STATUS, id)?;
        if reached(&status, what) {
            return Ok(());
        }
        control.0.read_exact(&mut change)?;
    }
}

fn main() -> Res<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut control = Control::open()?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["attach", ..] => attach(&control, &args[1..]),
        ["log", ..] => log(&control, &args[1..]),
        ["pass", id] => control.target(abi::PASS_THROUGH, id, 0),
        ["stop", id] => control.target(abi::STOP, id, 0),
        ["release", id] => control.target(abi::RELEASE, id, 0),
        ["resize", id, size] => control.target(abi::RESIZE, id, size.parse()?),
        ["status", id] => {
            show(&control.status(abi::STATUS, id.parse()?)?);
            Ok(())
        }
        ["list"] => {
            let mut id = 0;
            while let Ok(status) = control.status(abi::NEXT, id) {
                show(&status);
                id = status.id;
            }
            Ok(())
        }
        ["wait", id, what] => wait(&mut control, id, what),
        _ => Err("see the head of the source".into()),
    }
}
