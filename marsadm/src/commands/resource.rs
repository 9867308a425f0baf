//! `create-resource`, and what it shares with `join-resource`: the disk and the links of a new member.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use mars_core::link::ResourceLink;
use mars_core::{HostName, LinkPath, LogName, ReplayPos, ResourceName, Switch, Tree};
use mars_tree::{TreeDir, wall_clock};

use super::cluster;
use crate::context::{Context, Edit, create_log, say};
use crate::device::{self, Disk, parse_disk};
use crate::error::{AdmError, Result};
use crate::exit::Exit;
use crate::resource::{ALL, parse_name};

/// Names and disk of a new member, checked.
pub(crate) struct NewMember {
    /// The resource.
    pub(crate) res: ResourceName,
    /// Name below `/dev/mars`.
    pub(crate) device: ResourceName,
    /// The disk.
    pub(crate) disk: Disk,
    /// Its size in bytes.
    pub(crate) bytes: u64,
}

impl NewMember {
    /// Checks the arguments of create- and join-resource.
    pub(crate) fn check(
        ctx: &Context,
        tree: &Tree,
        res: &str,
        disk: &str,
        name: Option<&str>,
    ) -> Result<Self> {
        if res == ALL {
            return Err(AdmError::new(
                Exit::Usage,
                "'all' stands for all resources and names none",
            ));
        }
        let res = parse_name(res)?;
        let device = name.map_or_else(|| Ok(res.clone()), parse_name)?;
        let disk = parse_disk(disk)?;
        let me = ctx.me();
        for other in tree.resources().filter(|r| *r != res) {
            let view = tree.resource(&other);
            if view.device(me) == Some(device.as_str()) {
                return Err(AdmError::refused(format!(
                    "the device name '{device}' is taken by resource '{other}'"
                ))
                .link(LinkPath::res(&other, ResourceLink::Device(me.clone())))
                .remedy("give another name as last argument"));
            }
            if let Disk::Device(path) = &disk
                && view.data(me) == Some(path)
            {
                return Err(AdmError::refused(format!(
                    "'{path}' is already the disk of resource '{other}'"
                ))
                .link(LinkPath::res(&other, ResourceLink::Data(me.clone()))));
            }
        }
        let bytes = match &disk {
            Disk::Sparse(bytes) => *bytes,
            Disk::Device(path) => device::device_size(path, ctx.opts.force)?,
        };
        Ok(Self {
            res,
            device,
            disk,
            bytes,
        })
    }

    /// Says what will be used.
    pub(crate) fn announce(&self) {
        match &self.disk {
            Disk::Device(path) => {
                say(&format!("using existing device '{path}'"));
                say(&format!("device size = {} bytes", self.bytes));
            }
            Disk::Sparse(bytes) => say(&format!("creating sparse file with size {bytes}")),
        }
        let (res, device) = (&self.res, &self.device);
        say(&format!(
            "resource '{res}' will appear as local device '/dev/mars/{device}'"
        ));
    }

    /// The links that create and join have in common; the disk comes last, as it makes the node a member.
    pub(crate) fn links(&self, me: &HostName) -> Vec<(ResourceLink, String)> {
        let mut links = vec![
            (ResourceLink::Device(me.clone()), self.device.to_string()),
            (ResourceLink::ActSize(me.clone()), self.bytes.to_string()),
        ];
        for switch in Switch::ALL {
            links.push((ResourceLink::Todo(me.clone(), switch), "1".into()));
        }
        if let Disk::Device(path) = &self.disk {
            links.push((ResourceLink::Data(me.clone()), path.clone()));
        }
        links
    }

    /// The directories of a member.
    pub(crate) fn dirs(&self, me: &HostName) -> [String; 5] {
        let home = format!("resource-{}", self.res);
        [
            format!("{home}/userspace"),
            format!("{home}/defaults"),
            format!("{home}/defaults-{me}"),
            format!("{home}/actual-{me}"),
            format!("{home}/todo-{me}"),
        ]
    }

