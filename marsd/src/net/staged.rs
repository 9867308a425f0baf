//! What a mirrored view of a peer changes in the own tree.

use std::path::Path;

use mars_core::merge::merge;
use mars_core::tree::Problem;
use mars_core::{HostName, Link, LinkPath, Tree};
use mars_tree::Loaded;
use mars_tree::TreeDir;

use super::mirror::Mirror;

/// The links in `staging`, mirrored from `peer`, that must replace those of `live` on node `me`; and what is wrong
/// with others. `what` is what was mirrored: nothing else is looked at.
pub fn staged_changes(
    live: &Tree,
    staging: &Path,
    me: &HostName,
    peer: &HostName,
    what: &Mirror,
) -> (Vec<(LinkPath, Link)>, Vec<Problem>) {
    let Loaded { mut tree, problems } = load(staging, what);
    // A data file of the peer stands for itself only there.
    let inside = format!("{}/", staging.display());
    tree.links
        .retain(|_, link| !link.value.starts_with(&inside));
    let changes = merge(live, &tree, me, peer)
        .into_iter()
        .map(|(path, link)| (path.clone(), link.clone()))
        .collect();
    (changes, problems)
}

fn load(staging: &Path, what: &Mirror) -> Loaded {
    let dir = TreeDir::new(staging);
    let Mirror::Paths(paths) = what else {
        return dir.load();
    };
    let links: Vec<LinkPath> = paths
        .iter()
        .filter_map(|path| LinkPath::parse(path))
        .collect();
    if links.len() == paths.len() {
        return dir.load_subset(links.iter());
    }
    let mut loaded = dir.load();
    loaded
        .tree
        .links
        .retain(|path, _| is_within(&path.to_string(), paths));
    loaded
        .problems
        .retain(|problem| is_within(&problem.path, paths));
    loaded
}

fn is_within(path: &str, paths: &[String]) -> bool {
    let below = |dir: &String| {
        let rest = path.strip_prefix(dir.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    paths.iter().any(below)
}
