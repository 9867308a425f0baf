//! Where the messages of the real daemon go.
#![allow(clippy::unwrap_used)] // a failed step fails the test

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

struct Node {
    home: TempDir,
}

impl Node {
    /// A cluster of one node, one link of which is damaged.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for dir in ["mars/ips", "mars/resource-r1", "bin"] {
            fs::create_dir_all(home.path().join(dir)).unwrap();
        }
        symlink("ten", home.path().join("mars/resource-r1/size")).unwrap();
        fs::write(home.path().join("bin/mars-shim"), "").unwrap();
        Self { home }
    }

    fn path(&self, rel: &str) -> PathBuf {
        self.home.path().join(rel)
    }

    fn read(&self, rel: &str) -> String {
        fs::read_to_string(self.path(rel)).unwrap_or_default()
    }

    fn command(&self, args: &[&str]) -> Command {
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(self.path("stderr"))
            .unwrap();
        let meta = stderr.metadata().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_marsd"));
        command
            .args(args)
            .args(["--port", "0", "--shim-program"])
            .arg(self.path("bin/mars-shim"))
            .env("MARS_DIR", self.path("mars"))
            .env("MARS_RUN", self.path("run"))
            .env("MARS_HOST", "A")
            .env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()))
            .env_remove("MARS_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        command
    }

    fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            let text = self.read("stderr");
            assert!(Instant::now() < deadline, "never: {what}\n{text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn stop(mut child: Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_warning_stands_in_the_journal_in_the_file_for_mars_status_and_in_the_log_of_the_admin() {
    let node = Node::new();
    fs::write(node.path("mars/log.txt"), "").unwrap();
    let child = node.command(&[]).spawn().unwrap();
    let about = "resource-r1/size: bad value 'ten'";
    for file in ["stderr", "run/sys/warnings", "mars/log.txt"] {
        node.wait(file, || node.read(file).contains(about));
    }
    node.wait("it runs", || node.read("stderr").contains("marsd 0"));
    stop(child);
    let stderr = node.read("stderr");
    assert!(stderr.lines().all(|line| line.starts_with('<')), "{stderr}");
    let warning = stderr.lines().find(|line| line.contains(about)).unwrap();
    assert!(
        warning.starts_with("<4>resource-r1/size") && warning.ends_with(" resource=r1"),
        "{warning}"
    );
    let warnings = node.read("run/sys/warnings");
    let (time, rest) = warnings.split_once(' ').unwrap();
    assert!(
        time.split_once('.').unwrap().1.len() == 9 && rest.starts_with("MARS_WARN    "),
        "{warnings}"
    );
    assert!(node.read("mars/log.txt").contains(" MARS_INFO    "));
    // What is told at the very end is not lost.
    assert!(
        stderr.lines().last().unwrap().contains("stopped"),
        "{stderr}"
    );
}

#[test]
fn the_level_is_set_and_a_misspelt_one_is_refused() {
    let node = Node::new();
    let status = node.command(&["--log-level", "loud"]).status().unwrap();
    assert_eq!(status.code(), Some(2));
    let text = node.read("stderr");
    assert!(
        text.contains("'loud' is no level: use error, warn, info"),
        "{text}"
    );
    fs::remove_file(node.path("stderr")).unwrap();
    let child = node.command(&["--log-level", "warn"]).spawn().unwrap();
    node.wait("the warning", || node.read("stderr").contains("'ten'"));
    node.wait("it runs", || node.path("mars/alive-A").is_symlink());
    stop(child);
    assert!(
        !node.read("stderr").contains("<6>"),
        "{}",
        node.read("stderr")
    );
    assert!(!node.path("mars/log.txt").exists());
}
