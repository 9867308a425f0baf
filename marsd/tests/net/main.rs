//! Two and more nodes on 127.0.0.1: connections, streams, and the mirror of the tree.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of #[test] functions

mod connect;
mod mirror;
mod nodes;
mod streams;
