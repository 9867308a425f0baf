//! Loading a tree as a value; whatever is damaged is left out and told, the rest is loaded.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mars_core::link::ResourceLink;
use mars_core::tree::Problem;
use mars_core::{HostName, Link, LinkPath, LogName, ResourceName, Stamp, Tree};
use walkdir::{DirEntry, WalkDir};

use crate::dir::{TreeDir, kind_of, not_a_link};
use crate::error::TreeError;

const DEPTH: usize = 3;
const TRIES: usize = 8;
/// A name that begins like this belongs to MARS: malformed, it is a problem; other unknown names are left alone.
const CLASSES: [(&str, &[&str]); 5] = [
    (
        "",
        &[
            "alive-",
            "exhausted-",
            "jammed-",
            "rest-space-",
            "resource-",
        ],
    ),
    ("ips", &["ip-", "key-"]),
    ("todo-global", &["delete-", "deleted-"]),
    (
        "resource-",
        &[
            "data-",
            "device-",
            "syncstatus-",
            "verifystatus-",
            "syncpos-",
            "actsize-",
            "connect-",
            "replay-",
            "version-",
            "log-",
            "todo-",
            "actual-",
        ],
    ),
    ("resource-*/actual-", &["device-", "copy-syncstatus-"]),
];

/// What was found on disk.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// All that is good.
    pub tree: Tree,
    /// All that is not, in the order of the walk.
    pub problems: Vec<Problem>,
}

impl TreeDir {
    /// Loads the whole tree (`symlink-spec.md` section 3). Never fails as a whole: a missing root is an empty tree
    /// with one problem.
    pub fn load(&self) -> Loaded {
        self.load_dirs(|_| true)
    }

    /// Loads what concerns one resource: its directory, the links at the root and the addresses. Takes the same time
    /// however many other resources there are.
    pub fn load_resource(&self, res: &ResourceName) -> Loaded {
        let home = format!("resource-{res}");
        self.load_dirs(|dir| dir == "ips" || dir == home)
    }

    /// Loads the deletion orders, the links at the root and the addresses.
    pub fn load_orders(&self) -> Loaded {
        self.load_dirs(|dir| matches!(dir, "ips" | "todo-global"))
    }

    /// Names of all resources that have a directory, without looking into them.
    pub fn load_names(&self) -> Vec<ResourceName> {
        let entries = fs::read_dir(self.root()).into_iter().flatten().flatten();
        let mut names: Vec<ResourceName> = entries
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| {
                ResourceName::new(e.file_name().to_str()?.strip_prefix("resource-")?).ok()
            })
            .collect();
        names.sort();
        names
    }

    /// Everything at the root, and what is in the wanted directories there. The others are not even opened.
    fn load_dirs(&self, wanted: impl Fn(&str) -> bool) -> Loaded {
        let mut loaded = Loaded::default();
        let listed = fs::read_dir(self.root()).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(e) => {
                loaded.problem(&self.root().display().to_string(), e.to_string());
                return loaded;
            }
        };
        // Whoever walks from the root on opens every directory.
        entries.retain(|e| {
            !e.file_type().is_ok_and(|t| t.is_dir()) || e.file_name().to_str().is_none_or(&wanted)
        });
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let walk = WalkDir::new(entry.path())
                .max_depth(DEPTH - 1)
                .follow_root_links(false);
            let inner = walk.sort_by_file_name().into_iter();
            for entry in inner.filter_entry(|e| is_visited(self.root(), e)) {
                match entry {
                    Ok(entry) => loaded.take(self, &entry),
                    Err(e) => loaded.walk_error(self, &e),
                }
            }
        }
        loaded
    }

    /// Loads a few named links; missing ones are simply not in the result.
    pub fn load_subset<'a>(&self, paths: impl Iterator<Item = &'a LinkPath>) -> Loaded {
        let mut loaded = Loaded::default();
        for path in paths {
            match self.read_link(path) {
                Ok(Some(link)) => drop(loaded.tree.links.insert(path.clone(), link)),
                Ok(None) => {}
                Err(e) => loaded.problem(&path.to_string(), e.to_string()),
            }
        }
        loaded
    }

    /// Reads one link; `None` if it does not exist. A regular file `data-H` reads as its own absolute path.
    ///
    /// # Errors
    /// The value breaks its grammar, no symlink stands there, or the system fails.
    pub fn read_link(&self, path: &LinkPath) -> Result<Option<Link>, TreeError> {
        let place = self.link_path(path);
        let link = match read_raw(&place) {
            Ok(Raw::Missing) => return Ok(None),
            Ok(Raw::Link(link)) => link,
            Ok(Raw::Other(meta)) => {
                own_path(&place, path, &meta).ok_or_else(|| not_a_link(&place, &meta))?
            }
            Err(e) => return Err(TreeError::io("read link", &place, e)),
        };
        match path.check_value(&link.value) {
            Ok(()) => Ok(Some(link)),
            Err(cause) => Err(TreeError::Value { path: place, cause }),
        }
    }

    /// Stamp of a link, however bad its value is.
    pub(crate) fn read_stamp(&self, path: &LinkPath) -> Result<Option<Stamp>, TreeError> {
        let place = self.link_path(path);
        match fs::symlink_metadata(&place) {
            Ok(meta) => Ok(Some(stamp_of(&meta))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(TreeError::io("look at", &place, e)),
        }
    }
}

