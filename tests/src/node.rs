//! One node: booting it, running commands in it, pulling its plug.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::cluster::poll;
use crate::command::{DEADLINE, Output, exit_code, run, wait_child};
use crate::disk::Disk;
use crate::error::{Context, Result, fail};
use crate::process::Process;
use crate::requirements::{built_dir, program_dir};
use crate::ssh;
use crate::supervisor::{INIT_FILE, NODE_MARK, kill_node};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Seconds by which the clock of a node differs from that of the machine; outlives the death of the node.
pub(crate) const CLOCK_OFFSET_FILE: &str = "/root/.clock-offset";

/// A node of a cluster, booted or not.
#[derive(Debug)]
pub struct Node {
    name: String,
    /// From 1; the last part of its addresses.
    number: usize,
    dir: PathBuf,
    init: Mutex<Option<Process>>,
    disks: Mutex<Vec<Disk>>,
}

impl Node {
    /// The node `name`, not yet booted; its files go to `dir/NAME`.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn create(dir: &Path, number: usize, name: &str, hosts_file: &str) -> Result<Self> {
        let node = Self {
            name: name.into(),
            number,
            dir: dir.join(name),
            init: Mutex::new(None),
            disks: Mutex::new(Vec::new()),
        };
        for sub in ["mars", "fs", "log", "disks", "root", "etc"] {
            let path = node.dir.join(sub);
            fs::create_dir_all(&path).context(format!("create {}", path.display()))?;
        }
        for (file, text) in [
            ("etc/hosts", hosts_file),
            ("etc/hostname", &format!("{name}\n")),
            (
                "etc/shadow",
                "root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n",
            ),
        ] {
            let path = node.dir.join(file);
            fs::write(&path, text).context(format!("write {}", path.display()))?;
        }
        Ok(node)
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its files on the machine.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its init process, while it is booted.
    pub fn init(&self) -> Option<Process> {
        *self.init.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn set_init(&self, init: Option<Process>) {
        *self.init.lock().unwrap_or_else(|e| e.into_inner()) = init;
    }

    /// Its disks, in the order in which they were added.
    pub fn disks(&self) -> Vec<Disk> {
        self.disks.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn running(&self) -> Result<Process> {
        self.init().context(format!("{} is not booted", self.name))
    }

    /// Starts the namespaces; [`crate::Cluster::boot`] also plugs the network in and starts sshd.
    ///
    /// # Errors
    /// A namespace, mount or device cannot be made.
    pub(crate) fn start_init(&self) -> Result<Process> {
        if self.init().is_some() {
            return Err(fail(format!("{} is booted already", self.name)));
        }
        let file = self.dir.join(INIT_FILE);
        // A left-over of the life before must not be taken for the new init.
        let _ = fs::remove_file(&file);
        let log = self.open_log("init")?;
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--fork"])
            .args(["--propagation", "private", "--"])
            .arg(built_dir()?.join("mars-node"))
            .arg("init")
            .arg(&self.dir)
            .arg(&self.name)
            .arg(program_dir()?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start unshare")?;
        let mut ended = None;
        let ready = poll(Duration::from_secs(20), || {
            ended = unshare.try_wait().ok().flatten();
            let root = |p: Process| format!("/proc/{}/root/dev/{NODE_MARK}", p.pid);
            ended.is_some() || Process::load(&file).is_some_and(|p| Path::new(&root(p)).exists())
        });
        let init = Process::load(&file).filter(|_| ready.is_ok() && ended.is_none());
        let init = init.context(format!(
            "{} does not boot: {}",
            self.name,
            self.log_tail("init", 5)
        ))?;
        self.set_init(Some(init));
        Ok(init)
    }

    /// Starts what a machine starts at boot: device nodes, sshd and the administrator's agent.
    pub(crate) fn start_services(&self, cluster_dir: &Path) -> Result {
        for disk in self.disks() {
            self.run(&disk.node_script()?)?;
        }
        self.run(&ssh::start_script(cluster_dir)?).map(drop)
    }

    /// Pulls the plug: every process of the node dies at once, its mounts and network end. Disks and `/mars` stay.
    ///
    /// # Errors
    /// It is not booted, or something of it stays.
    pub fn power_off(&self) -> Result {
        let init = self.running()?;
        kill_node(&init).context(format!("power off {}", self.name))?;
        self.set_init(None);
        Ok(())
    }

    /// Sets the clock of the node so many seconds before (or behind) that of the machine.
    ///
    /// # Errors
    /// The file with the number cannot be written.
    pub fn set_clock(&self, offset_secs: i64) -> Result {
        let file = self.dir.join(CLOCK_OFFSET_FILE.trim_start_matches('/'));
        let temp = file.with_extension("tmp");
        fs::write(&temp, format!("{offset_secs}\n"))
            .and_then(|()| fs::rename(&temp, &file))
            .context(format!("set the clock of {}", self.name))
    }

    /// Gives the node a disk of `bytes` bytes at `path`, such as `/dev/vg-test/LV-ResA`.
    ///
    /// # Errors
    /// The disk cannot be made.
    pub fn add_disk(&self, path: &str, bytes: u64) -> Result<Disk> {
        let disk = Disk::create(&self.dir.join("disks"), path, bytes)?;
        self.run(&disk.node_script()?)?;
        let mut disks = self.disks.lock().unwrap_or_else(|e| e.into_inner());
        disks.push(disk.clone());
        Ok(disk)
    }

    /// The disk that was added at `path`.
    ///
    /// # Errors
    /// There is none.
    pub fn disk(&self, path: &str) -> Result<Disk> {
        self.disks()
            .into_iter()
            .find(|d| d.path == path)
            .context(format!("{} has no disk {path}", self.name))
    }

    /// A command that runs `script` in the node as root does after login.
    pub fn command(&self, script: &str) -> Result<Command> {
        let init = self.running()?;
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &init.pid.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--"])
            .args(["env", "-i", "HOME=/root", "USER=root", "LOGNAME=root"])
            .args(["SHELL=/bin/bash", "LANG=C.UTF-8"])
            .arg(format!("PATH={PATH}"))
            .arg(format!("SSH_AUTH_SOCK={}", ssh::AGENT_SOCKET))
            .arg(format!("MARS_CLOCK_OFFSET_FILE={CLOCK_OFFSET_FILE}"))
            .arg(format!(
                "TERM={}",
                std::env::var("TERM").unwrap_or_else(|_| "dumb".into())
            ))
            .args(["bash", "-c", &format!("cd /root\n{script}")]);
        Ok(command)
    }

    /// Runs a script in the node; its exit code may be anything.
    ///
    /// # Errors
    /// It cannot be started or does not end in time.
    pub fn try_run(&self, script: &str) -> Result<Output> {
        self.try_run_for(script, DEADLINE)
    }

    /// [`Self::try_run`] with a deadline of its own.
    ///
    /// # Errors
    /// It cannot be started or does not end in time.
    pub fn try_run_for(&self, script: &str, deadline: Duration) -> Result<Output> {
        let shown = format!("{}# {script}", self.name);
        run(&mut self.command(script)?, &shown, deadline)
    }

    /// Runs a script in the node and returns what it prints.
    ///
    /// # Errors
    /// It fails or does not end in time.
    pub fn run(&self, script: &str) -> Result<String> {
        self.try_run(script)?.good()
    }

    /// Starts a script in the background; its output goes to the log `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, log: &str, script: &str) -> Result<Task> {
        let file = self.open_log(log)?;
        let twin = file.try_clone().context("duplicate a log file")?;
        let child = self
            .command(script)?
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(twin)
            // Ctrl-C in the terminal is for the owner alone.
            .process_group(0)
            .spawn()
            .context(format!("start `{script}` on {}", self.name))?;
        Ok(Task {
            child,
            what: format!("{}# {script}", self.name),
            log: self.log_path(log),
        })
    }

    /// Kills all processes of this name in the node with `SIGKILL` and returns how many there were.
    ///
    /// # Errors
    /// There is none, or one survives.
    pub fn kill9(&self, name: &str) -> Result<usize> {
        let found = self.processes(name)?;
        if found.is_empty() {
            return Err(fail(format!("no {name} runs on {}", self.name)));
        }
        for process in &found {
            process.kill(Duration::from_secs(10))?;
        }
        Ok(found.len())
    }

    /// Processes of this name in the node.
    ///
    /// # Errors
    /// The node is not booted.
    pub fn processes(&self, name: &str) -> Result<Vec<Process>> {
        Ok(self.running()?.peers_named(name))
    }

    fn log_path(&self, log: &str) -> PathBuf {
        self.dir.join("log").join(format!("{log}.log"))
    }

    pub(crate) fn open_log(&self, log: &str) -> Result<File> {
        let path = self.log_path(log);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .context(format!("open {}", path.display()))
    }

    /// All that was written to a log so far.
    pub fn log(&self, log: &str) -> String {
        fs::read(self.log_path(log))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of a log.
    pub fn log_tail(&self, log: &str, lines: usize) -> String {
        let text = self.log(log);
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// A script that runs in the background.
#[derive(Debug)]
pub struct Task {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Task {
    /// Waits until it ends and returns what it printed.
    ///
    /// # Errors
    /// It failed or still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Result<String> {
        let status =
            wait_child(&mut self.child, deadline).context(format!("wait for {}", self.what))?;
        let text = self.output();
        let Some(status) = status else {
            return Err(fail(format!("`{}` still runs: {text}", self.what)));
        };
        Output {
            command: self.what.clone(),
            code: exit_code(status),
            text,
        }
        .good()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
