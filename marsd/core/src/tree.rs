//! The tree as a value: every link with its stamp, every logfile with its size (`symlink-spec.md` section 3).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};

use crate::link::LinkPath;
use crate::name::{HostName, ResourceName};
use crate::position::LogName;
use crate::resource::ResourceView;
use crate::stamp::Stamp;

/// One link: its value and its stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The target string of the symlink.
    pub value: String,
    /// Its mtime.
    pub stamp: Stamp,
}

impl Link {
    /// Whether this takes the place of `have`: it is newer, or two nodes wrote at the same moment, and of their values the
    /// greater one stays, on all nodes the same (`symlink-spec.md` section 2.3).
    pub fn supersedes(&self, have: &Self) -> bool {
        (self.stamp, &self.value) > (have.stamp, &have.value)
    }
}

/// A snapshot of a tree.
///
/// # Invariants
/// Every key of `links` is a path of the grammar with a value that its grammar accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Links by path.
    pub links: BTreeMap<LinkPath, Link>,
    /// Size in bytes of every logfile, by resource.
    pub logs: BTreeMap<ResourceName, BTreeMap<LogName, u64>>,
    /// Directories, relative to the root, without the root.
    pub dirs: BTreeSet<String>,
}

/// Why an entry of a tree was left out; the rest of the tree is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path relative to the root of the tree.
    pub path: String,
    /// What is wrong with it.
    pub cause: String,
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.path, self.cause)
    }
}

impl Tree {
    /// Value of a link, if it exists.
    pub fn get(&self, path: &LinkPath) -> Option<&str> {
        self.links.get(path).map(|l| l.value.as_str())
    }

    /// Stamp of a link, if it exists.
    pub fn stamp(&self, path: &LinkPath) -> Option<Stamp> {
        self.links.get(path).map(|l| l.stamp)
    }

    /// Puts a link, after checking its value; the error names the path.
    pub fn put(&mut self, path: LinkPath, value: &str, stamp: Stamp) -> Result<(), Problem> {
        path.check_value(value).map_err(|e| Problem {
            path: path.to_string(),
            cause: e.to_string(),
        })?;
        self.links.insert(
            path,
            Link {
                value: value.into(),
                stamp,
            },
        );
        Ok(())
    }

    /// The newest stamp in the tree.
    pub fn max_stamp(&self) -> Stamp {
        self.links
            .values()
            .map(|l| l.stamp)
            .max()
            .unwrap_or_default()
    }

    /// Nodes of the cluster: those with an address.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.links.keys().filter_map(|p| match p {
            LinkPath::Ip(h) => Some(h),
            _ => None,
        })
    }

    /// Names of all resources that have a directory.
    pub fn resources(&self) -> impl Iterator<Item = ResourceName> {
        self.dirs.iter().filter_map(|d| {
            let name = d.strip_prefix("resource-")?;
            ResourceName::new(name).ok()
        })
    }

    /// The part of the tree that belongs to one resource.
    pub fn resource<'a>(&'a self, name: &'a ResourceName) -> ResourceView<'a> {
        ResourceView::new(self, name)
    }
}