impl Loaded {
    fn problem(&mut self, path: &str, cause: impl Into<String>) {
        self.problems.push(Problem {
            path: path.into(),
            cause: cause.into(),
        });
    }

    fn walk_error(&mut self, dir: &TreeDir, error: &walkdir::Error) {
        let gone = error
            .io_error()
            .is_some_and(|e| e.kind() == ErrorKind::NotFound);
        if !gone {
            let path = error.path().unwrap_or(dir.root());
            self.problem(&shown(dir, path), error.to_string());
        }
    }

    fn take(&mut self, dir: &TreeDir, entry: &DirEntry) {
        let shown = shown(dir, entry.path());
        let rel = entry.path().strip_prefix(dir.root()).ok();
        let Some(rel) = rel.and_then(Path::to_str) else {
            return self.problem(&shown, "the name is not UTF-8");
        };
        if rel.contains(char::is_control) {
            return self.problem(&shown, "the name contains a control character");
        }
        if entry.file_type().is_dir() {
            return self.take_dir(rel);
        }
        let name = rel.rsplit('/').next().unwrap_or(rel);
        if let Some(res) = log_home(rel).filter(|_| name.starts_with("log-")) {
            return self.take_log(rel, res, name, entry);
        }
        match LinkPath::parse(rel).filter(|p| p.to_string() == rel) {
            Some(path) => match dir.read_link(&path) {
                Ok(Some(link)) => drop(self.tree.links.insert(path, link)),
                Ok(None) => {}
                Err(TreeError::Value { cause, .. }) => self.problem(rel, cause.to_string()),
                Err(e) => self.problem(rel, e.to_string()),
            },
            None if begins_like_a_class(rel) => self.problem(rel, "malformed name"),
            None if is_in_defaults(rel) => self.problem(rel, "no parameter has this name here"),
            None => {}
        }
    }

    fn take_dir(&mut self, rel: &str) {
        if is_known_dir(rel) {
            self.tree.dirs.insert(rel.into());
        } else if LinkPath::parse(rel).is_some() {
            self.problem(rel, "a directory stands where a symlink belongs");
        } else if begins_like_a_class(rel) {
            self.problem(rel, "malformed name");
        }
    }

    fn take_log(&mut self, rel: &str, res: ResourceName, name: &str, entry: &DirEntry) {
        let log = match LogName::parse(name) {
            Ok(log) if log.to_string() == name => log,
            _ => return self.problem(rel, "malformed name of a logfile"),
        };
        if !entry.file_type().is_file() {
            let what = kind_of(entry.file_type());
            return self.problem(rel, format!("{what} stands where a logfile belongs"));
        }
        match entry.metadata() {
            Ok(meta) => drop(
                self.tree
                    .logs
                    .entry(res)
                    .or_default()
                    .insert(log, meta.len()),
            ),
            Err(e) => {
                if e.io_error().is_none_or(|e| e.kind() != ErrorKind::NotFound) {
                    self.problem(rel, e.to_string());
                }
            }
        }
    }
}

