//! The parameters: names, units, ranges and defaults, and which of the places that may set one counts
//! (`symlink-spec.md` section 13).

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::link::{LinkPath, ResourceLink};
use crate::name::{HostName, ResourceName};
use crate::tree::Tree;

/// Value that stands for "as if this place said nothing".
pub const DEFAULT_WORD: &str = "default";

/// A parameter of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Param {
    /// Load average of one minute at which data transfer pauses; 0 = off.
    LoadavgLimit,
    /// KiB per second of logs and disk data, in each direction; 0 = off.
    NetworkTrafficLimitKb,
    /// Seconds after which a silent peer is given up; 0 = never.
    NetworkIoTimeout,
    /// Percent of the memory of the machine for data that waits to be written; 0 = a fixed amount per resource.
    PercentMemLimitKb,
    /// MiB per second read for peers; 0 = off.
    ServerIoLimitMb,
    /// MiB of `/mars` that are left free.
    FreeSpaceMb,
    /// GiB above that at which unneeded logs are deleted; 0 = only when there is no room left.
    LogdelAutoGb,
    /// GiB at which a log is rotated; 0 = off.
    LogrotAutoGb,
}

struct Traits {
    name: &'static str,
    /// The values that are allowed, in words.
    range: &'static str,
    default: u64,
    /// Lowest value besides 0.
    min: u64,
    max: u64,
    per_resource: bool,
}

/// Why a value is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be '{value}': allowed are {}", .param.name(), .param.range())]
pub struct ParamError {
    /// The parameter.
    pub param: Param,
    /// What stood there, shortened.
    pub value: String,
}

impl Param {
    /// All parameters.
    pub const ALL: [Self; 8] = [
        Self::LoadavgLimit,
        Self::NetworkTrafficLimitKb,
        Self::NetworkIoTimeout,
        Self::PercentMemLimitKb,
        Self::ServerIoLimitMb,
        Self::FreeSpaceMb,
        Self::LogdelAutoGb,
        Self::LogrotAutoGb,
    ];

    #[rustfmt::skip]
    const fn traits(self) -> Traits {
        const fn of(name: &'static str, range: &'static str, default: u64, min: u64, max: u64, per_resource: bool) -> Traits {
            Traits { name, range, default, min, max, per_resource }
        }
        match self {
            Self::LoadavgLimit => of("loadavg_limit", "a load average from 0 to 100000", 0, 0, 100_000, true),
            Self::NetworkTrafficLimitKb => of("network_traffic_limit_kb", "KiB per second from 0 to 1073741824", 0, 0, 1 << 30, true),
            Self::NetworkIoTimeout => of("network_io_timeout", "seconds from 10 to 86400, or 0", 30, 10, 86_400, false),
            Self::PercentMemLimitKb => of("percent_mem_limit_kb", "percent of the memory from 0 to 70", 0, 0, 70, false),
            Self::ServerIoLimitMb => of("server_io_limit_mb", "MiB per second from 0 to 1048576", 0, 0, 1 << 20, true),
            Self::FreeSpaceMb => of("free_space_mb", "MiB from 0 to 1073741824", 8, 0, 1 << 30, false),
            Self::LogdelAutoGb => of("logdel_auto_gb", "GiB from 0 to 1048576", 8, 0, 1 << 20, true),
            Self::LogrotAutoGb => of("logrot_auto_gb", "GiB from 0 to 1048576", 32, 0, 1 << 20, true),
        }
    }

    /// Its name: of its file, of its links and in the configuration.
    pub const fn name(self) -> &'static str {
        self.traits().name
    }

    /// What holds where nothing else is said.
    pub const fn default_value(self) -> u64 {
        self.traits().default
    }

    /// Whether a resource may have a value of its own.
    pub const fn is_per_resource(self) -> bool {
        self.traits().per_resource
    }

    /// The parameter of this name.
    pub fn parse_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// The values that are allowed, in words.
    pub const fn range(self) -> &'static str {
        self.traits().range
    }

    /// Reads a value.
    ///
    /// # Errors
    /// Not a whole number, or out of range; the text names parameter, value and range.
    pub fn parse_value(self, text: &str) -> Result<u64, ParamError> {
        let Traits { min, max, .. } = self.traits();
        let text = text.trim();
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<u64>() {
            Ok(value) if digits && value <= max && (value == 0 || value >= min) => Ok(value),
            _ => Err(ParamError {
                param: self,
                value: text.chars().filter(|c| !c.is_control()).take(40).collect(),
            }),
        }
    }

    /// Reads a value, or [`DEFAULT_WORD`] as `None`.
    ///
    /// # Errors
    /// As [`Self::parse_value`].
    pub fn parse_setting(self, text: &str) -> Result<Option<u64>, ParamError> {
        if text.trim() == DEFAULT_WORD {
            return Ok(None);
        }
        self.parse_value(text).map(Some)
    }
}

/// Values by parameter; a missing one was not set.
pub type Settings = BTreeMap<Param, u64>;

/// A line of a configuration that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ConfigProblem {
    /// From 1.
    pub line: usize,
    /// The parameter, if the line names one.
    pub param: Option<Param>,
    /// What is wrong.
    pub why: String,
}

/// Reads a configuration file: lines `NAME = VALUE`, comments behind `#`. Bad lines are left out and told.
pub fn parse_config(text: &str) -> (Settings, Vec<ConfigProblem>) {
    let (mut settings, mut problems) = (Settings::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match parse_line(line) {
            Ok((param, Some(value))) => drop(settings.insert(param, value)),
            Ok((param, None)) => drop(settings.remove(&param)),
            Err((param, why)) => problems.push(ConfigProblem {
                line: number + 1,
                param,
                why,
            }),
        }
    }
    (settings, problems)
}

fn parse_line(line: &str) -> Result<(Param, Option<u64>), (Option<Param>, String)> {
    let Some((name, value)) = line.split_once('=') else {
        return Err((None, "'NAME = VALUE' is wanted".into()));
    };
    let name = name.trim();
    let Some(param) = Param::parse_name(name) else {
        let names: Vec<&str> = Param::ALL.iter().map(|p| p.name()).collect();
        let shown: String = name.chars().take(40).collect();
        let why = alloc::format!(
            "there is no parameter '{shown}'; there are {}",
            names.join(", ")
        );
        return Err((None, why));
    };
    match param.parse_setting(value) {
        Ok(value) => Ok((param, value)),
        Err(e) => Err((Some(param), e.to_string())),
    }
}

/// What the tree and the configuration say of a parameter of node `me`, if they do: the file of the node counts most,
/// then `defaults-me/`, then `defaults/`.
pub fn permanent(tree: &Tree, me: &HostName, config: &Settings, param: Param) -> Option<u64> {
    let link = |host| value(tree, &LinkPath::Default(host, param), param);
    let own = || link(Some(me.clone()));
    config
        .get(&param)
        .copied()
        .or_else(own)
        .or_else(|| link(None))
}

/// What the tree says of a parameter of one resource on node `me`, if it does.
pub fn of_resource(tree: &Tree, me: &HostName, res: &ResourceName, param: Param) -> Option<u64> {
    let link = |host| {
        let path = LinkPath::res(res, ResourceLink::Default(host, param));
        value(tree, &path, param)
    };
    link(Some(me.clone())).or_else(|| link(None))
}

/// The lower of two limits of which 0 means none.
pub fn lower_limit(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    }
}

fn value(tree: &Tree, path: &LinkPath, param: Param) -> Option<u64> {
    param.parse_setting(tree.get(path)?).ok().flatten()
}

#[cfg(test)]
#[path = "param_tests.rs"]
mod tests;
