//! The symlink tree on disk: loads it as a value, writes links crash-safely, locks it, keeps the node's key.
//!
//! What a link means is decided in `mars-core`; here are only the system calls (`symlink-spec.md` sections 2 and 3).
#![forbid(unsafe_code)]

pub mod control_socket;
mod daemon;
mod dir;
mod env;
mod error;
pub mod key;
mod load;
mod lock;
pub mod manifest;
mod params;
pub mod passed;
pub mod source;
pub mod unlogged;
mod write;

pub use daemon::load_daemon_lock;
pub use dir::TreeDir;
pub use env::{Env, EnvError, wall_clock};
pub use error::TreeError;
pub use load::Loaded;
pub use lock::TreeLock;
pub use params::{module_params_dir, param_file, params_dir};
