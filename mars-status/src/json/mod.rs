//! The same as on the screen as JSON, for programs (`symlink-spec.md` section 11.6). The names are a promise: within one
//! number of the schema members are added, never renamed, removed or given another meaning.

mod node;
mod resource;

use std::collections::BTreeMap;

use mars_core::status::Alive;
use mars_core::tree::Problem;
use serde::Serialize;

use crate::exit::{self, Exit};
use crate::model::{Debug, Model, System};
use crate::options::Show;
use crate::render;

/// Number of the schema.
pub const SCHEMA: u32 = 1;

/// The whole document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    program: &'static str,
    version: &'static str,
    view: &'static str,
    exit_code: u8,
    host: Option<&'a str>,
    time_unix_secs: Option<i64>,
    kernel: Option<&'a str>,
    module: Option<&'a str>,
    daemon: Option<AliveJson>,
    system: Option<SystemJson<'a>>,
    resources: Vec<resource::ResourceJson<'a>>,
    missing_resource: Option<&'a str>,
    messages: Option<MessagesJson<'a>>,
    problems: Vec<ProblemJson<'a>>,
    complaints: Vec<String>,
}

/// A sign of life.
#[derive(Debug, Serialize)]
struct AliveJson {
    state: &'static str,
    age_secs: Option<i64>,
}

#[derive(Debug, Serialize)]
struct SystemJson<'a> {
    parameters: BTreeMap<&'static str, ParameterJson<'a>>,
    partition_size_bytes: Option<u64>,
    is_jammed: bool,
    full_nodes: Vec<FullJson<'a>>,
}

/// A parameter: its number, or `null` and what stands in its place.
#[derive(Debug, Serialize)]
struct ParameterJson<'a> {
    value: Option<f64>,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct FullJson<'a> {
    host: &'a str,
    rest_kib: i64,
}

#[derive(Debug, Serialize)]
struct MessagesJson<'a> {
    warnings: &'a [String],
    errors: &'a [String],
}

#[derive(Debug, Serialize)]
struct ProblemJson<'a> {
    path: &'a str,
    cause: &'a str,
}

/// The document for a model and what was damaged in its tree: one line, or many for people's eyes.
///
/// # Errors
/// Those of the serializer, which knows none for these types.
pub fn document(model: &Model, problems: &[Problem], pretty: bool) -> serde_json::Result<String> {
    let document = Document {
        schema: SCHEMA,
        program: "mars-status",
        version: env!("CARGO_PKG_VERSION"),
        view: view(&model.show),
        exit_code: exit::code(model).number(),
        host: Some(model.header.host.as_str()),
        time_unix_secs: Some(model.now.secs),
        kernel: Some(&model.header.kernel),
        module: Some(&model.header.module),
        daemon: Some(model.daemon.into()),
        system: model.system.as_ref().map(SystemJson::of),
        resources: model
            .resources
            .iter()
            .map(|r| resource::ResourceJson::of(model, r))
            .collect(),
        missing_resource: model.missing.as_ref().map(|m| m.name.as_str()),
        messages: model.debug.as_ref().map(MessagesJson::of),
        problems: problems
            .iter()
            .map(|p| ProblemJson {
                path: &p.path,
                cause: &p.cause,
            })
            .collect(),
        complaints: render::complaints(model),
    };
    text(&document, pretty)
}

/// The document where nothing can be looked at.
///
/// # Errors
/// Those of the serializer, which knows none for these types.
pub fn unusable(show: &Show, complaint: &str, exit: Exit) -> serde_json::Result<String> {
    let document = Document {
        schema: SCHEMA,
        program: "mars-status",
        version: env!("CARGO_PKG_VERSION"),
        view: view(show),
        exit_code: exit.number(),
        host: None,
        time_unix_secs: None,
        kernel: None,
        module: None,
        daemon: None,
        system: None,
        resources: Vec::new(),
        missing_resource: None,
        messages: None,
        problems: Vec::new(),
        complaints: vec![complaint.into()],
    };
    text(&document, true)
}

fn text(document: &Document<'_>, pretty: bool) -> serde_json::Result<String> {
    let mut text = if pretty {
        serde_json::to_string_pretty(document)?
    } else {
        serde_json::to_string(document)?
    };
    text.push('\n');
    Ok(text)
}

fn view(show: &Show) -> &'static str {
    match show {
        Show::Screen => "screen",
        Show::Versions => "versions",
        Show::Lines { monitor: true, .. } => "monitor",
        Show::Lines { .. } => "lines",
    }
}

impl From<Alive> for AliveJson {
    fn from(alive: Alive) -> Self {
        let (state, age_secs) = match alive {
            Alive::Yes => ("running", None),
            Alive::Stopped { age_secs } => ("stopped", Some(age_secs)),
            Alive::Silent { age_secs } => ("silent", Some(age_secs)),
            Alive::Never => ("never", None),
        };
        Self { state, age_secs }
    }
}

impl<'a> SystemJson<'a> {
    fn of(system: &'a System) -> Self {
        let parameter = |(name, text): (&&'static str, &'a String)| {
            let value = text.trim().parse().ok().filter(|v: &f64| v.is_finite());
            (*name, ParameterJson { value, text })
        };
        let full = |(host, rest_kib): &'a (mars_core::HostName, i64)| FullJson {
            host: host.as_str(),
            rest_kib: *rest_kib,
        };
        Self {
            parameters: system.parameters.iter().map(parameter).collect(),
            partition_size_bytes: system.partition_kib.and_then(|kib| kib.checked_mul(1024)),
            is_jammed: system.is_jammed,
            full_nodes: system.full.iter().map(full).collect(),
        }
    }
}

impl<'a> MessagesJson<'a> {
    fn of(debug: &'a Debug) -> Self {
        Self {
            warnings: &debug.warnings,
            errors: &debug.errors,
        }
    }
}