    /// Makes the sparse file, if the disk is one.
    pub(crate) fn make_sparse(&self, dir: &TreeDir, me: &HostName) -> Result<()> {
        let Disk::Sparse(bytes) = self.disk else {
            return Ok(());
        };
        let home = dir.resource_dir(&self.res);
        let (temp, path) = (
            home.join(format!(".tmp-data-{me}")),
            home.join(format!("data-{me}")),
        );
        let made = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temp)
            .and_then(|file| {
                file.set_len(bytes)?;
                file.write_all_at(b"\\", bytes.saturating_sub(1))?;
                file.sync_all()?;
                fs::rename(&temp, &path)
            });
        made.map_err(|e| AdmError::system("create sparse file", path.display(), e))?;
        dir.touch(&home);
        Ok(())
    }
}

/// Creates a resource with this node as its primary.
pub(crate) fn create(ctx: &mut Context, res: &str, disk: &str, name: Option<&str>) -> Result<()> {
    let tree = ctx.tree();
    let new = NewMember::check(ctx, &tree, res, disk, name)?;
    let home = ctx.dir.resource_dir(&new.res);
    if home.exists() {
        return Err(
            AdmError::refused(format!("resource '{}' already exists", new.res))
                .link(format!("resource-{}/", new.res))
                .remedy(format!(
                    "marsadm join-resource {} DEVICE, or choose another name",
                    new.res
                )),
        );
    }
    ctx.check_writable()?;
    if ctx.opts.dry_run {
        return ctx.apply(&first_edits(&new, ctx.me()));
    }
    say(&format!("creating new resource '{}'", new.res));
    new.announce();
    cluster::create_local_part(ctx, None)?;
    build(ctx, &new, &home)?;
    ctx.done(&format!("successfully created resource '{}'", new.res));
    Ok(())
}

/// Builds the directory under a hidden name and renames it: the resource appears complete or not at all.
fn build(ctx: &Context, new: &NewMember, home: &Path) -> Result<()> {
    let me = ctx.me();
    let hidden = ctx.dir.root().join(format!(".tmp.{}", new.res));
    match fs::remove_dir_all(&hidden) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(AdmError::system("remove", hidden.display(), e));
        }
        _ => {}
    }
    let dir = TreeDir::new(&hidden);
    dir.create_root()?;
    for rel in new.dirs(me) {
        dir.create_dir(&rel)?;
    }
    for (link, value) in first_links(new, me) {
        let path = LinkPath::res(&new.res, link);
        dir.write_link(&path, &value, ctx.next_stamp(wall_clock()))?;
    }
    new.make_sparse(&dir, me)?;
    create_log(&dir, &new.res, &LogName::new(1, me))?;
    dir.sync_dirs()?;
    fs::rename(dir.resource_dir(&new.res), home)
        .map_err(|e| AdmError::system("rename into place", home.display(), e))?;
    fs::remove_dir_all(&hidden).map_err(|e| AdmError::system("remove", hidden.display(), e))?;
    ctx.dir.touch(ctx.dir.root());
    ctx.dir.sync_dirs()?;
    Ok(())
}

/// All links of a new resource.
fn first_links(new: &NewMember, me: &HostName) -> Vec<(ResourceLink, String)> {
    let begin = ReplayPos::new(LogName::new(1, me), 0);
    let mut links = vec![
        (ResourceLink::Size, new.bytes.to_string()),
        (ResourceLink::Primary, me.to_string()),
        (ResourceLink::SyncStatus(me.clone()), new.bytes.to_string()),
        (ResourceLink::Replay(me.clone()), begin.to_string()),
    ];
    links.extend(new.links(me));
    links
}

/// What creating a resource comes to, for `--dry-run`.
fn first_edits(new: &NewMember, me: &HostName) -> Vec<Edit> {
    let dirs = new.dirs(me).into_iter().map(Edit::Dir);
    let set = |(link, value)| Edit::Set(LinkPath::res(&new.res, link), value);
    let links = first_links(new, me).into_iter().map(set);
    let log = Edit::NewLog(new.res.clone(), LogName::new(1, me));
    dirs.chain(links).chain([log]).collect()
}

/// Edits for links and directories of a member.
pub(crate) fn member_edits(new: &NewMember, me: &HostName) -> Vec<Edit> {
    let dirs = new.dirs(me).into_iter().map(Edit::Dir);
    let links = new.links(me).into_iter();
    dirs.chain(links.map(|(link, value)| Edit::Set(LinkPath::res(&new.res, link), value)))
        .collect()
}
