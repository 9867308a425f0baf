//! Clusters of several nodes on one machine, for the scenarios in `tests/` and for `make run`.
//!
//! A node is a set of namespaces (mount, UTS, IPC, network, PID) with its own host name, address, `/mars`, `/dev`,
//! `/run`, `/root` and sshd; killing its init process is the death of the node. Nodes hang on a bridge in a network
//! namespace of their cluster, so that clusters neither see each other nor the machine. Everything a cluster
//! makes is removed by its supervisor process, even if the test itself is killed.
#![forbid(unsafe_code)]

pub mod chaos;
pub mod cluster;
pub mod command;
pub mod daemon;
pub mod disk;
pub mod error;
pub mod init;
pub mod kernel_module;
pub mod load;
pub mod network;
pub mod node;
pub mod oracle;
pub mod process;
pub mod requirements;
pub mod sandbox;
pub mod setup;
pub mod ssh;
pub mod story;
pub mod supervisor;
pub mod tree;
pub mod vm;

pub use cluster::{Cluster, scenario};
pub use error::{Context, Error, Result, fail};
pub use node::Node;
