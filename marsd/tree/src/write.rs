//! Writing links: a temporary link with its final stamp is renamed into place, so a reader sees the old or the new
//! link and never anything else (`symlink-spec.md` section 2).

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use mars_core::{Lamport, Link, LinkPath, Stamp};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::dir::{TreeDir, not_a_link};
use crate::env::wall_clock;
use crate::error::TreeError;
use crate::lock::TreeLock;

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl TreeDir {
    /// Writes a link with exactly this stamp, whatever stands there; missing directories are created.
    ///
    /// # Errors
    /// A value against the grammar, something else than a symlink in the place, or an error of the system; then the
    /// old link stands untouched.
    pub fn write_link(&self, path: &LinkPath, value: &str, stamp: Stamp) -> Result<(), TreeError> {
        let place = self.link_path(path);
        path.check_value(value).map_err(|cause| TreeError::Value {
            path: place.clone(),
            cause,
        })?;
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(TreeError::Outside {
                path: path.to_string(),
            });
        };
        let temp = parent.join(format!(
            ".tmp-{}.{}-{}",
            name.to_string_lossy(),
            std::process::id(),
            SERIAL.fetch_add(1, Ordering::Relaxed)
        ));
        match fs::symlink_metadata(&place) {
            Ok(meta) if !meta.is_symlink() => return Err(not_a_link(&place, &meta)),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => self.create_dirs(parent)?,
            Err(e) => return Err(TreeError::io("look at", &place, e)),
        }
        let written = make_temp(&temp, value, stamp).and_then(|()| {
            fs::rename(&temp, &place).map_err(|e| TreeError::io("rename into place", &place, e))
        });
        match written {
            Ok(()) => self.touch(parent),
            // A leftover is invisible to every reader and is replaced by its next namesake.
            Err(_) => drop(fs::remove_file(&temp)),
        }
        written
    }

    /// Puts `link` in place if it supersedes what stands there, or nothing (or garbage) does; tells whether.
    pub fn write_newer(&self, path: &LinkPath, link: &Link) -> Result<bool, TreeError> {
        self.lock()?.write_newer(path, link)
    }

    /// Sets a link to `value` with a stamp newer than the link's own: the wall clock, or one nanosecond later than what
    /// stands there. Returns the stamp.
    pub fn set(&self, path: &LinkPath, value: &str) -> Result<Stamp, TreeError> {
        self.lock()?
            .set(path, value, &mut Lamport::new(Stamp::default()))
    }

    /// Sets a link with the next stamp of `clock`, which also takes note of what stands there. Returns the stamp.
    pub fn set_with(
        &self,
        path: &LinkPath,
        value: &str,
        clock: &mut Lamport,
    ) -> Result<Stamp, TreeError> {
        self.lock()?.set(path, value, clock)
    }

    /// Sets several links in this order under one lock, each newer than the one before. Stops at the first error.
    pub fn set_all<'a>(
        &self,
        links: impl IntoIterator<Item = (&'a LinkPath, &'a str)>,
        clock: &mut Lamport,
    ) -> Result<(), TreeError> {
        let lock = self.lock()?;
        for (path, value) in links {
            lock.set(path, value, clock)?;
        }
        Ok(())
    }
}

impl TreeLock {
    /// See [`TreeDir::set_with`].
    pub fn set(
        &self,
        path: &LinkPath,
        value: &str,
        clock: &mut Lamport,
    ) -> Result<Stamp, TreeError> {
        if let Some(stamp) = self.dir().read_stamp(path)? {
            clock.observe(stamp);
        }
        let stamp = clock.tick(wall_clock());
        self.dir().write_link(path, value, stamp)?;
        Ok(stamp)
    }

    /// See [`TreeDir::write_newer`].
    pub fn write_newer(&self, path: &LinkPath, link: &Link) -> Result<bool, TreeError> {
        let newer = match self.dir().read_stamp(path)? {
            Some(have) if have == link.stamp => {
                let have = self.dir().read_link(path).ok().flatten();
                have.is_none_or(|have| link.supersedes(&have))
            }
            have => have.is_none_or(|have| link.stamp > have),
        };
        if newer {
            self.dir().write_link(path, &link.value, link.stamp)?;
        }
        Ok(newer)
    }

    /// Removes a link, unless somebody has written it again, with a stamp above `stamp`; tells whether it is gone
    /// (`symlink-spec.md` section 7, rule 3).
    ///
    /// # Errors
    /// The link cannot be looked at or removed.
    pub fn remove_up_to(&self, path: &LinkPath, stamp: Stamp) -> Result<bool, TreeError> {
        if self.dir().read_stamp(path)?.is_some_and(|now| now > stamp) {
            return Ok(false);
        }
        self.dir().remove(path)?;
        Ok(true)
    }
}

fn make_temp(temp: &Path, value: &str, stamp: Stamp) -> Result<(), TreeError> {
    match fs::remove_file(temp) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(TreeError::io("remove", temp, e)),
        _ => {}
    }
    symlink(value, temp).map_err(|e| TreeError::io("create link", temp, e))?;
    set_stamp(temp, stamp)
}

/// Gives a link (not what it points to) this mtime.
pub(crate) fn set_stamp(path: &Path, stamp: Stamp) -> Result<(), TreeError> {
    utimensat(
        AT_FDCWD,
        path,
        &TimeSpec::UTIME_OMIT,
        &TimeSpec::new(stamp.secs, i64::from(stamp.nanos)),
        UtimensatFlags::NoFollowSymlink,
    )
    .map_err(|e| TreeError::io("set the time of", path, e))
}
