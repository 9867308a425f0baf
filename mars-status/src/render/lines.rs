//! The lines of `--monitor`, `--role`, `--dstate` and `--cstate`.

use mars_core::status::NodeStatus;

use super::{Screen, summary};
use crate::model::Model;
use crate::options::Show;

/// Prints the wanted ones of role, state and connection of each resource.
pub(super) fn render(screen: &mut Screen, model: &Model, [role, dstate, cstate]: [bool; 3]) {
    let monitor = matches!(model.show, Show::Lines { monitor: true, .. });
    if monitor && model.limits.any() {
        summary::render(screen, model);
    }
    for resource in &model.resources {
        let Some(node) = resource.status.local() else {
            continue;
        };
        let place = format!("[resource-{} on {}]", resource.status.name, node.host);
        if role {
            screen.faint(format!("{} {place}\n", node.role.as_str()));
        }
        if monitor && node.member.is_none() {
            continue;
        }
        if dstate {
            let word = node.code().map_or("unknown", |code| code.as_str());
            if monitor {
                screen.faint(format!("{word} [{}]\n", brackets(node)));
            } else {
                screen.faint(format!("{word} {place}\n"));
            }
        }
        if cstate {
            let word = if node.is_connected() {
                "Connect"
            } else {
                "Disconnect"
            };
            screen.faint(format!("{word} {place}\n"));
        }
    }
}

/// All conditions, in their order.
pub(super) fn brackets(node: &NodeStatus) -> String {
    let texts = node.conditions.iter().map(|c| format!("({})", c.text));
    texts.collect()
}
