//! What decides whether a scenario has succeeded: the content of disks and files.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::command::host;
use crate::error::{Context, Result, fail};
use crate::node::Node;

/// Digests of all files below a directory, by path.
pub type Digests = BTreeMap<String, String>;

/// Digests of all files below `dir` of a node.
///
/// # Errors
/// A file cannot be read.
pub fn digests(node: &Node, dir: &str) -> Result<Digests> {
    let script = format!("cd {dir} && find . -type f -print0 | xargs -0 -r sha256sum");
    let text = node.run(&script)?;
    text.lines()
        .map(|line| {
            let (digest, path) = line
                .split_once("  ")
                .context(format!("unexpected line of sha256sum: {line}"))?;
            Ok((path.to_owned(), digest.to_owned()))
        })
        .collect()
}

/// Compares the files of two nodes.
///
/// # Errors
/// The first files that are missing or differ.
pub fn same_files(expected: &Digests, found: &Digests) -> Result {
    let differing: Vec<_> = expected
        .keys()
        .chain(found.keys())
        .filter(|path| expected.get(*path) != found.get(*path))
        .take(10)
        .cloned()
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(fail(format!(
        "files are missing or differ ({} expected, {} found): {}",
        expected.len(),
        found.len(),
        differing.join(", ")
    )))
}

/// Whether all that `primary` has logged is written back there and replayed on `secondary`.
pub fn is_caught_up(primary: &Node, secondary: &Node, resource: &str) -> bool {
    let end = primary.logs(resource).pop();
    let (Some((log, size)), Some(at), Some(there)) =
        (end, primary.replay(resource), secondary.replay(resource))
    else {
        return false;
    };
    at.log.to_string() == log
        && at.pos == size
        && at.dirty_len == 0
        && there.order() == at.order()
        && there.log == at.log
        && secondary.is_synced(resource)
}

impl Cluster {
    /// Waits until `secondary` has applied all that `primary` has logged.
    ///
    /// # Errors
    /// Not within `secs` seconds.
    pub fn wait_caught_up(
        &self,
        resource: &str,
        primary: &Node,
        secondary: &Node,
        secs: u64,
    ) -> Result {
        let what = format!(
            "{} has applied all that {} has logged of {resource}",
            secondary.name(),
            primary.name()
        );
        self.wait(&what, secs, || is_caught_up(primary, secondary, resource))
            .map(drop)
    }
}

/// Compares the disks of two nodes byte by byte.
///
/// # Errors
/// The first difference.
pub fn same_disks(a: &Node, b: &Node, path: &str) -> Result {
    let (one, two) = (a.disk(path)?, b.disk(path)?);
    host(&[
        "cmp",
        &one.image.to_string_lossy(),
        &two.image.to_string_lossy(),
    ])
    .map(drop)
    .context(format!("{path} of {} and {} differ", a.name(), b.name()))
}
