//! The brain of MARS: one daemon per node that watches the tree, decides what should run and runs it.
#![warn(missing_docs)]

pub mod net;
pub mod work;
