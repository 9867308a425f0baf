//! The commands, one file each (one for a group that differs in a name only). Each first checks, then edits, then waits.

pub(crate) mod cluster;
pub(crate) mod compat;
pub(crate) mod delete_resource;
pub(crate) mod invalidate;
pub(crate) mod join_cluster;
pub(crate) mod join_resource;
pub(crate) mod leave_cluster;
pub(crate) mod leave_resource;
pub(crate) mod logs;
pub(crate) mod primary;
pub(crate) mod resize;
pub(crate) mod resource;
pub(crate) mod role;
pub(crate) mod secondary;
pub(crate) mod state;
pub(crate) mod switch;
pub(crate) mod sync;
pub(crate) mod verify;
pub(crate) mod wait_connect;
pub(crate) mod wait_umount;
