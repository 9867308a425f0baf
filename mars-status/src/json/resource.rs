//! A resource as JSON: its nodes and the history of its logs.

use mars_core::status::{LogHistory, Source, Verdict};
use serde::Serialize;

use super::node::NodeJson;
use crate::exit;
use crate::model::{Model, Resource};

#[derive(Debug, Serialize)]
pub(super) struct ResourceJson<'a> {
    name: &'a str,
    size_bytes: Option<u64>,
    primary: Option<&'a str>,
    is_primary_known: bool,
    member_count: usize,
    nagios_code: Option<u8>,
    nodes: Vec<NodeJson<'a>>,
    history: Option<Vec<LogJson<'a>>>,
}

#[derive(Debug, Serialize)]
struct LogJson<'a> {
    log: String,
    seq: u64,
    size_bytes: u64,
    verdict: &'static str,
    has_twin: bool,
    is_ordered_deleted: bool,
    sources: Vec<SourceJson<'a>>,
}

#[derive(Debug, Serialize)]
struct SourceJson<'a> {
    host: &'a str,
    digest: &'a str,
    pos_bytes: u64,
    is_split_brain: bool,
}

impl<'a> ResourceJson<'a> {
    pub(super) fn of(model: &Model, resource: &'a Resource) -> Self {
        let status = &resource.status;
        let primary = status.primary.as_ref();
        let history = || status.history.iter().map(LogJson::of).collect();
        Self {
            name: status.name.as_str(),
            size_bytes: status.size_bytes,
            primary: primary.and_then(|p| p.as_ref()).map(|host| host.as_str()),
            is_primary_known: primary.is_some(),
            member_count: status.member_count(),
            nagios_code: exit::of_resource(model, resource).map(exit::Exit::number),
            nodes: status
                .nodes
                .iter()
                .map(|node| NodeJson::of(resource, node))
                .collect(),
            history: model.with_history.then(history),
        }
    }
}

impl<'a> LogJson<'a> {
    fn of(log: &'a LogHistory) -> Self {
        Self {
            log: log.log.to_string(),
            seq: log.log.seq,
            size_bytes: log.size_bytes,
            verdict: match log.verdict {
                Verdict::CountDiffers { .. } => "count differs",
                Verdict::Different => "different",
                Verdict::Newest => "newest",
                Verdict::Unused => "unused",
                Verdict::Deletable => "deletable",
            },
            has_twin: log.has_twin,
            is_ordered_deleted: log.is_ordered_deleted,
            sources: log.sources.iter().map(SourceJson::of).collect(),
        }
    }
}

impl<'a> SourceJson<'a> {
    fn of(source: &'a Source) -> Self {
        Self {
            host: source.host.as_str(),
            digest: &source.digest,
            pos_bytes: source.pos,
            is_split_brain: source.is_split_brain,
        }
    }
}
