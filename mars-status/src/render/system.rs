//! The parameters, and the space on all nodes.

use super::units::kib_as_mb;
use super::{Ink, Screen};
use crate::model::{Model, System};

/// Title, parameter and its unit; the parameter with the current value and its unit.
type Line = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const PARTITION: &str = "(size of the partition)";

const LINES: [Line; 7] = [
    ("AVG-Limit", "loadavg_limit", "", "", ""),
    (
        "Network-Traffic-Limit",
        "network_traffic_limit_kb",
        "kb/s",
        "network_traffic_rate_kb",
        "kb/s",
    ),
    (
        "Memory-Limit",
        "percent_mem_limit_kb",
        "%",
        "mem_used_kb",
        "kb",
    ),
    (
        "Server-IO-Limit",
        "server_io_limit_mb",
        "mb/s",
        "server_io_rate_mb",
        "mb/s",
    ),
    (
        "Free-Space-Limit on /mars",
        "free_space_mb",
        "mb",
        PARTITION,
        "mb",
    ),
    (
        "Free-Space-Limit for Auto-Log-Delete",
        "logdel_auto_gb",
        "gb",
        "",
        "",
    ),
    (
        "Free-Space-Limit for Auto-Log-Rotate",
        "logrot_auto_gb",
        "gb",
        "",
        "",
    ),
];

pub(super) fn render(screen: &mut Screen, model: &Model, system: &System) {
    for (title, name, unit, current, current_unit) in LINES {
        screen.put(Ink::Bold, format!("-> {title}: "));
        match system.parameters.get(name).map(String::as_str) {
            Some(value) if is_set(value) => {
                screen.red(format!("is set to {} {unit}", value.trim()));
            }
            _ => screen.faint("is unset, used full speed"),
        }
        if let Some(value) = current_value(system, current) {
            screen.faint(format!(", current {value} {current_unit}"));
        }
        screen.faint("\n");
    }
    if system.is_jammed {
        screen.red("-> Mars-Transaktion and Replication not running !!!\n");
    } else {
        screen.faint("-> Mars-Transaktion running normaly\n");
    }
    render_space(screen, model, system);
}

fn render_space(screen: &mut Screen, model: &Model, system: &System) {
    screen.faint("-> Diskspace on Cluster:");
    if system.full.is_empty() {
        return screen.faint(" ok\n");
    }
    for (host, rest_kib) in &system.full {
        let rest = kib_as_mb(*rest_kib);
        if *host == model.header.host {
            screen.red(format!(
                "\n\t-> TODO: Local Partition /mars full ({rest} kb Limit) !!! mars is stopping !!!\n\n"
            ));
        } else {
            screen.red(format!(
                "\n\t-> TODO: Remotesystem {host} have mars-disk full ({rest} kb Limit) !!!\n\n"
            ));
        }
    }
}

/// A limit below 1 is none.
fn is_set(value: &str) -> bool {
    value
        .trim()
        .parse::<f64>()
        .is_ok_and(|v| v.is_finite() && v >= 1.0)
}

fn current_value(system: &System, name: &str) -> Option<String> {
    if name == PARTITION {
        let kib = i64::try_from(system.partition_kib?).ok()?;
        return Some(kib_as_mb(kib)).filter(|v| v != "0.00");
    }
    let value = system.parameters.get(name)?.trim();
    let is_shown = value
        .parse::<f64>()
        .is_ok_and(|v| v.is_finite() && v != 0.0);
    is_shown.then(|| value.to_string())
}
