//! Free space of the tree: published, and made by rotating and deleting logs (`symlink-spec.md` section 8.6).

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mars_core::plan::{SpaceStep, plan_space};
use mars_core::{LinkPath, LogName, Param, ResourceName};

use super::res::Res;
use super::{Brain, Space};

/// With so many KiB of free space nothing new is begun there.
pub(super) const FULL_KIB: i64 = 512;

/// Free KiB of the file system of `root`.
pub(super) fn free_kib(root: &Path) -> nix::Result<i64> {
    let space = nix::sys::statvfs::statvfs(root)?;
    let free = space
        .blocks_available()
        .saturating_mul(space.fragment_size());
    Ok(i64::try_from(free / 1024).unwrap_or(i64::MAX))
}

impl Brain {
    /// Publishes what is left.
    pub(super) fn check_space(&mut self) {
        let Some(rest) = self.rest_kib() else { return };
        self.note_space(rest);
        let flag = |on: bool| if on { "1" } else { "0" };
        let jammed = self.resources.values().any(Res::is_jammed);
        self.set_link(
            LinkPath::Exhausted(self.me.clone()),
            flag(self.space.exhausted),
        );
        self.set_link(LinkPath::Jammed(self.me.clone()), flag(jammed));
        self.set_link(LinkPath::RestSpace(self.me.clone()), &rest.to_string());
    }

    /// Rotates logs and orders the deletion of those that nobody needs, before there is no room for more.
    pub(super) fn make_room(&mut self) {
        let Some(rest) = self.rest_kib() else { return };
        self.note_space(rest);
        let bytes = u64::try_from(rest).unwrap_or(0).saturating_mul(1024);
        let mut orders = Vec::new();
        for step in plan_space(&self.tree, &self.me, bytes, |res| self.space_limits(res)) {
            match step {
                SpaceStep::Rotate(res, log) => self.begin_log(&res, &log),
                SpaceStep::Order(target) => {
                    tracing::info!(
                        "{target} is needed by nobody, and room is short: its deletion is ordered"
                    );
                    orders.push((target, None));
                }
            }
        }
        self.give_orders(&orders);
    }

    fn note_space(&mut self, rest: i64) {
        let limit = self.params.get(Param::FreeSpaceMb).saturating_mul(1024);
        let free = rest.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX));
        self.space = Space {
            exhausted: rest <= 0,
            full: free <= FULL_KIB,
        };
    }

    /// Free KiB above the limit.
    fn rest_kib(&mut self) -> Option<i64> {
        match free_kib(self.dir.root()) {
            Ok(free) => {
                let limit = self.params.get(Param::FreeSpaceMb).saturating_mul(1024);
                Some(free.saturating_sub(i64::try_from(limit).unwrap_or(i64::MAX)))
            }
            Err(e) => {
                self.warn_once("free space of the tree", &e.to_string());
                None
            }
        }
    }

    pub(super) fn begin_log(&mut self, res: &ResourceName, log: &LogName) {
        if self.resources.get(res).is_some_and(Res::is_jammed) {
            return;
        }
        let path = self.dir.log_path(res, log);
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match made {
            Ok(_) => {
                tracing::info!(resource = %res, "the log before is long enough: {log} is begun")
            }
            Err(e) => self.warn_once(&path.display().to_string(), &e.to_string()),
        }
        self.refresh_log(res, log);
    }
}
