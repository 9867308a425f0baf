//! One resource: its heading, its nodes, its mode, and its history.

use super::{Ink, Screen, history, node, units};
use crate::model::{Model, Resource};

pub(super) fn render(screen: &mut Screen, model: &Model, resource: &Resource) {
    let status = &resource.status;
    let primary = match &status.primary {
        Some(Some(host)) => host.as_str(),
        Some(None) => mars_core::link::NO_PRIMARY,
        None => "unknown",
    };
    screen.put(
        Ink::Bold,
        format!(
            "-> check resource {}, with {}TB, Primary Node is {primary}\n",
            status.name,
            units::tb(status.size_bytes.unwrap_or(0)),
        ),
    );
    for node in &status.nodes {
        node::render(screen, resource, node);
    }
    let name = &status.name;
    // The blank behind the last newline belongs to the documented output: the next line begins with it.
    screen.faint(match status.member_count() {
        0 => format!("   -> modus for {name} is remote (0 nodes)\n"),
        1 => format!("   -> modus for {name} is standalone (1 node)\n"),
        n => format!("   -> modus for {name} is clustered ({n} nodes)\n "),
    });
    if model.with_history {
        history::render(screen, status);
    }
}
