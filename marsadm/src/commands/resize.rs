//! `resize`: makes a resource as large as its smallest disk.

use mars_core::link::ResourceLink;
use mars_core::{HostName, LinkPath, ResourceName, Switch};

use crate::context::{Context, Edit, say};
use crate::error::{AdmError, Result};
use crate::resource::check_primary;

/// Sets `size` to the smallest `actsize-*`.
pub(crate) fn run(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    let own = |link: ResourceLink| LinkPath::res(res, link);
    check_primary(view, &me, "resize")?;
    let old = view.size_bytes().ok_or_else(|| {
        AdmError::missing(format!("resource '{res}' has no size")).link(own(ResourceLink::Size))
    })?;
    let mut smallest: Option<(u64, HostName)> = None;
    for host in view.members() {
        let Some(bytes) = view.act_size(host) else {
            return Err(
                AdmError::missing(format!("the size of the disk of {host} is not known"))
                    .link(format!(
                        "{} is missing",
                        own(ResourceLink::ActSize(host.clone()))
                    ))
                    .remedy(format!("start marsd on {host}")),
            );
        };
        if view.switch(host, Switch::Sync) {
            let link = own(ResourceLink::Todo(host.clone(), Switch::Sync));
            return Err(
                AdmError::refused(format!("sync on '{host}' is switched on"))
                    .link(format!("{link} -> 1"))
                    .remedy(format!(
                        "marsadm pause-sync {res}; afterwards: marsadm resume-sync {res}"
                    )),
            );
        }
        smallest = Some(smallest.map_or((bytes, host.clone()), |s| s.min((bytes, host.clone()))));
    }
    let Some((new, host)) = smallest else {
        return Err(AdmError::missing(format!(
            "resource {res} has no actsize-* symlinks"
        )));
    };
    say(&format!("old_size={old}"));
    say(&format!("new_size={new}"));
    if new <= old && !ctx.opts.force {
        return Err(AdmError::refused("only increases of the size are possible")
            .link(format!(
                "{} -> {new}",
                own(ResourceLink::ActSize(host.clone()))
            ))
            .remedy(format!("enlarge the disk of {host} first")));
    }
    if view.sync_status(&me) != Some(old) {
        return Err(AdmError::refused("this node is not synced itself")
            .link(own(ResourceLink::SyncStatus(me.clone()))));
    }
    // The own sync position first: with the new size alone this node would seem to need a sync.
    ctx.apply(&[
        Edit::Set(own(ResourceLink::SyncStatus(me)), new.to_string()),
        Edit::Set(own(ResourceLink::Size), new.to_string()),
    ])?;
    ctx.done(&format!("resource {res} has now {new} bytes"));
    Ok(())
}
