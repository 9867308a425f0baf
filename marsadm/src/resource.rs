//! Finding the resource an argument means, and the checks that most commands share.

use std::collections::BTreeSet;

use mars_core::link::ResourceLink;
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Tree};

use crate::context::{Context, say, warn};
use crate::error::{AdmError, Result};
use crate::exit::Exit;

/// The word that stands for every joined resource.
pub(crate) const ALL: &str = "all";

/// Runs `command` for the resource named `arg`, or for all that this node has joined. With `all` a failure is printed and
/// the next resource follows; the first error is returned.
pub(crate) fn for_each(
    ctx: &mut Context,
    arg: &str,
    command: &dyn Fn(&mut Context, &ResourceName) -> Result<()>,
) -> Result<()> {
    let tree = ctx.tree();
    if arg != ALL {
        let res = find(&tree, arg, ctx.me())?;
        check_member(&tree, &res, ctx.me())?;
        return command(ctx, &res);
    }
    let me = ctx.me().clone();
    let joined: Vec<ResourceName> = tree
        .resources()
        .filter(|r| tree.resource(r).data(&me).is_some())
        .collect();
    if joined.is_empty() {
        warn(&format!("{me} has joined no resource, nothing to do"));
    }
    let mut first = None;
    for res in joined {
        say(&format!("--------- resource {res}"));
        if let Err(error) = command(ctx, &res) {
            let code = error.code;
            crate::print_error(&error);
            let text = "not all resources were worked on successfully, see above";
            first.get_or_insert(AdmError::new(code, text));
        }
    }
    first.map_or(Ok(()), Err)
}

/// The resource named `arg`; a device name of this node that is unique will do.
pub(crate) fn find(tree: &Tree, arg: &str, me: &HostName) -> Result<ResourceName> {
    let name = parse_name(arg)?;
    if tree.dirs.contains(&format!("resource-{name}")) {
        return Ok(name);
    }
    let matches: Vec<ResourceName> = tree
        .resources()
        .filter(|r| tree.resource(r).device(me) == Some(arg))
        .collect();
    match &matches[..] {
        [one] => {
            warn(&format!(
                "substituting bad resource name '{arg}' by uniquely matching resource name '{one}'"
            ));
            Ok(one.clone())
        }
        _ => Err(AdmError::missing(format!(
            "resource '{arg}' does not exist ({} replacements found)",
            matches.len()
        ))
        .remedy(known_resources(tree))),
    }
}

fn known_resources(tree: &Tree) -> String {
    let names: Vec<String> = tree.resources().map(|r| r.to_string()).collect();
    if names.is_empty() {
        "no resource exists here: create-resource makes one, and a new node sees those of the others once marsd runs"
            .into()
    } else {
        format!("choose one of: {}", names.join(" "))
    }
}

/// Checks a name for a resource or a device.
pub(crate) fn parse_name(arg: &str) -> Result<ResourceName> {
    ResourceName::new(arg).map_err(|e| AdmError::new(Exit::Usage, e.to_string()))
}

/// Refuses unless this node has joined.
pub(crate) fn check_member(tree: &Tree, res: &ResourceName, me: &HostName) -> Result<()> {
    if tree.resource(res).data(me).is_some() {
        return Ok(());
    }
    let link = LinkPath::res(res, ResourceLink::Data(me.clone()));
    Err(
        AdmError::missing(format!("sorry, I have not yet joined to resource '{res}'"))
            .link(format!("{link} is missing"))
            .remedy(format!("marsadm join-resource {res} DEVICE")),
    )
}

/// Every node that takes part: a node whose disk is a sparse file shows no `data-` link to others.
pub(crate) fn participants(view: ResourceView<'_>) -> BTreeSet<HostName> {
    view.links()
        .filter_map(|(link, _)| match link {
            ResourceLink::Data(host)
            | ResourceLink::Replay(host)
            | ResourceLink::SyncStatus(host) => Some(host.clone()),
            _ => None,
        })
        .collect()
}

/// The current primary, if there is one.
pub(crate) fn primary_of(view: ResourceView<'_>) -> Result<Option<HostName>> {
    view.primary().ok_or_else(|| {
        let link = LinkPath::res(view.name(), ResourceLink::Primary);
        AdmError::missing("cannot determine current primary")
            .link(format!("{link} is missing or damaged"))
            .remedy("wait until the tree has arrived from the peers, or decide with: marsadm primary --force")
    })
}

/// Refuses unless this node is the designated primary.
pub(crate) fn check_primary(view: ResourceView<'_>, me: &HostName, operation: &str) -> Result<()> {
    match primary_of(view)? {
        Some(host) if host == *me => Ok(()),
        other => {
            let value = other.as_ref().map_or("(none)", HostName::as_str);
            let link = LinkPath::res(view.name(), ResourceLink::Primary);
            Err(
                AdmError::refused(format!("for operation '{operation}' I need to be primary"))
                    .link(format!("{link} -> {value}"))
                    .remedy(format!(
                        "run it on the primary, or first: marsadm primary {}",
                        view.name()
                    )),
            )
        }
    }
}
