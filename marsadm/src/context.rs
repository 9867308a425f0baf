//! What every command works with: the tree, its clock, the options, and edits of the tree as a list that is either
//! applied or (`--dry-run`) shown.

use std::cell::{Cell, RefCell};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use mars_core::plan::{ORDER_ROOT, highest_order};
use mars_core::{HostName, Lamport, LinkPath, LogName, ResourceName, Stamp, Tree};
use mars_tree::{Env, Loaded, TreeDir, wall_clock};
use nix::unistd::{AccessFlags, access};

use crate::error::{AdmError, Result};
use crate::exit::Exit;

/// Without a sign of life for this long, in seconds, a node counts as dead.
const ALIVE_SECS: f64 = 99.0;

/// Options that hold for every command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Do it although a check speaks against it.
    pub(crate) force: bool,
    /// Bound of each wait in seconds, 0 for none; `None`: the default of the command.
    pub(crate) timeout_secs: Option<u64>,
    /// Show the edits, do not make them.
    pub(crate) dry_run: bool,
    /// Another node than this one, where a command takes one.
    pub(crate) node: Option<HostName>,
}

/// One change of the tree.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    /// Sets a link.
    Set(LinkPath, String),
    /// Removes a link here; it is not removed elsewhere.
    Remove(LinkPath),
    /// Creates a directory.
    Dir(String),
    /// Creates an empty logfile, which must not exist.
    NewLog(ResourceName, LogName),
    /// Removes a logfile here.
    RemoveLog(ResourceName, LogName),
    /// Orders all nodes to delete a path relative to the root.
    Order(String),
}

/// The tree and the options of one invocation.
pub(crate) struct Context {
    /// Places and name of this node.
    pub(crate) env: Env,
    /// The tree.
    pub(crate) dir: TreeDir,
    /// Options.
    pub(crate) opts: Options,
    clock: Cell<Lamport>,
    focus: RefCell<Option<ResourceName>>,
}

impl Context {
    /// The context of this process.
    pub(crate) fn new(opts: Options) -> Result<Self> {
        let env = Env::from_env().map_err(|e| AdmError::refused(e.to_string()))?;
        Ok(Self {
            dir: TreeDir::new(&env.dir),
            env,
            opts,
            clock: Cell::default(),
            focus: RefCell::default(),
        })
    }

    /// Name of this node.
    pub(crate) fn me(&self) -> &HostName {
        &self.env.host
    }

    /// From now on only this resource is loaded, with addresses and signs of life of the nodes: commands take the same
    /// time however many resources there are.
    pub(crate) fn focus(&self, res: &ResourceName) {
        *self.focus.borrow_mut() = Some(res.clone());
    }

    fn load(&self) -> Loaded {
        match &*self.focus.borrow() {
            Some(res) => self.dir.load_resource(res),
            None => self.dir.load(),
        }
    }

    /// The tree as it is now. Damaged entries are named on stderr and left out.
    pub(crate) fn tree(&self) -> Tree {
        let loaded = self.load();
        if self.dir.root().exists() {
            for problem in &loaded.problems {
                warn(&format!("{problem} (left out)"));
            }
        }
        self.observe(&loaded.tree);
        loaded.tree
    }

    /// The tree as it is now, for a loop that has named the problems before.
    pub(crate) fn quiet_tree(&self) -> Tree {
        let tree = self.load().tree;
        self.observe(&tree);
        tree
    }

    /// The deletion orders and acknowledgements as they are now.
    pub(crate) fn orders(&self) -> Tree {
        let tree = self.dir.load_orders().tree;
        self.observe(&tree);
        tree
    }

    /// Takes note of all stamps of a tree.
    pub(crate) fn observe(&self, tree: &Tree) {
        let mut clock = self.clock.get();
        clock.observe(tree.max_stamp());
        self.clock.set(clock);
    }

    /// The next stamp of this process, later than all it has seen.
    pub(crate) fn next_stamp(&self, wall: Stamp) -> Stamp {
        let mut clock = self.clock.get();
        let stamp = clock.tick(wall);
        self.clock.set(clock);
        stamp
    }

