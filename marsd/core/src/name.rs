//! Names of hosts and resources: the only place that decides what is a legal name (`symlink-spec.md` section 1).

use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Serialize};

/// Longest host name accepted, in bytes.
pub const HOST_MAX: usize = 64;
/// Longest resource name accepted, in bytes.
pub const RESOURCE_MAX: usize = 16;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad {kind} name '{name}': {why}")]
pub struct NameError {
    /// "host" or "resource".
    pub kind: &'static str,
    /// What was offered.
    pub name: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name; the error says which rule is broken.
            pub fn new(name: &str) -> Result<Self, NameError> {
                match $check(name) {
                    Ok(()) => Ok(Self(name.to_string())),
                    Err(why) => Err(NameError { kind: $kind, name: name.to_string(), why }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl core::str::FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                Self::new(&s)
            }
        }

        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0
            }
        }
    };
}

name_type!(
    /// Name of a node, as `uname -n` prints it: letters, digits, `-`, `_` and `.`, at most [`HOST_MAX`] bytes.
    HostName, "host", check_host
);
name_type!(
    /// Name of a resource: `[A-Za-z_][-A-Za-z0-9_]*`, at most [`RESOURCE_MAX`] bytes.
    ResourceName, "resource", check_resource
);

fn check_host(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > HOST_MAX {
        return Err("it is longer than 64 characters");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Err("only letters, digits, '-', '_' and '.' are allowed");
    }
    if name.starts_with(['.', '-']) {
        return Err("it must begin with a letter, a digit or '_'");
    }
    Ok(())
}

fn check_resource(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > RESOURCE_MAX {
        return Err("it is longer than 16 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Err("it must begin with a letter or '_'");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    {
        return Err("only letters, digits, '-' and '_' are allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_digits_dashes_and_dots_are_legal() {
        for good in ["db-1", "istore-test-bs7", "a", "node.example.org", "7up"] {
            assert_eq!(HostName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a/b",
            "(none)",
            ".hidden",
            "-x",
            "a b",
            "a\nb",
            &"x".repeat(65),
        ] {
            assert!(HostName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn resources_are_identifiers_of_16() {
        for good in ["Mars-ResA", "r1", "_x", "DeviceA"] {
            assert!(ResourceName::new(good).is_ok());
        }
        for bad in ["", "1r", "-a", "a.b", "aaaaaaaaaaaaaaaaa"] {
            assert!(ResourceName::new(bad).is_err(), "{bad:?}");
        }
    }
}
