//! Whether a node gives signs of life (`symlink-spec.md` sections 3 and 11.2).

use crate::link::LinkPath;
use crate::name::HostName;
use crate::stamp::Stamp;
use crate::tree::Tree;

/// Seconds after which a node without a new sign of life is not called alive any more.
pub const ALIVE_SECS: i64 = 100;

/// Sign of life of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alive {
    /// There is a recent one.
    Yes,
    /// The node has shut down, this many seconds ago.
    Stopped {
        /// Seconds since then.
        age_secs: i64,
    },
    /// There was none for this many seconds.
    Silent {
        /// Seconds since the last one.
        age_secs: i64,
    },
    /// There never was any.
    Never,
}

impl Alive {
    /// What the `alive-HOST` link says at `now`.
    pub fn of(tree: &Tree, host: &HostName, now: Stamp) -> Self {
        let Some(link) = tree.links.get(&LinkPath::Alive(host.clone())) else {
            return Self::Never;
        };
        let age_secs = now.secs.saturating_sub(link.stamp.secs).max(0);
        if link.value != "1" {
            Self::Stopped { age_secs }
        } else if age_secs > ALIVE_SECS {
            Self::Silent { age_secs }
        } else {
            Self::Yes
        }
    }
}
