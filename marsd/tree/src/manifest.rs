//! The text form of a tree, for fixtures: version control keeps no link times, this does.
//!
//! One entry per line; blank lines and lines beginning with `#` are left out:
//! ```text
//! ips/
//! ips/ip-A -> 10.0.0.1 @1348749967.123456789
//! log resource-r1/log-000000001-A 8360
//! ```

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mars_core::{LinkPath, LogName, ResourceName, Stamp, Tree};

use crate::dir::TreeDir;
use crate::error::TreeError;

/// A line that is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("manifest line {line}: {why}: '{text}'")]
pub struct ManifestError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
    /// The line.
    pub text: String,
}

/// Reads a manifest. The parent directories of links and logs are implied.
pub fn parse(text: &str) -> Result<Tree, ManifestError> {
    let mut tree = Tree::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        parse_line(&mut tree, line).map_err(|why| ManifestError {
            line: number + 1,
            why,
            text: line.into(),
        })?;
    }
    Ok(tree)
}

fn parse_line(tree: &mut Tree, line: &str) -> Result<(), String> {
    if let Some(dir) = line.strip_suffix('/') {
        add_dirs(tree, dir);
        return Ok(());
    }
    if let Some(log) = line.strip_prefix("log ") {
        return parse_log(tree, log);
    }
    let (path, rest) = line.split_once(" -> ").ok_or("no ' -> ' in it")?;
    let (value, stamp) = rest
        .rsplit_once(" @")
        .ok_or("no ' @SECS.NANOS' behind the value")?;
    let link = LinkPath::parse(path).ok_or("no such link exists in MARS")?;
    let stamp = parse_stamp(stamp).ok_or("the stamp is not SECS.NANOS with nine digits")?;
    if let Some((dir, _)) = path.rsplit_once('/') {
        add_dirs(tree, dir);
    }
    tree.put(link, value, stamp).map_err(|p| p.cause)
}

fn parse_log(tree: &mut Tree, entry: &str) -> Result<(), String> {
    let wanted = "expected 'log resource-R/log-NNNNNNNNN-HOST SIZE'";
    let (path, size) = entry.rsplit_once(' ').ok_or(wanted)?;
    let (dir, name) = path.split_once('/').ok_or(wanted)?;
    let res = dir.strip_prefix("resource-").ok_or(wanted)?;
    let res = ResourceName::new(res).map_err(|e| e.to_string())?;
    let name = LogName::parse(name).map_err(|e| e.to_string())?;
    let size = size.parse().map_err(|_| wanted)?;
    add_dirs(tree, dir);
    tree.logs.entry(res).or_default().insert(name, size);
    Ok(())
}

fn parse_stamp(text: &str) -> Option<Stamp> {
    let (secs, nanos) = text.split_once('.')?;
    let plain = nanos.len() == 9 && nanos.bytes().all(|b| b.is_ascii_digit());
    let nanos = plain.then(|| nanos.parse().ok()).flatten()?;
    Some(Stamp::new(secs.parse().ok()?, nanos))
}

fn add_dirs(tree: &mut Tree, dir: &str) {
    let mut end = Some(dir.len());
    while let Some(at) = end {
        tree.dirs.insert(dir[..at].into());
        end = dir[..at].rfind('/');
    }
}

/// Writes a tree as a manifest, sorted: directories, links, logs.
pub fn format(tree: &Tree) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for dir in &tree.dirs {
        let _ = writeln!(out, "{dir}/");
    }
    for (path, link) in &tree.links {
        let _ = writeln!(out, "{path} -> {} @{}", link.value, link.stamp);
    }
    for (res, logs) in &tree.logs {
        for (log, size) in logs {
            let _ = writeln!(out, "log resource-{res}/{log} {size}");
        }
    }
    out
}

/// Creates the tree on disk below `root`; logfiles become sparse files of the given size.
pub fn store_manifest(tree: &Tree, root: &Path) -> Result<(), TreeError> {
    let dir = TreeDir::new(root);
    dir.create_root()?;
    for rel in &tree.dirs {
        dir.create_dir(rel)?;
    }
    for (path, link) in &tree.links {
        dir.write_link(path, &link.value, link.stamp)?;
    }
    for (res, logs) in &tree.logs {
        for (log, size) in logs {
            let path = dir.log_path(res, log);
            OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&path)
                .and_then(|file| file.set_len(*size))
                .map_err(|e| TreeError::io("create logfile", &path, e))?;
        }
    }
    Ok(())
}
