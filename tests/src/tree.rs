//! Looks at the tree of a node from outside, without disturbing it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use mars_core::{LinkPath, ReplayPos, Stamp};

use crate::error::{Context, Result};
use crate::node::Node;

impl Node {
    /// The node's `/mars`, seen from the machine.
    pub fn mars(&self) -> PathBuf {
        match self.init() {
            Some(init) => format!("/proc/{}/root/mars", init.pid).into(),
            None => self.dir().join("mars"),
        }
    }

    /// Value of a link, by its path below `/mars`.
    pub fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.mars().join(path)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    /// Stamp of a link.
    pub fn link_stamp(&self, path: &str) -> Option<Stamp> {
        let meta = fs::symlink_metadata(self.mars().join(path)).ok()?;
        Some(Stamp::new(
            meta.mtime(),
            u32::try_from(meta.mtime_nsec()).ok()?,
        ))
    }

    /// Whether a link has this value.
    pub fn link_is(&self, path: &str, value: &str) -> bool {
        self.link(path).as_deref() == Some(value)
    }

    /// Value of a link of a resource that is followed by this node's own name, such as `replay` or `syncstatus`.
    pub fn own(&self, resource: &str, kind: &str) -> Option<String> {
        self.link(&format!("resource-{resource}/{kind}-{}", self.name()))
    }

    /// The node's replay position as it publishes it.
    pub fn replay(&self, resource: &str) -> Option<ReplayPos> {
        ReplayPos::parse(&self.own(resource, "replay")?).ok()
    }

    /// A published fact, such as `actual("r1", "is-primary")`.
    pub fn actual(&self, resource: &str, key: &str) -> Option<String> {
        self.link(&format!("resource-{resource}/actual-{}/{key}", self.name()))
    }

    /// Whether the node serves the device of the resource.
    pub fn serves(&self, resource: &str) -> bool {
        self.actual(resource, "is-primary").as_deref() == Some("1")
    }

    /// Whether its sync is finished and replay has passed the position from which the result is consistent.
    pub fn is_synced(&self, resource: &str) -> bool {
        let size = self.link(&format!("resource-{resource}/size"));
        let synced = self.own(resource, "syncstatus");
        let from = self
            .own(resource, "syncpos")
            .and_then(|v| ReplayPos::parse(&v).ok());
        let passed = match (from, self.replay(resource)) {
            (Some(from), Some(at)) => at.order() >= from.order(),
            (None, at) => at.is_some(),
            (Some(_), None) => false,
        };
        size.is_some() && size == synced && passed
    }

    /// Sizes of the logfiles of a resource by name, as they lie on this node.
    pub fn logs(&self, resource: &str) -> Vec<(String, u64)> {
        let dir = self.mars().join(format!("resource-{resource}"));
        let mut logs: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| Some((e.file_name().into_string().ok()?, e.metadata().ok()?.len())))
            .filter(|(name, _)| name.starts_with("log-"))
            .collect();
        logs.sort();
        logs
    }
}

impl Node {
    /// All visible links of the tree with their values, each checked against the grammar.
    ///
    /// # Errors
    /// A symlink that is no link of MARS, or holds a value that its grammar does not allow.
    pub fn links(&self) -> Result<BTreeMap<String, String>> {
        let text =
            self.run("cd /mars && find . -name '.?*' -prune -o -type l -printf '%P\\t%l\\n'")?;
        text.lines()
            .map(|line| {
                let (path, value) = line
                    .split_once('\t')
                    .context(format!("unexpected line of find: {line}"))?;
                let parsed = LinkPath::parse(path).context(format!(
                    "/mars/{path} on {} is no link of MARS",
                    self.name()
                ))?;
                parsed
                    .check_value(value)
                    .context(format!("/mars/{path} on {}", self.name()))?;
                Ok((path.to_owned(), value.to_owned()))
            })
            .collect()
    }
}
