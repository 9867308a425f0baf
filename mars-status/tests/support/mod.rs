//! Trees from manifests, and the program run on them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mars_core::{HostName, LinkPath, Stamp, Tree};
use mars_status::facts::{Facts, Mount};
use mars_status::model::Model;
use mars_status::options::{self, Parsed};
use mars_status::paint::Painter;
use mars_status::render;
use mars_tree::{TreeDir, manifest, wall_clock};
use tempfile::TempDir;

/// The secondary of the documentation.
pub const SECONDARY: &str = "istore-test-bap7";
/// The primary of the documentation.
pub const PRIMARY: &str = "istore-test-bs7";
/// Its resource.
pub const RESOURCE: &str = "DeviceA";

/// Text of a file below `fixtures`.
pub fn fixture_text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The tree of a manifest.
pub fn fixture(name: &str) -> Tree {
    manifest::parse(&fixture_text(name)).unwrap()
}

/// Puts a link with the stamp of the documentation's afternoon.
pub fn set(tree: &mut Tree, path: &str, value: &str) {
    let link = LinkPath::parse(path).unwrap_or_else(|| panic!("{path}"));
    tree.put(link, value, Stamp::new(1_348_833_420, 0)).unwrap();
}

/// A link of the resource of the documentation.
pub fn set_res(tree: &mut Tree, name: &str, value: &str) {
    set(tree, &format!("resource-{RESOURCE}/{name}"), value);
}

/// The system at the time of the documentation.
pub fn facts() -> Facts {
    Facts {
        now: Stamp::new(1_348_833_430, 0),
        kernel: "3.2.26-20120925".into(),
        module: None,
        parameters: BTreeMap::new(),
        partition_kib: None,
        mounts: BTreeMap::from([(RESOURCE.to_string(), Mount::NoDevice)]),
        daemon_lock: None,
        warnings: Vec::new(),
        errors: Vec::new(),
    }
}

/// The model that `args` ask for on `me`.
pub fn model(tree: &Tree, me: &str, facts: &Facts, args: &[&str]) -> Model {
    let args: Vec<OsString> = ["mars-status"]
        .iter()
        .chain(args)
        .map(OsString::from)
        .collect();
    let Parsed::Run(options) = options::parse(&args) else {
        panic!("{args:?} is refused");
    };
    Model::build(tree, &HostName::new(me).unwrap(), facts, &options)
}

/// The text of a model without colours.
pub fn text(model: &Model) -> String {
    Painter::new(false).paint(&render::render(model))
}

/// A tree on disk that the program can be run on.
pub struct Node {
    dir: TempDir,
    host: &'static str,
}

impl Node {
    /// Node `host` with this tree, in which every node that is alive has just given a sign of life.
    pub fn new(tree: &Tree, host: &'static str) -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("mars");
        manifest::store_manifest(tree, &root).unwrap();
        let disk = TreeDir::new(&root);
        for (path, link) in &tree.links {
            if matches!(path, LinkPath::Alive(_)) && link.value == "1" {
                disk.write_link(path, "1", wall_clock()).unwrap();
            }
        }
        Self { dir, host }
    }

    /// Node `host` with these links, all just written, in memory if possible: there are many.
    pub fn of_links<'a>(
        links: impl Iterator<Item = (String, &'a str)>,
        host: &'static str,
    ) -> Self {
        let dir = TempDir::new_in("/dev/shm")
            .or_else(|_| TempDir::new())
            .unwrap();
        let node = Self { dir, host };
        for (path, value) in links {
            let place = node.path(&path);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(value, place).unwrap();
        }
        node
    }

    /// The secondary of the documentation, with nothing to do.
    pub fn steady() -> Self {
        Self::new(&fixture("steady.manifest"), SECONDARY)
    }

    /// A file or directory of the tree.
    pub fn path(&self, rel: &str) -> std::path::PathBuf {
        self.dir.path().join("mars").join(rel)
    }

    /// A file below the run directory.
    pub fn write_run(&self, rel: &str, text: &str) {
        let path = self.dir.path().join("run").join(rel);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The program, ready to run.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("MARS_DIR", self.dir.path().join("mars"))
            .env("MARS_RUN", self.dir.path().join("run"))
            .env("MARS_HOST", self.host)
            .env("TZ", "UTC")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        command
    }

    /// The lock file of marsd, held as long as the value lives.
    pub fn hold_lock(&self) -> nix::fcntl::Flock<std::fs::File> {
        self.write_run("marsd.lock", "");
        let file = std::fs::File::open(self.dir.path().join("run/marsd.lock")).unwrap();
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).unwrap()
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(
            self.command(env!("CARGO_BIN_EXE_mars-status"), args)
                .output()
                .unwrap(),
        )
    }

    /// Runs the program on a terminal, as far as it can tell.
    pub fn run_on_terminal(&self, args: &str, no_color: bool) -> Ran {
        let line = format!("{} {args}", env!("CARGO_BIN_EXE_mars-status"));
        let mut command = self.command("script", &["-qec", &line, "/dev/null"]);
        command.env("TERM", "xterm");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        Ran::from(command.output().unwrap())
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
