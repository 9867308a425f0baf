//! Finding the resource an argument means, and the checks that most commands share.

use mars_core::link::ResourceLink;
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Tree};
use mars_tree::TreeDir;

use crate::context::{Context, say, warn};
use crate::error::{AdmError, Result};
use crate::exit::Exit;

/// Names that a message lists at most.
const SHOWN_MAX: usize = 20;
/// The word that stands for every joined resource.
pub(crate) const ALL: &str = "all";

/// Where the devices of the resources appear.
pub(crate) const DEVICE_DIR: &str = "/dev/mars/";

/// Runs `command` for the resource named `arg`, or for all that this node has joined. With `all` a failure is printed and
/// the next resource follows; the exit code is that of the first failure.
pub(crate) fn for_each(
    ctx: &mut Context,
    arg: &str,
    command: &dyn Fn(&mut Context, &ResourceName) -> Result<()>,
) -> Result<()> {
    each(ctx, arg, true, command)
}

/// [`for_each`], with a line that names the resource before each of `all`, or without.
pub(crate) fn each(
    ctx: &mut Context,
    arg: &str,
    headed: bool,
    command: &dyn Fn(&mut Context, &ResourceName) -> Result<()>,
) -> Result<()> {
    if arg != ALL {
        let res = find(&ctx.dir, arg, ctx.me())?;
        ctx.focus(&res);
        check_member(&ctx.tree(), &res, ctx.me())?;
        return command(ctx, &res);
    }
    let joined = joined(&ctx.dir, ctx.me());
    if joined.is_empty() {
        warn(&format!(
            "{} has joined no resource, nothing to do",
            ctx.me()
        ));
    }
    let mut failed: Vec<(&ResourceName, Exit)> = Vec::new();
    for res in &joined {
        if headed {
            say(&format!("--------- resource {res}"));
        }
        ctx.focus(res);
        // Names what is damaged.
        ctx.tree();
        if let Err(error) = command(ctx, res) {
            failed.push((res, error.code));
            crate::print_error(&error);
        }
    }
    summary(joined.len(), &failed)
}

/// Names of the resources that this node has joined.
fn joined(dir: &TreeDir, me: &HostName) -> Vec<ResourceName> {
    let mut names = dir.load_names();
    names.retain(|res| {
        let data = LinkPath::res(res, ResourceLink::Data(me.clone()));
        dir.link_path(&data).symlink_metadata().is_ok()
    });
    names
}

fn summary(count: usize, failed: &[(&ResourceName, Exit)]) -> Result<()> {
    let Some((_, code)) = failed.first() else {
        return Ok(());
    };
    let names: Vec<String> = failed
        .iter()
        .map(|(res, code)| format!("{res} (exit code {})", *code as u8))
        .collect();
    Err(AdmError::new(
        *code,
        format!(
            "not all resources were worked on: {} of {count} failed, see above: {}",
            failed.len(),
            names.join(", ")
        ),
    ))
}

/// The resource named `arg`; a device of this node (its name, or its path below `/dev/mars`) will do if one resource alone
/// has it.
pub(crate) fn find(dir: &TreeDir, arg: &str, me: &HostName) -> Result<ResourceName> {
    let device = arg.strip_prefix(DEVICE_DIR);
    let name = parse_name(device.unwrap_or(arg))?;
    if device.is_none() && dir.resource_dir(&name).is_dir() {
        return Ok(name);
    }
    let known = dir.load_names();
    let matches: Vec<&ResourceName> = known
        .iter()
        .filter(|res| {
            let link = LinkPath::res(res, ResourceLink::Device(me.clone()));
            let value = dir.read_link(&link).ok().flatten();
            value.is_some_and(|l| l.value == name.as_str())
        })
        .collect();
    match &matches[..] {
        [one] => {
            warn(&format!(
                "substituting bad resource name '{arg}' by uniquely matching resource name '{one}'"
            ));
            Ok((*one).clone())
        }
        _ => Err(AdmError::missing(format!(
            "resource '{arg}' does not exist ({} replacements found)",
            matches.len()
        ))
        .remedy(known_resources(&known))),
    }
}

fn known_resources(known: &[ResourceName]) -> String {
    let names: Vec<&str> = known.iter().map(ResourceName::as_str).collect();
    if names.is_empty() {
        "no resource exists here: create-resource makes one, and a new node sees those of the others once marsd runs"
            .into()
    } else if names.len() > SHOWN_MAX {
        format!(
            "choose one of the {} resources that mars-status shows",
            names.len()
        )
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
