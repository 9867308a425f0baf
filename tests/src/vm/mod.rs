//! Virtual machines with a kernel of our own, on which the kernel module can be loaded and the power can be cut.
//!
//! The guest sees the file system of the machine below a layer in memory (`shim-kmod/vm/guest`), so every program of
//! the machine runs in it. One boot runs one script as root.

mod disk;
mod kernel;
mod machine;
mod nbd;
mod work_dir;

pub use disk::Disk;
pub use kernel::Kernel;
pub use machine::{Boot, Machine};
