//! Reads what was mirrored of a peer's tree.

use std::path::Path;

use mars_core::LinkPath;
use mars_tree::{Loaded, TreeDir};

use super::mirror::Mirror;

/// The links in `staging` of which `what` was mirrored last, and what is wrong with others.
pub fn load_staged(staging: &Path, what: &Mirror) -> Loaded {
    let dir = TreeDir::new(staging);
    let mut loaded = match what {
        Mirror::Whole => dir.load(),
        Mirror::Paths(paths) => {
            let links: Vec<LinkPath> = paths.iter().filter_map(|p| LinkPath::parse(p)).collect();
            dir.load_subset(links.iter())
        }
    };
    // A data file of the peer stands for itself only there.
    let inside = format!("{}/", staging.display());
    loaded
        .tree
        .links
        .retain(|_, link| !link.value.starts_with(&inside));
    loaded
}
