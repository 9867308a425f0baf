//! A tree by its root directory: where things are, directories, removal, and making changes durable.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mars_core::{LinkPath, LogName, ResourceName};

use crate::error::TreeError;

/// A tree on disk. Clones share the list of directories that wait for [`TreeDir::sync_dirs`].
#[derive(Debug, Clone)]
pub struct TreeDir {
    root: PathBuf,
    touched: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl TreeDir {
    /// The tree below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            root: std::path::absolute(&root).unwrap_or(root),
            touched: Arc::default(),
        }
    }

    /// Absolute path of the root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Place of a link.
    pub fn link_path(&self, path: &LinkPath) -> PathBuf {
        self.root.join(path.to_string())
    }

    /// Directory of a resource.
    pub fn resource_dir(&self, res: &ResourceName) -> PathBuf {
        self.root.join(format!("resource-{res}"))
    }

    /// Place of a logfile.
    pub fn log_path(&self, res: &ResourceName, log: &LogName) -> PathBuf {
        self.resource_dir(res).join(log.to_string())
    }

    /// Creates the root, mode 0700, if it is missing.
    pub fn create_root(&self) -> Result<(), TreeError> {
        self.create_dirs(&self.root)
    }

    /// Creates a directory `rel` of the tree with its parents, mode 0700; existing ones are kept.
    pub fn create_dir(&self, rel: &str) -> Result<(), TreeError> {
        let inside = !rel.is_empty()
            && Path::new(rel)
                .components()
                .all(|c| matches!(c, Component::Normal(_)));
        if !inside {
            return Err(TreeError::Outside { path: rel.into() });
        }
        self.create_dirs(&self.root.join(rel))
    }

    pub(crate) fn create_dirs(&self, dir: &Path) -> Result<(), TreeError> {
        if dir.is_dir() {
            return Ok(());
        }
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(dir)
            .map_err(|e| TreeError::io("create directory", dir, e))?;
        let mut at = Some(dir);
        while let Some(place) = at.filter(|p| p.starts_with(&self.root)) {
            self.touch(place);
            at = place.parent();
        }
        Ok(())
    }

    /// Removes a link; a missing one is fine. Directories and files are refused.
    pub fn remove(&self, path: &LinkPath) -> Result<(), TreeError> {
        let place = self.link_path(path);
        match fs::symlink_metadata(&place) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(TreeError::io("look at", &place, e)),
            Ok(meta) if meta.is_symlink() => {}
            Ok(meta) => return Err(not_a_link(&place, &meta)),
        }
        self.unlink(&place)
    }

    /// Removes a logfile; a missing one is fine.
    pub fn remove_log(&self, res: &ResourceName, log: &LogName) -> Result<(), TreeError> {
        self.unlink(&self.log_path(res, log))
    }

    fn unlink(&self, place: &Path) -> Result<(), TreeError> {
        match fs::remove_file(place) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(TreeError::io("remove", place, e)),
            Ok(()) => {
                if let Some(parent) = place.parent() {
                    self.touch(parent);
                }
                Ok(())
            }
        }
    }

    /// Removes the directory of a resource that holds no links any more, with its empty subdirectories, its logfiles and
    /// its hidden files; tells whether it is gone. Whatever else lies there stays, and keeps it.
    pub fn remove_resource_dir(&self, res: &ResourceName) -> Result<bool, TreeError> {
        let home = self.resource_dir(res);
        for entry in entries(&home)? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry
                .file_type()
                .map_err(|e| TreeError::io("look at", &entry.path(), e))?;
            if kind.is_dir() {
                for inner in entries(&entry.path())? {
                    if inner.file_name().as_encoded_bytes().starts_with(b".") {
                        self.unlink(&inner.path())?;
                    }
                }
                remove_empty_dir(&entry.path())?;
            } else if name.starts_with('.') || (kind.is_file() && LogName::parse(&name).is_ok()) {
                self.unlink(&entry.path())?;
            }
        }
        let gone = remove_empty_dir(&home)?;
        self.touch(&self.root);
        Ok(gone)
    }

    /// Notes that `dir` changed, for [`TreeDir::sync_dirs`].
    pub fn touch(&self, dir: &Path) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.insert(dir.to_path_buf());
    }

    /// Puts every directory changed through this tree (or its clones) on stable storage, so that the changes survive
    /// power loss. A directory that has gone meanwhile is fine.
    pub fn sync_dirs(&self) -> Result<(), TreeError> {
        let dirs = {
            let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *touched)
        };
        for dir in dirs {
            match File::open(&dir).and_then(|d| d.sync_all()) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(TreeError::io("sync directory", &dir, e)),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, TreeError> {
    match fs::read_dir(dir).and_then(Iterator::collect) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(TreeError::io("read directory", dir, e)),
        Ok(entries) => Ok(entries),
    }
}

/// Removes a directory if it is empty; tells whether it is gone.
fn remove_empty_dir(dir: &Path) -> Result<bool, TreeError> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(e) => Err(TreeError::io("remove directory", dir, e)),
    }
}

pub(crate) fn not_a_link(path: &Path, meta: &fs::Metadata) -> TreeError {
    TreeError::NotALink {
        path: path.to_path_buf(),
        what: kind_of(meta.file_type()),
    }
}

/// What a directory entry is, in words.
pub(crate) fn kind_of(kind: fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a regular file"
    } else if kind.is_symlink() {
        "a symlink"
    } else {
        "a special file"
    }
}
