//! Connections between nodes: TLS with pinned keys, streams, and the mirror of the tree.
