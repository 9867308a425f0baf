//! `secondary`: gives up the role; the device goes as soon as nobody has it open.

use std::path::Path;

use mars_core::link::{NO_PRIMARY, ResourceLink};
use mars_core::plan::sync_needed;
use mars_core::{LinkPath, ResourceName};

use crate::context::{Context, Edit, say, warn};
use crate::device;
use crate::error::{AdmError, Result};
use crate::resource::primary_of;

/// Sets `primary` to `(none)`.
pub(crate) fn run(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    let me = ctx.me().clone();
    let link = LinkPath::res(res, ResourceLink::Primary);
    let old = primary_of(view)?;
    if old.as_ref() != Some(&me) {
        let value = old.as_ref().map_or(NO_PRIMARY, |h| h.as_str());
        return Err(AdmError::refused(format!(
            "for safety reasons, switching to secondary is only allowed when I ({me}) am primary"
        ))
        .link(format!("{link} -> {value}")));
    }
    let size = view.size_bytes().unwrap_or(0);
    for other in view.members().into_iter().filter(|h| **h != me) {
        if sync_needed(view, other, size) {
            warn(&format!(
                "{other} is not yet synced; without a primary it has nobody to sync from"
            ));
        }
    }
    ctx.apply(&[Edit::Set(link, NO_PRIMARY.into())])?;
    ctx.done(&format!("primary changed from '{me}' to '{NO_PRIMARY}'"));
    if let Some(name) = view.device(&me) {
        let path = Path::new("/dev/mars").join(name);
        if let Some(by) = device::in_use(&path) {
            say(&format!(
                "{} is {by}: the switch completes as soon as it is closed",
                path.display()
            ));
        }
    }
    Ok(())
}
