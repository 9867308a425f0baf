//! Gaps: numbers of logs that were never written, because their writes went past the logs for lack of space
//! (`symlink-spec.md` section 8.6).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::link::parse_bytes;
use crate::position::ValueError;

/// Value of `unlogged-` and `syncbase-` links that say nothing.
pub const NO_GAP: &str = "none";
/// Most gaps that a link names.
const GAPS_MAX: usize = 64;

/// The value of `unlogged-H`: the gaps that H made, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gaps(Vec<u64>);

impl Gaps {
    /// Reads `%09d,%09d,...` or `none`.
    pub fn parse(value: &str) -> Result<Self, ValueError> {
        let bad = || {
            ValueError::new(
                value,
                "numbers of logs with nine digits, ascending, or none",
            )
        };
        if value == NO_GAP {
            return Ok(Self::default());
        }
        let seqs: Option<Vec<u64>> = value.split(',').map(parse_seq).collect();
        let seqs = seqs.ok_or_else(bad)?;
        let ascending = seqs.windows(2).all(|w| w[0] < w[1]);
        if !ascending || seqs.len() > GAPS_MAX {
            return Err(bad());
        }
        Ok(Self(seqs))
    }

    /// The gaps, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied()
    }

    /// Whether log `seq` was never written.
    pub fn contains(&self, seq: u64) -> bool {
        self.0.contains(&seq)
    }

    /// The last one.
    pub fn last(&self) -> Option<u64> {
        self.0.last().copied()
    }

    /// With `seq` besides; the oldest is dropped if there are too many.
    pub fn with(mut self, seq: u64) -> Self {
        if let Err(at) = self.0.binary_search(&seq) {
            self.0.insert(at, seq);
        }
        let surplus = self.0.len().saturating_sub(GAPS_MAX);
        self.0.drain(..surplus);
        self
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(NO_GAP);
        }
        for (n, seq) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_char(',')?;
            }
            write!(f, "{seq:09}")?;
        }
        Ok(())
    }
}

/// The value of `syncbase-H`: but for the regions of a gap, H need not sync what was synced before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncBase {
    /// The gap before which H stands.
    pub gap: u64,
    /// So many bytes of the disk were synced when the gap was noticed.
    pub synced: u64,
}

impl SyncBase {
    /// Reads `%09d,BYTES`; `Ok(None)` for `none`.
    pub fn parse(value: &str) -> Result<Option<Self>, ValueError> {
        if value == NO_GAP {
            return Ok(None);
        }
        let parsed = value.split_once(',').and_then(|(gap, synced)| {
            Some(Self {
                gap: parse_seq(gap)?,
                synced: parse_bytes(synced).ok()?,
            })
        });
        parsed.map(Some).ok_or_else(|| {
            ValueError::new(value, "a number of a log with nine digits, bytes; or none")
        })
    }
}

impl fmt::Display for SyncBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:09},{}", self.gap, self.synced)
    }
}

fn parse_seq(text: &str) -> Option<u64> {
    let plain = (9..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// The text of a list, or `none`.
pub fn format_base(base: Option<&SyncBase>) -> String {
    use alloc::string::ToString;
    base.map_or_else(|| NO_GAP.into(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn values_come_back_and_others_are_refused() {
        for text in ["none", "000000002", "000000002,000000009"] {
            assert_eq!(Gaps::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "2", "000000002,", "000000009,000000002", "000000002,x"] {
            assert!(Gaps::parse(bad).is_err(), "{bad}");
        }
        let base = SyncBase {
            gap: 3,
            synced: 4096,
        };
        assert_eq!(base.to_string(), "000000003,4096");
        assert_eq!(SyncBase::parse("000000003,4096").unwrap(), Some(base));
        assert_eq!(SyncBase::parse("none").unwrap(), None);
        assert!(SyncBase::parse("3,4096").is_err() && SyncBase::parse("000000003").is_err());
    }

    #[test]
    fn a_list_stays_sorted_and_bounded() {
        let two = Gaps::default().with(9).with(2).with(9);
        assert_eq!(two.to_string(), "000000002,000000009");
        let many = (1..=100).fold(Gaps::default(), Gaps::with);
        assert_eq!((many.iter().next(), many.last()), (Some(37), Some(100)));
        assert!(many.to_string().len() < crate::link::VALUE_MAX);
    }
}
