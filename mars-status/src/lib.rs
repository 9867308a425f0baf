//! The status display of MARS: reads the tree and a few facts of the system, makes a model of them, and renders it
//! without looking at anything else (`symlink-spec.md` section 11).
#![forbid(unsafe_code)]

pub mod exit;
pub mod facts;
pub mod json;
pub mod limits;
pub mod manual;
pub mod model;
pub mod options;
pub mod paint;
pub mod render;
pub mod watch;
