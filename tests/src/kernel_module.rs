//! What clusters have in the kernel module, and what they leave there when their nodes are gone.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mars_kmod_core::abi::{self, state};
use mars_kmod_core::client::Control;
use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use crate::cluster::poll;
use crate::error::{Context, Result};

const DEADLINE: Duration = Duration::from_secs(60);

/// Stops and forgets the resources whose disks these are; nothing to do where the module is not loaded.
///
/// # Errors
/// The module refuses, or a resource stays in use.
pub fn let_go(disks: &[PathBuf]) -> Result {
    if !Path::new(abi::CONTROL_DEVICE).exists() {
        return Ok(());
    }
    let numbers: Vec<u64> = disks
        .iter()
        .filter_map(|disk| std::fs::metadata(disk).ok())
        .map(|meta| meta.rdev())
        .collect();
    let control = Control::open().context("let the kernel module go of disks")?;
    let all = control.all().context("ask the kernel module")?;
    for status in &all {
        let ours = |number: &&u64| {
            (major(**number), minor(**number))
                == (status.disk_major.into(), status.disk_minor.into())
        };
        if numbers.iter().any(|number| ours(&number)) {
            forget(&control, status.id).context(format!("resource {}", status.id))?;
        }
    }
    Ok(())
}

/// The numbers of all resources that it serves; none where it is not loaded.
///
/// # Errors
/// The module cannot be asked.
pub fn served() -> Result<Vec<u64>> {
    if !Path::new(abi::CONTROL_DEVICE).exists() {
        return Ok(Vec::new());
    }
    let all = Control::open().and_then(|control| control.all());
    let all = all.context("ask the kernel module")?;
    Ok(all.iter().map(|status| status.id).collect())
}

fn forget(control: &Control, id: u64) -> Result {
    let mut stopped = Ok(());
    // Mounts of a dead node go a little later than its processes.
    poll(DEADLINE, || {
        stopped = control.stop(id);
        !matches!(&stopped, Err(e) if e.errno() == Some(Errno::EBUSY))
    })
    .context("is open")?;
    stopped.context("stop it")?;
    poll(DEADLINE, || {
        control
            .status(id)
            .is_ok_and(|status| status.state == state::STOPPED)
    })
    .context("is not written back")?;
    control.release(id).context("forget it")
}
