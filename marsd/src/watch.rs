//! Watches the tree with inotify and tells which paths changed. Only a hint: the brain reads the tree again from time to time.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::sync::mpsc::UnboundedSender;

use crate::brain::Event;

/// Deepest directory that holds links: `resource-R/todo-H`.
const DEPTH: usize = 2;

/// Watches the tree below `root` in a thread of its own until the receiver of the events is gone.
///
/// # Errors
/// Of the system, when the watch cannot be set up.
pub fn spawn(root: &Path, events: UnboundedSender<Event>) -> io::Result<()> {
    let mut watch = Watch {
        inotify: Inotify::init()?,
        root: root.into(),
        dirs: HashMap::new(),
    };
    watch.add(Path::new(""), 0)?;
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(move || {
            while let Ok(event) = watch.next() {
                if events.send(event).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}

struct Watch {
    inotify: Inotify,
    root: PathBuf,
    dirs: HashMap<WatchDescriptor, (PathBuf, usize)>,
}

impl Watch {
    fn add(&mut self, rel: &Path, depth: usize) -> io::Result<()> {
        let dir = self.root.join(rel);
        let mask = WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::DONT_FOLLOW
            | WatchMask::ONLYDIR;
        let id = self.inotify.watches().add(&dir, mask)?;
        self.dirs.insert(id, (rel.into(), depth));
        if depth < DEPTH {
            for entry in std::fs::read_dir(&dir)?.flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) && !is_hidden(&entry.file_name()) {
                    // A directory that vanished meanwhile needs no watch.
                    let _ = self.add(&rel.join(entry.file_name()), depth + 1);
                }
            }
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Event> {
        let mut buffer = [0; 64 * 1024];
        loop {
            let batch: Vec<_> = self
                .inotify
                .read_events_blocking(&mut buffer)?
                .map(|e| (e.wd.clone(), e.mask, e.name.map(OsStr::to_owned)))
                .collect();
            let mut paths = Vec::new();
            let mut lost = false;
            for (id, mask, name) in batch {
                if mask.contains(EventMask::Q_OVERFLOW) {
                    lost = true;
                }
                let (Some((dir, depth)), Some(name)) = (self.dirs.get(&id).cloned(), name) else {
                    continue;
                };
                if is_hidden(&name) {
                    continue;
                }
                let rel = dir.join(&name);
                if mask.contains(EventMask::ISDIR) {
                    // What was put into a new directory before it was watched is found by reading all.
                    lost = true;
                    if depth < DEPTH && mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
                        let _ = self.add(&rel, depth + 1);
                    }
                }
                paths.push(rel.to_string_lossy().into_owned());
            }
            if lost {
                return Ok(Event::Lost);
            }
            if !paths.is_empty() {
                return Ok(Event::Changed(paths));
            }
        }
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}
