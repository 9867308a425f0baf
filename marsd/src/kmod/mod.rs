//! The kernel module as a shim: a thread for each resource carries the verbs of marsd to the control device.
//!
//! Towards the rest of marsd a bridge behaves exactly as a user-space shim behind its socket (`symlink-spec.md`
//! section 9); only what comes before logging differs: the module replays nothing, so the bridge does
//! ([`recover`]). A bridge holds no state that matters: when marsd dies the module serves on, and the next marsd
//! finds its resources again ([`running`]).

mod bridge;
mod error;
mod recover;
mod status;

use std::path::{Path, PathBuf};
use std::thread;

use mars_core::ResourceName;
use mars_kmod_core::abi;
use mars_kmod_core::client::Control;
use mars_tree::Env;
use mars_tree::control_socket::ControlSocket;

pub use error::KmodError;

/// The node that bridges work for.
#[derive(Debug, Clone)]
pub struct Home {
    /// Its name, to which its resources in the module belong, and its tree.
    pub env: Env,
    /// Directory of the device nodes.
    pub device_dir: PathBuf,
}

/// Whether the module is loaded.
pub fn loaded() -> bool {
    Path::new(abi::CONTROL_DEVICE).exists()
}

/// The resources of this node that the module serves already.
///
/// # Errors
/// The control device refuses.
pub fn running(home: &Home) -> Result<Vec<ResourceName>, KmodError> {
    let control = Control::open()?;
    let all = control.all()?;
    Ok(all
        .iter()
        .filter(|status| abi::text(&status.owner) == Some(home.env.host.as_str()))
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
    home: &Home,
    res: &ResourceName,
    dirty_mib: Option<u64>,
) -> Result<ControlSocket, KmodError> {
    let control = Control::open()?;
    let (ours, theirs) = ControlSocket::pair(Path::new(abi::CONTROL_DEVICE))?;
    let mut bridge = bridge::Bridge::new(control, theirs, home.clone(), res.clone(), dirty_mib)?;
    thread::Builder::new()
        .name(format!("kmod-{res}"))
        .spawn(move || bridge.run())
        .map_err(|cause| KmodError::io("start a thread for", Path::new(res.as_str()), cause))?;
    Ok(ours)
}
