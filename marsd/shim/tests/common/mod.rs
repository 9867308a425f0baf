//! A shim under test: its process, its control connection, its disk and logs; everything is removed in the end.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

pub mod blocks;
pub mod replay;

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mars_core::control::{Attach, Message, PROTOCOL, Refusal, Request, Resume, ShimStatus, Verb};
use mars_core::{HostName, LogName, ResourceName};
use mars_tree::control_socket::ControlSocket;
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Rig {
    pub dir: TempDir,
    // Sockets and the stage, in memory as `/run` is.
    _run: TempDir,
    pub size: u64,
    pub log_dir: PathBuf,
    shim: Option<Child>,
    control: Option<ControlSocket>,
    pub held: Option<(Resume, OwnedFd)>,
    pub last: Option<ShimStatus>,
    pub loops: Vec<String>,
    mounts: Vec<PathBuf>,
    next_id: u64,
    dirty_mib: u64,
}

impl Rig {
    pub fn new(size: u64) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        let disk = File::create(dir.path().join("disk")).unwrap();
        disk.set_len(size).unwrap();
        let run = tempfile::tempdir_in("/dev/shm").unwrap();
        std::os::unix::fs::symlink(run.path(), dir.path().join("run")).unwrap();
        Self {
            _run: run,
            log_dir: dir.path().join("logs"),
            dir,
            size,
            shim: None,
            control: None,
            held: None,
            last: None,
            loops: Vec::new(),
            mounts: Vec::new(),
            next_id: 0,
            dirty_mib: 64,
        }
    }

    /// A rig whose shim is started, attached and logs to log 1.
    pub fn serving(size: u64) -> Self {
        let mut rig = Self::new(size);
        rig.start();
        rig.attach(None).unwrap();
        rig.log(1, 0).unwrap();
        rig
    }

    /// Where `/run` is no tmpfs, nothing outlives the shim but the log.
    pub fn without_stage(self) -> Self {
        fs::remove_file(self.path("run")).unwrap();
        fs::create_dir(self.path("run")).unwrap();
        self
    }

    pub fn set_dirty_mib(&mut self, mib: u64) {
        self.dirty_mib = mib;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn device(&self) -> PathBuf {
        self.path("dev/r")
    }

    pub fn log_path(&self, seq: u64) -> PathBuf {
        self.log_dir.join(log_name(seq).to_string())
    }

    /// Starts the process and greets it.
    pub fn start(&mut self) {
        let child = Command::new(env!("CARGO_BIN_EXE_mars-shim"))
            .args(["--resource", "r", "--dirty-mib"])
            .arg(self.dirty_mib.to_string())
            .arg("--run-dir")
            .arg(self.path("run"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.shim = Some(child);
        self.connect();
    }

    pub fn connect(&mut self) {
        let socket = self.path("run/shim-r.sock");
        let control = wait_for("the control socket", || {
            ControlSocket::connect(&socket).ok()
        });
        control.set_timeout(Some(PATIENCE)).unwrap();
        self.control = Some(control);
        self.send(Verb::Hello { protocol: PROTOCOL }, None).unwrap();
    }

    pub fn disconnect(&mut self) {
        self.control = None;
    }

    /// Sends a verb and waits for its reply; what else comes is noted.
    pub fn send(&mut self, verb: Verb, fd: Option<OwnedFd>) -> Result<ShimStatus, Refusal> {
        self.next_id += 1;
        let id = self.next_id;
        let fd = fd.as_ref().map(AsFd::as_fd);
        let control = self.control.as_ref().unwrap();
        control.send(&Request { id, verb }, fd).unwrap();
        loop {
            if let Some(reply) = self.receive() {
                assert_eq!(reply.id, id);
                if let Ok(status) = &reply.result {
                    self.last = Some(status.clone());
                }
                return reply.result;
            }
        }
    }

    /// Takes one message.
    pub fn receive(&mut self) -> Option<mars_core::control::Reply> {
        let (message, fd) = self.control.as_ref().unwrap().recv().unwrap();
        match message {
            Message::Reply(reply) => return Some(reply),
            Message::Status(status) => self.last = Some(status),
            Message::Hold(resume) => {
                self.loops.push(resume.loop_device.clone());
                self.held = Some((resume, fd.unwrap()));
            }
        }
        None
    }

    /// Takes pushed messages until the status fulfils `condition`.
    pub fn wait_status(
        &mut self,
        what: &str,
        condition: impl Fn(&ShimStatus) -> bool,
    ) -> ShimStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.last.as_ref().filter(|s| condition(s)) {
                return status.clone();
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; last: {:?}",
                self.last
            );
            assert!(self.receive().is_none());
        }
    }

    pub fn attach(&mut self, resume: Option<(Resume, OwnedFd)>) -> Result<ShimStatus, Refusal> {
        let (resume, fd) = resume.map_or((None, None), |(r, f)| (Some(r), Some(f)));
        let attach = Attach {
            resource: ResourceName::new("r").unwrap(),
            device: self.device().display().to_string(),
            disk: self.path("disk").display().to_string(),
            size_bytes: self.size,
            log_dir: self.log_dir.display().to_string(),
            resume,
        };
        self.send(Verb::Attach(attach), fd)
    }

    pub fn log(&mut self, seq: u64, pos: u64) -> Result<ShimStatus, Refusal> {
        let log = log_name(seq);
        let status = self.send(Verb::Log { log, pos }, None);
        if status.is_ok() {
            // The descriptor comes right behind the first one.
            while self.held.is_none() {
                assert!(self.receive().is_none());
            }
        }
        status
    }

    pub fn status(&mut self) -> ShimStatus {
        self.send(Verb::Status, None).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.shim.as_ref().unwrap().id()
    }

    /// kill -9; the control connection is gone with it.
    pub fn kill(&mut self) {
        let mut shim = self.shim.take().unwrap();
        shim.kill().unwrap();
        shim.wait().unwrap();
        self.control = None;
    }

    /// Waits for the end of the process; its exit code.
    pub fn wait_exit(&mut self) -> i32 {
        let mut shim = self.shim.take().unwrap();
        self.control = None;
        let status = wait_for("the end of the shim", || shim.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    /// Stops in good order and checks that everything is complete.
    pub fn stop(&mut self) -> ShimStatus {
        let status = self.send(Verb::Stop, None).unwrap();
        assert_eq!(self.wait_exit(), 0);
        self.held = None;
        assert!(!self.device().exists());
        for log in &status.logs {
            assert!(log.complete, "{log:?}");
            assert_eq!(
                (log.logged, log.durable),
                (log.written_back, log.written_back)
            );
            let len = fs::metadata(self.log_path(log.log.seq)).unwrap().len();
            assert_eq!(len, log.logged);
        }
        status
    }

    /// Mounts `what` at `name` below the rig's directory; it is unmounted in the end.
    pub fn mount(&mut self, what: &Path, name: &str) -> PathBuf {
        let at = self.path(name);
        fs::create_dir_all(&at).unwrap();
        run(Command::new("mount").arg(what).arg(&at));
        self.mounts.push(at.clone());
        at
    }

    pub fn umount(&mut self, at: &Path) {
        run(Command::new("umount").arg(at));
        self.mounts.retain(|m| m != at);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // First what sits on top, while the device still answers.
        for at in self.mounts.drain(..) {
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
        if let Some(mut shim) = self.shim.take() {
            let _ = shim.kill();
            let _ = shim.wait();
        }
        self.held = None;
        let fuse = self.path("run/fuse-r");
        for number in 0..256 {
            let backing = format!("/sys/block/loop{number}/loop/backing_file");
            let ours = fs::read_to_string(backing).unwrap_or_default();
            if Path::new(ours.trim_end()) == fuse || self.is_own_loop(&ours) {
                let device = format!("/dev/loop{number}");
                let _ = Command::new("losetup").args(["-d", &device]).status();
            }
        }
        let _ = Command::new("umount")
            .args(["-l"])
            .arg(&fuse)
            .stderr(Stdio::null())
            .status();
    }
}

impl Rig {
    fn is_own_loop(&self, backing: &str) -> bool {
        Path::new(backing.trim_end()).starts_with(self.dir.path())
    }
}

pub fn log_name(seq: u64) -> LogName {
    LogName::new(seq, &HostName::new("node-a").unwrap())
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `condition` yields something.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
