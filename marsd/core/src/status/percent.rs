//! Percentages with two digits that never call something complete that is not (`symlink-spec.md` section 11.2).

use core::fmt;

/// A percentage in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u64);

impl Percent {
    /// 0.00
    pub const ZERO: Self = Self(0);
    /// 1.00
    pub const ONE: Self = Self(100);
    /// 100.00
    pub const FULL: Self = Self(10_000);

    /// In hundredths of a percent.
    pub const fn hundredths(self) -> u64 {
        self.0
    }

    /// `part` of `whole`, rounded; of nothing it is 0.00. Less than the whole is never shown as 100.00.
    pub fn of(part: u64, whole: u64) -> Self {
        if whole == 0 {
            return Self::ZERO;
        }
        let (part, whole) = (u128::from(part), u128::from(whole));
        let rounded = (part * 10_000 + whole / 2) / whole;
        let hundredths = u64::try_from(rounded).unwrap_or(u64::MAX);
        if part < whole && hundredths >= Self::FULL.0 {
            Self(Self::FULL.0 - 1)
        } else {
            Self(hundredths)
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::Percent;
    use alloc::string::ToString;

    #[test]
    fn rounded_but_never_up_to_complete() {
        for (part, whole, text) in [
            (10_754_456, 94_097_408, "11.43"),
            (0, 5, "0.00"),
            (5, 5, "100.00"),
            (999_999_999, 1_000_000_000, "99.99"),
            (7, 5, "140.00"),
            (1, 0, "0.00"),
            (u64::MAX, 1, "184467440737095516.15"),
        ] {
            assert_eq!(Percent::of(part, whole).to_string(), text, "{part}/{whole}");
        }
    }
}