/// Hidden and ignored names are skipped, and so is what lies in a directory that holds no links of ours.
fn is_visited(root: &Path, entry: &DirEntry) -> bool {
    let name = entry.file_name();
    if begins(name, ".") || begins(name, "ignore") {
        return false;
    }
    let parent = entry.path().parent().unwrap_or(root);
    match parent.strip_prefix(root).ok().map(Path::to_str) {
        Some(Some("")) => true,
        Some(Some(parent)) => is_known_dir(parent) && !is_free_dir(parent),
        _ => false,
    }
}

/// Whether a known directory holds things that are not ours.
fn is_free_dir(rel: &str) -> bool {
    rel.rsplit('/').next().unwrap_or(rel) == "userspace"
}

/// Whether `rel` lies in a directory of parameters.
fn is_in_defaults(rel: &str) -> bool {
    let parent = rel.rsplit_once('/').map_or("", |(parent, _)| parent);
    let name = parent.rsplit('/').next().unwrap_or(parent);
    is_known_dir(parent) && name.starts_with("defaults")
}

fn begins(name: &OsStr, prefix: &str) -> bool {
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}

fn is_known_dir(rel: &str) -> bool {
    let of_host = |name: &str, prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|h| HostName::new(h).is_ok())
    };
    let plain = |name: &str| matches!(name, "userspace" | "defaults") || of_host(name, "defaults-");
    match rel.split_once('/') {
        None => {
            plain(rel)
                || matches!(rel, "ips" | "todo-global")
                || rel
                    .strip_prefix("resource-")
                    .is_some_and(|r| ResourceName::new(r).is_ok())
        }
        Some((dir, name)) => {
            dir.starts_with("resource-")
                && is_known_dir(dir)
                && (plain(name) || of_host(name, "todo-") || of_host(name, "actual-"))
        }
    }
}

/// The resource in whose directory `rel` lies directly.
fn log_home(rel: &str) -> Option<ResourceName> {
    let (dir, name) = rel.split_once('/')?;
    let res = ResourceName::new(dir.strip_prefix("resource-")?).ok()?;
    (!name.contains('/')).then_some(res)
}

fn begins_like_a_class(rel: &str) -> bool {
    let (parent, name) = rel.rsplit_once('/').unwrap_or(("", rel));
    let kind = match parent.split_once('/') {
        Some((_, inner)) if inner.starts_with("actual-") => "resource-*/actual-",
        Some(_) => return false,
        None if parent.starts_with("resource-") => "resource-",
        None => parent,
    };
    CLASSES
        .iter()
        .filter(|(class, _)| *class == kind)
        .any(|(_, prefixes)| prefixes.iter().any(|p| name.starts_with(p)))
}

fn shown(dir: &TreeDir, path: &Path) -> String {
    let rel = path.strip_prefix(dir.root()).unwrap_or(path);
    rel.to_string_lossy().escape_debug().to_string()
}

enum Raw {
    Missing,
    Link(Link),
    Other(Metadata),
}

/// Value and stamp of one and the same link, even while it is being replaced.
fn read_raw(place: &Path) -> io::Result<Raw> {
    for _ in 0..TRIES {
        let step = (|| -> io::Result<Option<Raw>> {
            let before = fs::symlink_metadata(place)?;
            if !before.is_symlink() {
                return Ok(Some(Raw::Other(before)));
            }
            let value = fs::read_link(place)?;
            let after = fs::symlink_metadata(place)?;
            if (before.ino(), stamp_of(&before)) != (after.ino(), stamp_of(&after)) {
                return Ok(None);
            }
            let value = value
                .into_os_string()
                .into_string()
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, "the value is not UTF-8"))?;
            let stamp = stamp_of(&after);
            Ok(Some(Raw::Link(Link { value, stamp })))
        })();
        match step {
            Ok(Some(raw)) => return Ok(raw),
            Ok(None) => {}
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Raw::Missing);
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(
        ErrorKind::ResourceBusy,
        "the link is replaced faster than it can be read",
    ))
}

/// A sparse file in place of the link is a disk by itself.
fn own_path(place: &Path, path: &LinkPath, meta: &Metadata) -> Option<Link> {
    let is_disk = meta.is_file() && matches!(path, LinkPath::Resource(_, ResourceLink::Data(_)));
    let value = place.to_str().filter(|_| is_disk)?;
    Some(Link {
        value: value.into(),
        stamp: stamp_of(meta),
    })
}

fn stamp_of(meta: &Metadata) -> Stamp {
    Stamp::new(meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap_or(0))
}
