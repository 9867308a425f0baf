//! `role`: what this node is meant to be.

use mars_core::ResourceName;

use crate::context::{Context, say};
use crate::error::Result;
use crate::resource::primary_of;

/// Prints `primary` or `secondary`.
pub(crate) fn run(ctx: &mut Context, res: &ResourceName) -> Result<()> {
    let tree = ctx.quiet_tree();
    let primary = primary_of(tree.resource(res))?;
    let mine = primary.as_ref() == Some(ctx.me());
    say(if mine { "primary" } else { "secondary" });
    Ok(())
}
