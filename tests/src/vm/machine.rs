//! One virtual machine: its disks, booting it to run a script, cutting its power.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::RunningTime;
use crate::command::{Output, wait_child};
use crate::error::{Context, Result, fail};
use crate::vm::disk::Disk;
use crate::vm::kernel::{Kernel, vm_file};
use crate::vm::work_dir::WorkDir;

/// Words in the kernel's log that no test may leave there.
const COMPLAINTS: [&str; 14] = [
    "WARNING:",
    "BUG:",
    "BUG ",
    "INFO: possible",
    "INFO: task",
    "INFO: rcu",
    "Oops",
    "KFENCE",
    "KASAN",
    "lockdep is turned off",
    "Kernel panic",
    "Call Trace",
    "ODEBUG",
    "list_add corruption",
];

/// A machine that was stopped for some minutes as a whole must not believe that its tasks hang.
const PATIENCE: &str = "rcupdate.rcu_cpu_stall_timeout=300 workqueue.watchdog_thresh=300 \
                        sysctl.kernel.hung_task_timeout_secs=300";
/// The emulated processor. What is slow only because it is emulated is left out: the kernel and all programs have other
/// ways for checksums (the instruction of SSE 4.2 is emulated bit by bit) and copying (`rep movsb` byte by byte).
const PROCESSOR: &str = "max,sse4.2=off,erms=off";

/// A virtual machine, running or not. Its disks and files go when it is dropped.
#[derive(Debug)]
pub struct Machine {
    build: PathBuf,
    memory_mib: u32,
    disks: Vec<Disk>,
    dir: WorkDir,
}

impl Machine {
    /// A machine without disks.
    ///
    /// # Errors
    /// The kernel cannot be built, or a directory cannot be made.
    pub fn new(kernel: Kernel, memory_mib: u32) -> Result<Self> {
        let build = kernel.build_dir()?;
        let dir = WorkDir::create()?;
        let share = dir.path().join("share");
        fs::create_dir(&share).context(format!("create {}", share.display()))?;
        let modules = build.join("install/lib/modules");
        let release = fs::read_dir(&modules)
            .ok()
            .and_then(|mut entries| entries.next()?.ok())
            .context(format!("{} is empty", modules.display()))?;
        fs::write(
            share.join("modules"),
            format!("{}\n", release.path().display()),
        )
        .context("write where the modules are")?;
        Ok(Self {
            build,
            memory_mib,
            disks: Vec::new(),
            dir,
        })
    }

    /// Adds a disk of `bytes` bytes: `/dev/vda`, then `/dev/vdb` and so on.
    ///
    /// # Errors
    /// Its files cannot be made.
    pub fn add_disk(&mut self, bytes: u64) -> Result {
        let name = format!("disk{}", self.disks.len());
        self.disks
            .push(Disk::create(self.dir.path(), &name, bytes)?);
        Ok(())
    }

    /// The directory that the guest sees, writable, at `/run/vm`.
    pub fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    /// Boots and begins to run `script` in bash.
    ///
    /// # Errors
    /// A file cannot be written or qemu cannot be started.
    pub fn start(&self, script: &str) -> Result<Boot<'_>> {
        let share = self.share();
        for name in ["output", "status"] {
            let path = share.join(name);
            fs::write(&path, "").context(format!("write {}", path.display()))?;
        }
        fs::write(share.join("script"), script).context("write the script")?;
        let console = self.dir.path().join("console");
        let _ = fs::remove_file(&console);
        let errors = self.dir.path().join("qemu");
        let log = fs::File::create(&errors).context(format!("create {}", errors.display()))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(self.arguments(&share, &console))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start qemu-system-x86_64 (package qemu-system-x86)")?;
        Ok(Boot {
            machine: self,
            child,
        })
    }

    /// Boots, runs `script` to its end and returns what it printed.
    ///
    /// # Errors
    /// The script fails or takes longer than `deadline`, or the kernel complains.
    pub fn run(&self, script: &str, deadline: Duration) -> Result<String> {
        let mut boot = self.start(script)?;
        match boot.end(deadline)? {
            0 => Ok(boot.output()),
            code => Err(boot.failed(&format!("the script ended with {code}"))),
        }
    }

    fn arguments(&self, share: &Path, console: &Path) -> Vec<String> {
        let accel = std::env::var("MARS_VM_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".into());
        let processor = if accel.starts_with("tcg") {
            PROCESSOR
        } else {
            "max"
        };
        let init = fs::canonicalize(vm_file("guest")).unwrap_or_else(|_| vm_file("guest"));
        let kernel_line = format!(
            "console=ttyS0 loglevel=7 panic=-1 {PATIENCE} root=host rootfstype=9p \
             rootflags=trans=virtio,version=9p2000.L,cache=loose,msize=512000 ro init={}",
            init.display()
        );
        let mut all: Vec<String> = [
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-machine",
            "q35",
            "-cpu",
            processor,
            "-smp",
            "2",
            "-device",
            "virtio-rng-pci",
            "-device",
            "virtio-9p-pci,fsdev=host,mount_tag=host",
            "-device",
            "virtio-9p-pci,fsdev=share,mount_tag=share",
            "-fsdev",
            "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
        ]
        .map(String::from)
        .into();
        let mut add = |words: [&str; 2]| all.extend(words.map(String::from));
        add(["-accel", &accel]);
        add(["-m", &self.memory_mib.to_string()]);
        let image = self.build.join("arch/x86/boot/bzImage");
        add(["-kernel", &image.to_string_lossy()]);
        add(["-append", &kernel_line]);
        add(["-serial", &format!("file:{}", console.display())]);
        let share = share.display();
        let path = format!("local,id=share,path={share},security_model=none,multidevs=remap");
        add(["-fsdev", &path]);
        for (index, disk) in self.disks.iter().enumerate() {
            let socket = disk.socket().display();
            add([
                "-blockdev",
                &format!("driver=nbd,node-name=disk{index},server.type=unix,server.path={socket}"),
            ]);
            add([
                "-device",
                &format!(
                    "virtio-blk-pci,drive=disk{index},write-cache=on,physical_block_size=4096"
                ),
            ]);
        }
        all
    }
}

