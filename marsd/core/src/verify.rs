//! Orders to compare a disk with that of a peer, and their answers, as values of links (`symlink-spec.md` section 8.9).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::position::ValueError;

/// Bytes of a block, the unit of comparison.
pub const BLOCK_BYTES: u64 = 4096;
/// Longest list of ranges in an answer, in bytes of text.
const RANGES_MAX: usize = 800;
/// Longest reason of a failure, in characters of at most four bytes.
const REASON_MAX: usize = 220;

/// What is to be done about differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyMode {
    /// They are reported.
    Check,
    /// They are reported, and overwritten with the data of the peer.
    Repair,
    /// Nothing: a running comparison stops.
    Stop,
}

impl VerifyMode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Repair => "repair",
            Self::Stop => "stop",
        }
    }
}

/// Value of `todo-HOST/verify`: `NUMBER,check`, `NUMBER,repair` or `NUMBER,stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOrder {
    /// Higher than every number used before.
    pub number: u64,
    /// What is to be done.
    pub mode: VerifyMode,
}

impl VerifyOrder {
    /// Reads the value of an order.
    ///
    /// # Errors
    /// The value does not follow the grammar.
    pub fn parse(value: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::new(value, "NUMBER,check or NUMBER,repair or NUMBER,stop");
        let (number, word) = value.split_once(',').ok_or_else(bad)?;
        let modes = [VerifyMode::Check, VerifyMode::Repair, VerifyMode::Stop];
        let mode = modes.into_iter().find(|m| m.as_str() == word);
        Ok(Self {
            number: number.parse().map_err(|_| bad())?,
            mode: mode.ok_or_else(bad)?,
        })
    }
}

impl fmt::Display for VerifyOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.number, self.mode.as_str())
    }
}

/// Bytes of the disk, from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
}

/// What a comparison has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyOutcome {
    /// Blocks of [`BLOCK_BYTES`] that differ although no log explains it.
    pub differing: u64,
    /// How many of them were overwritten with the data of the peer.
    pub repaired: u64,
    /// Blocks that were being written whenever they were looked at: it is not known whether they are equal.
    pub unchecked: u64,
    /// Where the differing blocks are, ascending; possibly only the first of them.
    pub ranges: Vec<ByteRange>,
    /// Further ranges follow, which are not listed.
    pub more: bool,
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyState {
    /// So many bytes have been compared.
    Running(u64),
    /// It has ended.
    Done(VerifyOutcome),
    /// It could not be carried out: why.
    Failed(String),
}

/// Value of `actual-HOST/verify`: `NUMBER,running,BYTES`, `NUMBER,done,DIFFERING,REPAIRED,UNCHECKED,RANGES` or
/// `NUMBER,failed,TEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyAnswer {
    /// Number of the order.
    pub number: u64,
    /// How far it is.
    pub state: VerifyState,
}

impl VerifyAnswer {
    /// Reads the value of an answer.
    ///
    /// # Errors
    /// The value does not follow the grammar.
    pub fn parse(value: &str) -> Result<Self, ValueError> {
        let parsed = (|| {
            let (number, rest) = value.split_once(',')?;
            let (word, rest) = rest.split_once(',')?;
            let state = match word {
                "running" => VerifyState::Running(rest.parse().ok()?),
                "done" => VerifyState::Done(parse_outcome(rest)?),
                "failed" if !rest.is_empty() => VerifyState::Failed(rest.into()),
                _ => return None,
            };
            let number = number.parse().ok()?;
            Some(Self { number, state })
        })();
        let expected = "NUMBER,running,BYTES or NUMBER,done,DIFFERING,REPAIRED,UNCHECKED,RANGES or NUMBER,failed,TEXT";
        parsed.ok_or_else(|| ValueError::new(value, expected))
    }

    /// Whether nothing more is to be expected.
    pub fn is_final(&self) -> bool {
        !matches!(self.state, VerifyState::Running(_))
    }
}

impl fmt::Display for VerifyAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match &self.state {
            VerifyState::Running(bytes) => write!(f, "{number},running,{bytes}"),
            VerifyState::Done(o) => {
                let ranges = format_ranges(&o.ranges, o.more);
                let (differing, repaired, unchecked) = (o.differing, o.repaired, o.unchecked);
                write!(
                    f,
                    "{number},done,{differing},{repaired},{unchecked},{ranges}"
                )
            }
            VerifyState::Failed(why) => {
                let clean = |c: char| if c.is_control() { ' ' } else { c };
                let why: String = why.chars().map(clean).take(REASON_MAX).collect();
                let why = if why.is_empty() {
                    "for no reason"
                } else {
                    &why
                };
                write!(f, "{number},failed,{why}")
            }
        }
    }
}

