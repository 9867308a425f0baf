//! The kernel module as a shim: a thread for each resource carries the verbs of marsd to the control device.
//!
//! Towards the rest of marsd a bridge behaves exactly as a user-space shim behind its socket (`symlink-spec.md`
//! section 9); only what comes before logging differs: the module replays nothing, so the bridge does
//! ([`recover`]). A bridge holds no state that matters: when marsd dies the module serves on, and the next marsd
//! finds its resources again ([`running`]).

mod bridge;
mod control;
mod recover;
mod status;

use std::path::Path;
use std::thread;

use mars_core::{HostName, ResourceName};
use mars_kmod_core::abi;
use mars_tree::control_socket::ControlSocket;

pub use control::{Control, KmodError};

/// Whether the module is loaded.
pub fn loaded() -> bool {
    Path::new(abi::CONTROL_DEVICE).exists()
}

/// The resources of this node that the module serves already.
///
/// # Errors
/// The control device refuses.
pub fn running(owner: &HostName) -> Result<Vec<ResourceName>, KmodError> {
    let control = Control::open()?;
    let all = control.all()?;
    Ok(all
        .iter()
        .filter(|status| abi::text(&status.owner) == Some(owner.as_str()))
        .filter(|status| {
            status.state != abi::state::ATTACHED && status.state != abi::state::STOPPED
        })
        .filter_map(|status| ResourceName::new(abi::text(&status.resource)?).ok())
        .collect())
}

/// Starts a bridge for a resource and gives marsd's end of the connection to it. At most `dirty_mib` MiB (by default
/// what the module chooses) are kept in memory before they are written back.
///
/// # Errors
/// The control device, a socket or a thread is refused.
pub fn connect(
    owner: &HostName,
    res: &ResourceName,
    dirty_mib: Option<u64>,
) -> Result<ControlSocket, KmodError> {
    let control = Control::open()?;
    let (ours, theirs) = ControlSocket::pair(Path::new(abi::CONTROL_DEVICE))?;
    let mut bridge = bridge::Bridge::new(control, theirs, owner.clone(), res.clone(), dirty_mib)?;
    thread::Builder::new()
        .name(format!("kmod-{res}"))
        .spawn(move || bridge.run())
        .map_err(|cause| KmodError::io("start a thread for", Path::new(res.as_str()), cause))?;
    Ok(ours)
}
