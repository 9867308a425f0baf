//! The version chain: one digest per log, node and position, from which split brain is seen (`symlink-spec.md` section 6).

use alloc::format;
use alloc::string::String;
use core::fmt;

use md5::{Digest, Md5};

use crate::name::HostName;
use crate::position::ValueError;

/// Value of a version link: `MD5HEX,LOGHOST,POS,0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionValue {
    /// 32 lower-case hex digits over this log, this position and the value before it.
    pub digest: String,
    /// Host that wrote the log.
    pub log_host: HostName,
    /// Bytes of the log that the digest speaks of.
    pub pos: u64,
}

impl VersionValue {
    /// The value for log `seq` of `log_host` at `pos`, after the complete value `previous` of the log before
    /// (empty for log 1).
    pub fn chain(log_host: &HostName, seq: u64, pos: u64, previous: &str) -> Self {
        let digest = Md5::digest(format!("{log_host},{seq},{pos},{pos},{previous}").as_bytes());
        Self {
            digest: hex::encode(digest),
            log_host: log_host.clone(),
            pos,
        }
    }

    /// Reads the value of a version link.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::new(text, "MD5HEX,LOGHOST,POS,0");
        let mut parts = text.split(',');
        let (Some(digest), Some(host), Some(pos), Some(_), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(bad());
        };
        if digest.len() != 32 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        Ok(Self {
            digest: digest.into(),
            log_host: HostName::new(host).map_err(|_| bad())?,
            pos: pos.parse().map_err(|_| bad())?,
        })
    }
}

impl fmt::Display for VersionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},0", self.digest, self.log_host, self.pos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn host() -> HostName {
        HostName::new("istore-test-bs7").unwrap()
    }

    #[test]
    fn first_two_links_of_a_chain() {
        let one = VersionValue::chain(&host(), 1, 8360, "").to_string();
        assert_eq!(
            one,
            "01e0ef9a59b3a0d3a59abcfe2fd8e381,istore-test-bs7,8360,0"
        );
        let two = VersionValue::chain(&host(), 2, 0, &one).to_string();
        assert_eq!(two, "6307e467a09026820b59e96de77c88ec,istore-test-bs7,0,0");
    }

    #[test]
    fn the_pair_printed_in_the_pilot_documentation() {
        let before = "ad7165b08c7d31812e20be89af3c7c6a,istore-test-bs7,278588680,0";
        let after = VersionValue::chain(&host(), 7569, 0, before).to_string();
        assert_eq!(
            after,
            "2bd0947f1d708b7bd18aed7a0f56acdc,istore-test-bs7,0,0"
        );
    }

    #[test]
    fn values_round_trip_and_garbage_is_refused() {
        let text = "01e0ef9a59b3a0d3a59abcfe2fd8e381,istore-test-bs7,8360,0";
        assert_eq!(VersionValue::parse(text).unwrap().to_string(), text);
        for bad in [
            "",
            "x,y,z,0",
            "01e0ef9a59b3a0d3a59abcfe2fd8e381,a,-1,0",
            "01e0ef9a59b3a0d3a59abcfe2fd8e381,a,1",
        ] {
            assert!(VersionValue::parse(bad).is_err(), "{bad}");
        }
    }
}
