//! Names of logfiles and positions in them (`symlink-spec.md` section 5).

use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::name::HostName;

/// Why a value could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad value '{value}': expected {expected}")]
pub struct ValueError {
    /// What stands there, shortened to 80 characters.
    pub value: String,
    /// The grammar that it should follow.
    pub expected: &'static str,
}

impl ValueError {
    /// An error about `value`, which should have been `expected`.
    pub fn new(value: &str, expected: &'static str) -> Self {
        Self {
            value: value.chars().take(80).collect(),
            expected,
        }
    }
}

/// Splits `DIGITS-REST` with at least nine digits, as serial names are written (`log-%09d-HOST`).
pub(crate) fn split_serial(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if !(9..=18).contains(&digits) {
        return None;
    }
    let serial = text[..digits].parse().ok()?;
    Some((serial, text[digits..].strip_prefix('-')?))
}

/// Name of a logfile: its number and the host that wrote it as primary; ordered by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogName {
    /// Sequence number, from 1.
    pub seq: u64,
    /// The node that wrote it.
    pub host: HostName,
}

impl LogName {
    /// The log `seq` of `host`.
    pub fn new(seq: u64, host: &HostName) -> Self {
        Self {
            seq,
            host: host.clone(),
        }
    }

    /// Reads `log-%09d-HOST`.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::new(text, "log-NNNNNNNNN-HOST");
        let (seq, host) = text
            .strip_prefix("log-")
            .and_then(split_serial)
            .ok_or_else(bad)?;
        let host = HostName::new(host).map_err(|_| bad())?;
        Ok(Self { seq, host })
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log-{:09}-{}", self.seq, self.host)
    }
}

impl TryFrom<String> for LogName {
    type Error = ValueError;
    fn try_from(s: String) -> Result<Self, ValueError> {
        Self::parse(&s)
    }
}

impl From<LogName> for String {
    fn from(n: LogName) -> String {
        n.to_string()
    }
}

/// Value of a replay link: `log-%09d-HOST,POS,LEN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayPos {
    /// The log that is being applied.
    pub log: LogName,
    /// Bytes of that log that are on the disk; always a record boundary.
    pub pos: u64,
    /// Bytes behind `pos` that are logged but not yet written back (informative).
    pub dirty_len: i64,
}

impl ReplayPos {
    /// Position `pos` of `log`, nothing dirty.
    pub fn new(log: LogName, pos: u64) -> Self {
        Self {
            log,
            pos,
            dirty_len: 0,
        }
    }

    /// Reads the value of a replay link.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::new(text, "log-NNNNNNNNN-HOST,POS,LEN");
        let mut parts = text.split(',');
        let (Some(log), Some(pos), Some(len), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        Ok(Self {
            log: LogName::parse(log).map_err(|_| bad())?,
            pos: pos.parse().map_err(|_| bad())?,
            dirty_len: len.parse().map_err(|_| bad())?,
        })
    }

    /// Where this position stands in the whole history: by log number, then by byte.
    pub fn order(&self) -> (u64, u64) {
        (self.log.seq, self.pos)
    }
}

impl fmt::Display for ReplayPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.log, self.pos, self.dirty_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_names_keep_hosts_with_digits_and_dashes() {
        for host in ["db-1", "istore-test-bs7", "a.b-000000003-c"] {
            let name = LogName::new(7569, &HostName::new(host).unwrap());
            assert_eq!(LogName::parse(&name.to_string()), Ok(name));
        }
        for bad in [
            "log-1-a",
            "log-000000001-",
            "log-000000001",
            "log-000000001-a/b",
            "xlog-000000001-a",
        ] {
            assert!(LogName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replay_values_round_trip() {
        let text = "log-000000001-A,0,8360";
        assert_eq!(ReplayPos::parse(text).unwrap().to_string(), text);
        for bad in [
            "",
            "log-000000001-A,0",
            "log-000000001-A,-1,0",
            "log-000000001-A,0,0,0",
            "x,0,0",
        ] {
            assert!(ReplayPos::parse(bad).is_err(), "{bad}");
        }
    }
}
