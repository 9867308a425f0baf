//! The brain of MARS: one daemon per node that watches the tree, decides what should run and runs it.
//!
//! [`brain`] owns the state and is the only place that changes it; [`net`] connects nodes, [`work`] moves data,
//! [`shims`] serve devices, [`watch`] hears of changes, [`serve`] answers peers. `symlink-spec.md` sections 8 to 10.

pub mod brain;
pub mod daemon;
pub mod disk;
pub mod kmod;
pub mod net;
pub mod params;
pub mod serve;
pub mod shims;
pub mod supervisor;
pub mod transfer;
pub mod watch;
pub mod work;