/// A machine that runs. Dropping it kills the machine, whose disks then still have their caches.
#[derive(Debug)]
pub struct Boot<'a> {
    machine: &'a Machine,
    child: Child,
}

impl Boot<'_> {
    /// What the script has printed so far.
    pub fn output(&self) -> String {
        read(&self.machine.share().join("output"))
    }

    /// What the kernel has said so far.
    pub fn console(&self) -> String {
        read(&self.machine.dir.path().join("console"))
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the script has ended and the machine is off.
    ///
    /// # Errors
    /// The script takes too long, the machine dies before the script ends, or the kernel complains.
    pub fn wait(mut self, deadline: Duration) -> Result<Output> {
        Ok(Output {
            command: "script of the virtual machine".into(),
            code: self.end(deadline)?,
            text: self.output(),
        })
    }

    /// As [`Self::wait`]; returns the exit code of the script.
    fn end(&mut self, deadline: Duration) -> Result<i32> {
        let has_ended = self.wait_or_complain(deadline)?;
        self.check_console()?;
        let code = read(&self.machine.share().join("status"));
        match (has_ended, code.trim().parse()) {
            (true, Ok(code)) => Ok(code),
            (false, _) => Err(self.failed(&format!(
                "the script has not ended within {} s",
                deadline.as_secs()
            ))),
            (true, Err(_)) => Err(self.failed("the machine died before the script ended")),
        }
    }

    /// Whether the machine ends within `deadline`. One whose kernel complains may hang for ever, and is not waited for.
    fn wait_or_complain(&mut self, deadline: Duration) -> Result<bool> {
        let mut clock = RunningTime::default();
        let mut looked = Instant::now();
        while self.child.try_wait().context("wait for qemu")?.is_none() {
            if clock.passed() >= deadline {
                return Ok(false);
            }
            if looked.elapsed() >= Duration::from_secs(1) {
                looked = Instant::now();
                if self.check_console().is_err() {
                    // What it says after its first line is wanted, too.
                    let ended = wait_child(&mut self.child, Duration::from_secs(3));
                    ended.context("wait for qemu")?;
                    return self.check_console().map(|()| false);
                }
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        Ok(true)
    }

    /// Cuts the power; what the disks had not been told to flush is lost in part, as `seed` says.
    ///
    /// Returns how many blocks of the caches were lost and how many were kept.
    ///
    /// # Errors
    /// The kernel has complained before, or the machine was not running any more.
    pub fn cut(mut self, seed: u64) -> Result<(usize, usize)> {
        if !self.runs() {
            return Err(self.failed("the machine was to lose its power, but it has ended"));
        }
        self.wait_for_cached(Duration::from_millis(300));
        std::thread::sleep(Duration::from_millis(seed % 8));
        // It stands still first, so that the guest does not see its disks go.
        let process = i32::try_from(self.child.id()).context("number of qemu")?;
        kill(Pid::from_raw(process), Signal::SIGSTOP).context("stop qemu")?;
        for disk in &self.machine.disks {
            disk.power_off();
        }
        self.child.kill().context("kill qemu")?;
        self.child.wait().context("wait for the killed qemu")?;
        self.check_console()?;
        let mut sum = (0, 0);
        for (number, disk) in (1..).zip(&self.machine.disks) {
            let (lost, kept) =
                disk.lose_cache(seed.wrapping_mul(0x9e37_79b9).wrapping_add(number))?;
            sum = (sum.0 + lost, sum.1 + kept);
        }
        Ok(sum)
    }

    /// A moment at which a power cut can do harm; after a while any other will do.
    fn wait_for_cached(&self, longest: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < longest && !self.machine.disks.iter().any(Disk::has_cached) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn check_console(&self) -> Result {
        let console = self.console();
        let first = console
            .lines()
            .find(|line| COMPLAINTS.iter().any(|word| line.contains(word)));
        match first {
            None => Ok(()),
            Some(line) => Err(self.failed(&format!("the kernel complains: {line}"))),
        }
    }

    /// An error that shows all there is: what qemu, the script and the kernel have said.
    pub fn failed(&self, what: &str) -> crate::Error {
        let qemu = read(&self.machine.dir.path().join("qemu"));
        let (output, console) = (self.output(), self.console());
        fail(format!(
            "{what}\n===== qemu\n{qemu}\n===== output of the script\n{output}\n===== console\n{console}\n===== {what}"
        ))
    }
}

impl Drop for Boot<'_> {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map_or_else(
        |_| String::new(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}