fn parse_outcome(text: &str) -> Option<VerifyOutcome> {
    let mut parts = text.split(',');
    let mut count = || parts.next()?.parse::<u64>().ok();
    let (differing, repaired, unchecked) = (count()?, count()?, count()?);
    let list = parts.next().filter(|_| parts.clone().next().is_none())?;
    let (list, more) = match list.strip_suffix(" ...") {
        Some(list) => (list, true),
        None => (list, false),
    };
    let ranges = match list {
        "none" => Vec::new(),
        list => list.split(' ').map(parse_range).collect::<Option<_>>()?,
    };
    Some(VerifyOutcome {
        differing,
        repaired,
        unchecked,
        ranges,
        more,
    })
}

fn parse_range(text: &str) -> Option<ByteRange> {
    let (start, len) = text.split_once('+')?;
    let (start, len) = (start.parse::<u64>().ok()?, len.parse().ok()?);
    start.checked_add(len)?;
    Some(ByteRange { start, len })
}

/// `START+LEN START+LEN …`, as many as there is room for; ` ...` behind them if there are more.
fn format_ranges(ranges: &[ByteRange], more: bool) -> String {
    let mut out = String::new();
    for range in ranges {
        let next = format!("{}+{}", range.start, range.len);
        if out.len() + next.len() > RANGES_MAX {
            return out + " ...";
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out += &next;
    }
    if out.is_empty() {
        return "none".to_string();
    }
    if more { out + " ..." } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{LinkPath, VALUE_MAX};

    #[test]
    fn orders_and_answers_round_trip_and_fit_into_a_link() {
        let order = LinkPath::parse("resource-r/todo-A/verify").unwrap();
        for text in ["1,check", "2,repair", "18446744073709551615,stop"] {
            assert_eq!(VerifyOrder::parse(text).unwrap().to_string(), text);
            order.check_value(text).unwrap();
        }
        let answer = LinkPath::parse("resource-r/actual-A/verify").unwrap();
        for text in [
            "1,running,0",
            "7,done,0,0,0,none",
            "7,done,3,3,1,0+4096 40960+8192",
            "7,done,3,0,0,0+4096 40960+8192 ...",
            "9,failed,the peer is away, or so",
        ] {
            assert_eq!(VerifyAnswer::parse(text).unwrap().to_string(), text);
            answer.check_value(text).unwrap();
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let range = |n: u64| ByteRange {
            start: u64::MAX - n,
            len: n,
        };
        let outcome = VerifyOutcome {
            differing: u64::MAX,
            repaired: u64::MAX,
            unchecked: u64::MAX,
            ranges: (0..1000).map(range).collect(),
            more: false,
        };
        let answer = |state| VerifyAnswer {
            number: u64::MAX,
            state,
        };
        let text = answer(VerifyState::Done(outcome)).to_string();
        assert!(text.len() <= VALUE_MAX && text.ends_with(" ..."), "{text}");
        match VerifyAnswer::parse(&text).unwrap().state {
            VerifyState::Done(o) => assert!(o.more && o.ranges.len() > 10),
            other => panic!("{other:?}"),
        }
        let long = "\u{10ffff}\n".repeat(1000);
        let text = answer(VerifyState::Failed(long)).to_string();
        assert!(text.len() <= VALUE_MAX && !text.contains('\n'), "{text}");
        let empty = answer(VerifyState::Failed(String::new()));
        VerifyAnswer::parse(&empty.to_string()).unwrap();
    }

    #[test]
    fn garbage_is_refused() {
        for bad in ["", "1", "1,", "x,check", "1,other", "-1,check", "1,check,2"] {
            assert!(VerifyOrder::parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "1,running",
            "1,running,x",
            "1,done,0,0,none",
            "1,done,0,0,0",
            "1,done,0,0,0,",
            "1,done,1,0,0,5",
            "1,done,1,0,0,18446744073709551615+1",
            "1,done,0,0,0,none,none",
            "1,failed,",
            "1,other,x",
        ] {
            assert!(VerifyAnswer::parse(bad).is_err(), "{bad}");
        }
    }
}
