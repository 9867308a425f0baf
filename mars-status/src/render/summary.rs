//! The first line for Nagios, with performance data; only where limits are given (`symlink-spec.md` section 11.5).

use crate::exit::{self, Exit};
use crate::limits::Limit;
use crate::model::{Model, Resource};
use mars_core::status::Alive;

use super::Screen;

/// `MARS WARNING - R: lag 75 s (warning above 60) | 'R_lag'=75s;60;300;0; 'R_behind'=0B;;;0;`
pub(super) fn render(screen: &mut Screen, model: &Model) {
    let mut texts = Vec::new();
    if model.daemon != Alive::Yes {
        texts.push(format!("marsd is not running on {}", model.header.host));
    }
    if let Some(missing) = &model.missing {
        texts.push(format!("resource {} does not exist", missing.name));
    } else if model.resources.is_empty() {
        texts.push("no resources found".into());
    }
    let many = model.resources.len();
    let codes = model.resources.iter().map(|r| exit::of_resource(model, r));
    let bad: Vec<_> = model
        .resources
        .iter()
        .zip(codes)
        .filter(|(_, code)| *code != Some(Exit::OK) && (code.is_some() || many == 1))
        .collect();
    texts.extend(bad.iter().map(|(resource, _)| text(model, resource)));
    if texts.is_empty() {
        texts.push(match model.resources.as_slice() {
            [one] => text(model, one),
            all if exit::code(model) == Exit::UNKNOWN => {
                format!("none of {} resources is joined", all.len())
            }
            all => format!("{} resources", all.len()),
        });
    }
    let data: Vec<String> = model
        .resources
        .iter()
        .filter_map(|resource| performance(model, resource))
        .collect();
    let data = match data.as_slice() {
        [] => String::new(),
        data => format!(" | {}", data.join(" ")),
    };
    let code = exit::code(model).nagios();
    screen.faint(format!("MARS {code} - {}{data}\n", texts.join(", ")));
}

fn text(model: &Model, resource: &Resource) -> String {
    let name = &resource.status.name;
    let Some(node) = resource.status.local() else {
        return format!("{name}: unknown");
    };
    let (Some(code), Some(member)) = (node.code(), &node.member) else {
        return format!("{name}: not joined");
    };
    let lag = quantity("lag", model.limits.lag_secs, member.replay.lag_secs, "s");
    let behind = member.replay.behind_bytes;
    let behind = quantity("behind", model.limits.behind_bytes, behind, "bytes");
    format!("{name}: {code}, {lag}, {behind}")
}

fn quantity(name: &str, limit: Limit, value: u64, unit: &str) -> String {
    match limit.judge(value) {
        (Exit::OK, _) | (_, None) => format!("{name} {value} {unit}"),
        (code, Some(at)) => {
            let word = code.nagios().to_lowercase();
            format!("{name} {value} {unit} ({word} above {at})")
        }
    }
}

fn performance(model: &Model, resource: &Resource) -> Option<String> {
    let name = &resource.status.name;
    let replay = &resource.status.local()?.member.as_ref()?.replay;
    let item = |what: &str, value: u64, unit: &str, limit: Limit| {
        let show = |limit: Option<u64>| limit.map(|n| n.to_string()).unwrap_or_default();
        let (warn, crit) = (show(limit.warn), show(limit.crit));
        format!("'{name}_{what}'={value}{unit};{warn};{crit};0;")
    };
    Some(format!(
        "{} {}",
        item("lag", replay.lag_secs, "s", model.limits.lag_secs),
        item(
            "behind",
            replay.behind_bytes,
            "B",
            model.limits.behind_bytes
        )
    ))
}
