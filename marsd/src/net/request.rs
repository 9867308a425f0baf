//! The messages that open a stream and those on the watch stream, as JSON. Unknown fields are ignored.

use mars_core::plan::LogOffer;
use mars_core::{LogName, ResourceName, Stamp};
use serde::{Deserialize, Serialize};

/// What a stream is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stream", rename_all = "kebab-case")]
pub enum StreamRequest {
    /// Announcements of the listening node, see [`Announce`].
    Watch,
    /// The tree of the listening node, by rsync.
    Rsync,
    /// Durable bytes of a logfile.
    Fetch {
        /// The resource.
        resource: ResourceName,
        /// The logfile.
        log: LogName,
        /// First byte wanted.
        from: u64,
    },
    /// Digests and blocks of the disk of a resource.
    Sync {
        /// The resource.
        resource: ResourceName,
    },
    /// The same, only of what was written past the logs in a gap.
    SyncGap {
        /// The resource.
        resource: ResourceName,
        /// Number of the log that was never written.
        gap: u64,
    },
}

impl StreamRequest {
    /// The resource that it is about, if it is about one.
    pub fn resource(&self) -> Option<&ResourceName> {
        match self {
            Self::Watch | Self::Rsync => None,
            Self::Fetch { resource, .. }
            | Self::Sync { resource }
            | Self::SyncGap { resource, .. } => Some(resource),
        }
    }
}

impl std::fmt::Display for StreamRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Watch => f.write_str("to announce changes"),
            Self::Rsync => f.write_str("the tree"),
            Self::Fetch {
                resource,
                log,
                from,
            } => {
                write!(f, "{log} of resource {resource} from byte {from}")
            }
            Self::SyncGap { resource, gap } => {
                write!(
                    f,
                    "what resource {resource} was written past the logs in place of log {gap}"
                )
            }
            Self::Sync { resource } => write!(f, "sync data of resource {resource}"),
        }
    }
}

/// Answer to a [`StreamRequest`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    /// Why not, or nothing if the stream is served.
    pub(super) refused: Option<String>,
}

/// A link as it stands in the tree of its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedLink {
    /// Path relative to the root.
    pub path: String,
    /// Target of the symlink.
    pub value: String,
    /// Its mtime.
    pub stamp: Stamp,
}

/// A message on the watch stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "announce", rename_all = "kebab-case")]
pub enum Announce {
    /// These paths, relative to the root of the tree, were written or removed.
    Changed {
        /// Links or directories.
        paths: Vec<String>,
    },
    /// Links that tell how far the announcing node has come, as they are: there is nothing to mirror.
    Progress {
        /// The links.
        links: Vec<AnnouncedLink>,
    },
    /// Logfiles of a resource that exist or have grown.
    Logs {
        /// The resource.
        resource: ResourceName,
        /// Its logfiles.
        logs: Vec<LogOffer>,
    },
    /// Further ones of the same resource: too many for one message.
    MoreLogs {
        /// The resource.
        resource: ResourceName,
        /// Its further logfiles.
        logs: Vec<LogOffer>,
    },
    /// Sign of life.
    Heartbeat,
    /// Something of a newer version.
    #[serde(other)]
    Unknown,
}

/// Is this a path that may exist inside a tree: relative, visible, without `..` and control characters?
pub(super) fn is_tree_path(path: &str) -> bool {
    path.len() <= 512
        && !path.chars().any(char::is_control)
        && path
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_tagged_and_extensible() {
        let fetch =
            r#"{"stream":"fetch","resource":"r","log":"log-000000001-a","from":7,"later":1}"#;
        let request: StreamRequest = serde_json::from_str(fetch).unwrap();
        assert_eq!(
            request.to_string(),
            "log-000000001-a of resource r from byte 7"
        );
        assert_eq!(
            serde_json::to_string(&StreamRequest::Watch).unwrap(),
            r#"{"stream":"watch"}"#
        );
        assert!(serde_json::from_str::<StreamRequest>(r#"{"stream":"dance"}"#).is_err());
        assert!(
            serde_json::from_str::<StreamRequest>(r#"{"stream":"sync","resource":"../x"}"#)
                .is_err()
        );
    }

    #[test]
    fn unknown_announcements_are_no_error() {
        let got: Announce = serde_json::from_str(r#"{"announce":"moon","phase":3}"#).unwrap();
        assert_eq!(got, Announce::Unknown);
    }

    #[test]
    fn paths_that_leave_the_tree_are_none() {
        assert!(is_tree_path("resource-r/todo-A/sync") && is_tree_path("resource-r"));
        for bad in [
            "", "/etc", "..", "a/../b", "a//b", ".key-A", "a/.tmp", "a\nb", "a\0", "a/",
        ] {
            assert!(!is_tree_path(bad), "{bad:?}");
        }
    }
}
