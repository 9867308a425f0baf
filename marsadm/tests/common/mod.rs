//! Runs the real program on a tree built from a manifest, and tells what it changed.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // every test file uses a part of this; a failed step fails the test

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mars_core::{LinkPath, Tree};
use mars_tree::{TreeDir, manifest, wall_clock};

/// Two nodes A (primary) and B with resource r1, replicated up to byte 8360 of log 1.
pub const PAIR: &str = include_str!("pair.manifest");

/// A node with a tree of its own.
pub struct Node {
    temp: tempfile::TempDir,
    host: String,
    pub dir: TreeDir,
    before: Tree,
}

/// How the program ended.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Node {
    /// A node named `host` with the tree of `text`.
    pub fn new(host: &str, text: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = TreeDir::new(temp.path().join("mars"));
        if !text.is_empty() {
            manifest::store_manifest(&manifest::parse(text).unwrap(), dir.root()).unwrap();
        }
        let before = dir.load().tree;
        Self {
            temp,
            host: host.into(),
            dir,
            before,
        }
    }

    /// Sets a link of the tree before the program runs.
    pub fn with(mut self, path: &str, value: &str) -> Self {
        self.dir.set(&link(path), value).unwrap();
        self.before = self.dir.load().tree;
        self
    }

    /// Removes a link of the tree before the program runs.
    pub fn without(mut self, path: &str) -> Self {
        self.dir.remove(&link(path)).unwrap();
        self.before = self.dir.load().tree;
        self
    }

    /// What another node writes that has seen all of the tree.
    pub fn hear(&self, path: &str, value: &str) {
        let mut clock = mars_core::Lamport::new(self.dir.load().tree.max_stamp());
        self.dir.set_with(&link(path), value, &mut clock).unwrap();
    }

    /// Gives a fresh sign of life of `host`.
    pub fn alive(self, host: &str) -> Self {
        self.with(&format!("alive-{host}"), "1")
    }

    /// Adds a line of a manifest.
    pub fn plus(mut self, line: &str) -> Self {
        manifest::store_manifest(&manifest::parse(line).unwrap(), self.dir.root()).unwrap();
        self.before = self.dir.load().tree;
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_marsadm"));
        command
            .args(args)
            .env("MARS_DIR", self.dir.root())
            .env("MARS_HOST", &self.host)
            .env("MARS_RUN", self.temp.path().join("run"))
            .env("HOME", self.temp.path())
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        let output = self.command(args).output().unwrap();
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts the program and leaves it running.
    pub fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The value of a link now.
    pub fn get(&self, path: &str) -> Option<String> {
        self.dir.read_link(&link(path)).unwrap().map(|l| l.value)
    }

    /// Waits until a link has this value.
    pub fn wait_for(&self, path: &str, value: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.get(path).as_deref() != Some(value) {
            assert!(
                Instant::now() < deadline,
                "{path} is {:?}, not {value}",
                self.get(path)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Names in the root, if there is one.
    pub fn changes_of_root(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.root());
        entries.map_or_else(|_| Vec::new(), |e| e.map(|e| e.unwrap().path()).collect())
    }

    /// What is different now: `+path -> value`, `-path`, `+log path`, `-log path`. Every link that was written must be
    /// newer than everything that was there before, and nothing may be damaged.
    pub fn changes(&self) -> Vec<String> {
        let loaded = self.dir.load();
        assert_eq!(loaded.problems, vec![]);
        let after = loaded.tree;
        let mut out = Vec::new();
        for (path, link) in &after.links {
            let old = self.before.links.get(path);
            if old != Some(link) {
                let file = self.dir.link_path(path);
                assert!(
                    !file.is_symlink() || link.stamp > self.before.max_stamp(),
                    "{path} is not newer than the tree was"
                );
                if old.is_none_or(|o| o.value != link.value) {
                    out.push(format!("+{path} -> {}", link.value));
                }
            }
        }
        out.extend(
            self.before
                .links
                .keys()
                .filter(|p| !after.links.contains_key(p))
                .map(|p| format!("-{p}")),
        );
        let logs = |tree: &Tree| -> Vec<String> {
            tree.logs
                .iter()
                .flat_map(|(r, l)| l.keys().map(move |k| format!("log resource-{r}/{k}")))
                .collect()
        };
        let (old, new) = (logs(&self.before), logs(&after));
        out.extend(
            new.iter()
                .filter(|l| !old.contains(l))
                .map(|l| format!("+{l}")),
        );
        out.extend(
            old.iter()
                .filter(|l| !new.contains(l))
                .map(|l| format!("-{l}")),
        );
        out
    }
}

impl Done {
    /// It succeeded; each of these stands in its output.
    #[track_caller]
    pub fn ok(&self, texts: &[&str]) {
        assert_eq!(self.code, 0, "{self:?}");
        for text in texts {
            assert!(self.out.contains(text), "'{text}' is missing: {self:?}");
        }
    }

    /// It failed with this code; each of these stands in its errors.
    #[track_caller]
    pub fn failed(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains("ERROR: "), "{self:?}");
        for text in texts {
            assert!(self.err.contains(text), "'{text}' is missing: {self:?}");
        }
    }
}

/// A path of the tree.
pub fn link(path: &str) -> LinkPath {
    LinkPath::parse(path).unwrap()
}

/// A stamp that is now.
pub fn now() -> String {
    wall_clock().to_string()
}
