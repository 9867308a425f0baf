//! Exit codes: one table, used by every error and printed by `--help`.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A check failed; nothing was changed, or the message says what.
    Refused = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The tree is not writable for this user.
    Permission = 3,
    /// The resource, the cluster or a needed link does not exist.
    Missing = 4,
    /// A condition did not come true in time.
    Timeout = 5,
    /// The system failed (disk, file system).
    System = 6,
    /// The peer could not be reached, authenticated or used.
    Peer = 7,
    /// Stopped by a signal.
    Interrupted = 8,
    /// What was compared is equal, but not everything was compared.
    Unchecked = 9,
}

/// The table for `--help`.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done, or nothing was to be done
  1  refused: a check failed; verify: differences found
  2  wrong command line
  3  no permission: the tree is not writable for this user
  4  resource, cluster or a needed link does not exist
  5  a condition did not come true within --timeout
  6  the system failed (disk, file system)
  7  the peer could not be reached, authenticated or used
  8  stopped by a signal
  9  verify: no differences, but some blocks could not be compared
With 'all', the code of the first resource that failed; the others are still worked on.

Commands of DRBD that need a resource, change nothing and end with 0:
  ignored: syncer get-gi show-gi outdate adjust hidden-commands
  without sense here: create-md dump-md dump new-current-uuid

A resource is named by itself, or by its device on this node (x or /dev/mars/x) if that is unique.

Environment: MARS_DIR (the tree, default /mars), MARS_HOST (name of this node, default uname -n).
The prefix 'force-' before any argument means the same as --force.";
