//! The state words of a node and which of them wins (`symlink-spec.md` section 11.3).

use core::fmt;

/// State of a node for one resource; a greater one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// Nothing is to be done.
    UpToDate,
    /// Behind, and getting nearer.
    UpDateIng,
    /// Behind, and not getting nearer, or by more than a minute.
    OutDate,
    /// Somebody has switched something off.
    SwitchOff,
    /// The data cannot be used.
    InvaliDate,
    /// Something is broken: nothing else that is shown can be relied on.
    Failed,
}

impl Code {
    /// All codes, the best first.
    pub const ALL: [Self; 6] = [
        Self::UpToDate,
        Self::UpDateIng,
        Self::OutDate,
        Self::SwitchOff,
        Self::InvaliDate,
        Self::Failed,
    ];

    /// The word, as documented.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::UpDateIng => "UpDateIng",
            Self::OutDate => "OutDate",
            Self::SwitchOff => "SwitchOff",
            Self::InvaliDate => "InvaliDate",
            Self::Failed => "Failed",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
