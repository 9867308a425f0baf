//! Scenarios: real clusters of several nodes on one machine, one file per subject. `make scenarios S=handover` runs one.

mod bad_input;
mod chaos;
mod chapter7;
mod chapters;
mod clocks;
mod daemon_killed;
mod drbd_script;
mod graceful_stop;
mod handover;
mod harness;
mod limits;
mod log_damage;
mod membership;
mod messages;
mod power_cut;
mod resync;
mod secondary_down;
mod shim_killed;
mod space_emergency;
mod split_brain;
mod switch_effects;
mod switches;
mod three_nodes;
mod verify;
mod worked_example;
mod write_while_syncing;