    /// The bound of a wait.
    pub(crate) fn timeout(&self, default_secs: u64) -> Option<Duration> {
        match self.opts.timeout_secs.unwrap_or(default_secs) {
            0 => None,
            secs => Some(Duration::from_secs(secs)),
        }
    }

    /// Makes the edits in this order under the lock of the tree, and makes them durable.
    pub(crate) fn apply(&self, edits: &[Edit]) -> Result<()> {
        if self.opts.dry_run {
            for edit in edits {
                say(&format!("would {}", edit.describe()));
            }
            return Ok(());
        }
        if edits.is_empty() {
            return Ok(());
        }
        self.check_writable()?;
        let lock = self.dir.lock()?;
        let mut clock = self.clock.get();
        let mut order = None;
        for edit in edits {
            match edit {
                Edit::Set(path, value) => drop(lock.set(path, value, &mut clock)?),
                Edit::Remove(path) => self.dir.remove(path)?,
                Edit::Dir(rel) => self.dir.create_dir(rel)?,
                Edit::NewLog(res, log) => create_log(&self.dir, res, log)?,
                Edit::RemoveLog(res, log) => self.dir.remove_log(res, log)?,
                Edit::Order(rel) => {
                    let number =
                        order.unwrap_or_else(|| highest_order(&self.dir.load_orders().tree)) + 1;
                    order = Some(number);
                    let path = LinkPath::DeleteOrder(number);
                    lock.set(&path, &format!("{ORDER_ROOT}{rel}"), &mut clock)?;
                    say(&format!(
                        "create symlink {ORDER_ROOT}{path} -> {ORDER_ROOT}{rel}"
                    ));
                }
            }
        }
        self.clock.set(clock);
        drop(lock);
        self.dir.sync_dirs()?;
        Ok(())
    }

    /// Tells what was done; nothing with `--dry-run`, as then nothing was.
    pub(crate) fn done(&self, text: &str) {
        if !self.opts.dry_run {
            say(text);
        }
    }

    /// Refuses early where the tree cannot be written.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let root = self.dir.root();
        if self.opts.dry_run || !root.exists() {
            return Ok(());
        }
        access(root, AccessFlags::W_OK).map_err(|e| {
            AdmError::new(
                Exit::Permission,
                format!(
                    "only root may use this tool: {} is not writable: {e}",
                    root.display()
                ),
            )
            .remedy("run it as root, or set MARS_DIR to a tree of your own")
        })
    }
}

impl Edit {
    fn describe(&self) -> String {
        match self {
            Self::Set(path, value) => format!("set {path} -> {value}"),
            Self::Remove(path) => format!("remove {path}"),
            Self::Dir(rel) => format!("create directory {rel}"),
            Self::NewLog(res, log) => format!("create logfile resource-{res}/{log}"),
            Self::RemoveLog(res, log) => format!("remove logfile resource-{res}/{log}"),
            Self::Order(rel) => format!("order deletion of {ORDER_ROOT}{rel}"),
        }
    }
}

/// Creates an empty logfile, durable, mode 0600.
pub(crate) fn create_log(dir: &TreeDir, res: &ResourceName, log: &LogName) -> Result<()> {
    let path = dir.log_path(res, log);
    let made = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .and_then(|file| file.sync_all());
    match made {
        Ok(()) => dir.touch(&dir.resource_dir(res)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(
                AdmError::refused(format!("{} exists already", path.display()))
                    .remedy("try again: somebody else rotated at the same time"),
            );
        }
        Err(e) => return Err(AdmError::system("create", path.display(), e)),
    }
    Ok(())
}

/// Seconds since the last sign of life of `host`; `None` if it never gave one or was shut down.
pub(crate) fn silent_secs(tree: &Tree, host: &HostName) -> Option<f64> {
    let alive = LinkPath::Alive(host.clone());
    (tree.get(&alive) == Some("1"))
        .then(|| tree.stamp(&alive))
        .flatten()
        .map(|stamp| wall_clock().secs_since(stamp))
}

/// Whether marsd of `host` gives signs of life.
pub(crate) fn is_alive(tree: &Tree, host: &HostName) -> bool {
    silent_secs(tree, host).is_some_and(|secs| secs <= ALIVE_SECS)
}

/// A message for the user, on stdout. A reader that went away does not matter.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A warning, on stderr.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "WARNING: {text}");
}
