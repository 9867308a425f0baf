//! What is to be shown, made of the tree and the facts, before a word of it is chosen.

use std::collections::BTreeMap;

use mars_core::status::{Alive, Context, ResourceStatus, full_rest_kib};
use mars_core::{HostName, LinkPath, ResourceName, Stamp, Tree};

use crate::facts::{Facts, Mount};
use crate::limits::Limits;
use crate::options::{Options, Show};

/// What is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// In which form.
    pub show: Show,
    /// The versions.
    pub header: Header,
    /// Sign of life of the own marsd.
    pub daemon: Alive,
    /// Parameters and space, if wanted.
    pub system: Option<System>,
    /// The resources, sorted by name.
    pub resources: Vec<Resource>,
    /// The resource asked for, if it does not exist.
    pub missing: Option<Missing>,
    /// The history of the logs is wanted.
    pub with_history: bool,
    /// Warnings and errors, if wanted.
    pub debug: Option<Debug>,
    /// When `--monitor` raises the alarm.
    pub limits: Limits,
    /// Time of looking.
    pub now: Stamp,
}

/// Versions, and where we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The own node.
    pub host: HostName,
    /// Version of the display.
    pub status: String,
    /// Version of marsadm.
    pub admin: String,
    /// What serves the devices, and its version.
    pub module: String,
    /// Release of the kernel.
    pub kernel: String,
    /// The resource asked for.
    pub resource: Option<ResourceName>,
}

/// Parameters and space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Values of parameters by name.
    pub parameters: BTreeMap<&'static str, String>,
    /// Size of the file system of the tree in KiB.
    pub partition_kib: Option<u64>,
    /// The own node had to stop logging.
    pub is_jammed: bool,
    /// Nodes whose file system is full, with the KiB left above the limit.
    pub full: Vec<(HostName, i64)>,
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its state.
    pub status: ResourceStatus,
    /// Whether the device of this node is mounted.
    pub mount: Mount,
    /// Whether that was looked at.
    pub is_mount_known: bool,
}

/// A resource that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: ResourceName,
    /// Those that exist.
    pub known: Vec<ResourceName>,
}

/// Messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debug {
    /// Warnings, oldest first.
    pub warnings: Vec<String>,
    /// Errors, oldest first.
    pub errors: Vec<String>,
}

impl Model {
    /// The model for node `me`.
    pub fn build(tree: &Tree, me: &HostName, facts: &Facts, options: &Options) -> Self {
        let is_lines = options.is_lines();
        let with_system = options.system || is_lines;
        let daemon = daemon(tree, me, facts);
        let context = Context {
            me,
            now: facts.now,
            own_alive: daemon,
            with_system,
            local_only: is_lines,
            with_history: options.history && !is_lines,
        };
        let mut known: Vec<ResourceName> = tree.resources().collect();
        known.sort();
        let wanted = |name: &&ResourceName| options.resource.as_ref().is_none_or(|r| r == *name);
        let resources = if options.show == Show::Versions {
            Vec::new()
        } else {
            let names = known.iter().filter(wanted);
            names
                .map(|name| Resource::build(tree, name, facts, &context))
                .collect()
        };
        let missing = options.resource.clone().filter(|r| !known.contains(r));
        Self {
            limits: options.limits,
            now: facts.now,
            show: options.show.clone(),
            header: Header::build(me, facts, options),
            daemon,
            system: (options.system && !is_lines).then(|| System::build(tree, me, facts)),
            resources,
            missing: missing.map(|name| Missing { name, known }),
            with_history: context.with_history,
            debug: (options.debug && !is_lines).then(|| Debug {
                warnings: facts.warnings.clone(),
                errors: facts.errors.clone(),
            }),
        }
    }
}

/// The own marsd: its link tells, and where there is a lock that nobody holds, it has died since.
fn daemon(tree: &Tree, me: &HostName, facts: &Facts) -> Alive {
    match (Alive::of(tree, me, facts.now), facts.daemon_lock) {
        (Alive::Yes, Some(false)) => {
            let last = tree.stamp(&LinkPath::Alive(me.clone()));
            let last = last.map_or(facts.now.secs, |stamp| stamp.secs);
            let age_secs = facts.now.secs.saturating_sub(last).max(0);
            Alive::Silent { age_secs }
        }
        (alive, _) => alive,
    }
}

impl Header {
    fn build(me: &HostName, facts: &Facts, options: &Options) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let module = match &facts.module {
            Some(module) => format!("kernel module {module}"),
            None => format!("user-space shim {version} (no kernel module is loaded)"),
        };
        Self {
            host: me.clone(),
            status: version.into(),
            admin: format!("marsadm {version}"),
            module,
            kernel: facts.kernel.clone(),
            resource: options.resource.clone(),
        }
    }
}

impl System {
    fn build(tree: &Tree, me: &HostName, facts: &Facts) -> Self {
        let full = tree.links.range(..LinkPath::DeleteOrder(0));
        Self {
            parameters: facts.parameters.clone(),
            partition_kib: facts.partition_kib,
            is_jammed: tree.get(&LinkPath::Jammed(me.clone())) == Some("1"),
            full: full
                .filter_map(|(path, _)| match path {
                    LinkPath::RestSpace(host) => Some((host.clone(), full_rest_kib(tree, host)?)),
                    _ => None,
                })
                .collect(),
        }
    }
}

impl Resource {
    fn build(tree: &Tree, name: &ResourceName, facts: &Facts, context: &Context<'_>) -> Self {
        let status = ResourceStatus::of(tree, name, context);
        let device = tree.resource(name).device(context.me);
        let mount = device.and_then(|d| facts.mounts.get(d).cloned());
        Self {
            is_mount_known: mount.is_some(),
            mount: mount.unwrap_or(Mount::NoDevice),
            status,
        }
    }
}
