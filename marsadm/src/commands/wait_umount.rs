//! `wait-umount`: waits until nobody serves the device of a resource any more.

use mars_core::link::ActualKey;
use mars_core::link::ResourceLink;
use mars_core::{HostName, LinkPath, ResourceName, Switch};

use crate::context::{Context, is_alive, warn};
use crate::error::{AdmError, Result};
use crate::wait::{Interrupt, Progress, wait_or_tell};

/// Waits until the device is gone on all nodes (or on `--node`).
pub(crate) fn run(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let wanted = ctx.opts.node.clone();
    let tree = ctx.quiet_tree();
    let view = tree.resource(res);
    if let Some(Some(primary)) = view.primary()
        && view.switch(&primary, Switch::Attach)
        && wanted.as_ref().is_none_or(|w| *w == primary)
    {
        warn(&format!(
            "{primary} is primary and keeps the device until there: marsadm secondary {res}"
        ));
    }
    let interrupt = Interrupt::arm()?;
    let timeout = ctx.timeout(0);
    wait_or_tell(ctx, &interrupt, timeout, |tree| {
        let view = tree.resource(res);
        let serving: Vec<HostName> = view
            .links()
            .filter_map(|(link, value)| match link {
                ResourceLink::Actual(host, ActualKey::IsPrimary) if value == "1" => {
                    Some(host.clone())
                }
                _ => None,
            })
            .filter(|host| wanted.as_ref().is_none_or(|w| w == host))
            .collect();
        if let Some(dead) = serving.iter().find(|host| !is_alive(tree, host)) {
            let link = ResourceLink::Actual(dead.clone(), ActualKey::IsPrimary);
            return Err(AdmError::refused(format!(
                "{dead} served the device when it was last heard of, and gives no sign of life"
            ))
            .link(format!("{} -> 1", LinkPath::res(res, link)))
            .remedy(format!("start marsd on {dead}")));
        }
        let names: Vec<&str> = serving.iter().map(HostName::as_str).collect();
        Ok(if names.is_empty() {
            Progress::Done(())
        } else {
            Progress::Waiting(format!(
                "waiting for the device to be closed on {}",
                names.join(" ")
            ))
        })
    })?;
    ctx.done(&format!("the device of resource {res} is not in use"));
    Ok(())
}
