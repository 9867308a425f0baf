//! Merging a peer's view into the own tree: newer stamps win, own links are never taken from others
//! (`symlink-spec.md` section 2).

use alloc::vec::Vec;

use crate::link::{LinkPath, Scope};
use crate::name::HostName;
use crate::tree::{Link, Tree};

/// The links of `staged`, as mirrored from `peer`, that must replace those of `live` on node `me`.
pub fn merge<'a>(
    live: &Tree,
    staged: &'a Tree,
    me: &HostName,
    peer: &HostName,
) -> Vec<(&'a LinkPath, &'a Link)> {
    staged
        .links
        .iter()
        .filter(|(path, link)| accepts(live, path, link, me, peer))
        .collect()
}

fn accepts(live: &Tree, path: &LinkPath, link: &Link, me: &HostName, peer: &HostName) -> bool {
    let allowed = match path.scope() {
        Scope::HostOnly(owner) => owner == peer && owner != me,
        Scope::Owned(owner) => owner != me,
        Scope::Shared => true,
    };
    allowed
        && live
            .links
            .get(path)
            .is_none_or(|have| link.supersedes(have))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;
    use alloc::string::ToString;
    use alloc::vec;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn tree(links: &[(&str, &str, i64)]) -> Tree {
        let mut tree = Tree::default();
        for (path, value, secs) in links {
            tree.put(LinkPath::parse(path).unwrap(), value, Stamp::new(*secs, 0))
                .unwrap();
        }
        tree
    }

    fn taken(live: &Tree, staged: &Tree) -> Vec<alloc::string::String> {
        merge(live, staged, &host("A"), &host("B"))
            .into_iter()
            .map(|(p, _)| p.to_string())
            .collect()
    }

    #[test]
    fn only_newer_links_are_taken_and_of_two_of_one_moment_the_same_one_everywhere() {
        let live = tree(&[("resource-r/primary", "A", 10)]);
        assert!(taken(&live, &tree(&[("resource-r/primary", "B", 9)])).is_empty());
        assert!(taken(&live, &live.clone()).is_empty());
        let other = tree(&[("resource-r/primary", "B", 10)]);
        assert_eq!(taken(&live, &other), vec!["resource-r/primary"]);
        assert!(taken(&other, &live).is_empty());
        assert_eq!(
            taken(&live, &tree(&[("resource-r/primary", "B", 11)])),
            vec!["resource-r/primary"]
        );
    }

    #[test]
    fn a_peer_speaks_for_itself_and_for_nobody_elses_host_context() {
        let staged = tree(&[
            ("resource-r/replay-A", "log-000000001-A,0,0", 99),
            ("resource-r/replay-B", "log-000000001-A,0,0", 99),
            ("resource-r/replay-C", "log-000000001-A,0,0", 99),
            ("resource-r/actual-A/is-primary", "0", 99),
            ("resource-r/actual-C/is-primary", "0", 99),
            ("resource-r/todo-A/connect", "0", 99),
        ]);
        assert_eq!(
            taken(&Tree::default(), &staged),
            vec![
                "resource-r/replay-B",
                "resource-r/todo-A/connect",
                "resource-r/actual-C/is-primary"
            ]
        );
    }
}
