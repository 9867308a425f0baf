//! The kernel module in virtual machines: `make vm-test`.

mod basic;
mod failures;
mod nodes;
mod parameters;
mod power_cut;

use std::path::Path;
use std::time::Duration;

use mars_tests::requirements::{built_dir, program_dir};
use mars_tests::vm::{Kernel, Machine};
use mars_tests::{Context, Result};

const MIB: u64 = 1 << 20;
/// Far more than any script takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(600);

/// A machine with a disk for data, a disk for logs and a spare one.
fn machine(kernel: Kernel) -> Result<Machine> {
    machine_with(kernel, &[192, 256, 64])
}

/// A machine with disks of so many MiB.
fn machine_with(kernel: Kernel, disks_mib: &[u64]) -> Result<Machine> {
    let mut machine = Machine::new(kernel, 1024)?;
    for mib in disks_mib {
        machine.add_disk(mib * MIB)?;
    }
    Ok(machine)
}

/// A script with the common functions, the programs of this build and the module loaded.
fn script(kernel: Kernel, body: &str) -> Result<String> {
    let module = kernel.module()?;
    Ok(format!(
        "{}\ninsmod {}\n{body}",
        plain_script("")?,
        module.display()
    ))
}

/// A script with the common functions and the programs of this build.
fn plain_script(body: &str) -> Result<String> {
    let tools = built_dir()?;
    let programs = program_dir()?;
    Ok(format!(
        "export PATH={}:{}:$PATH\n{}\n{body}",
        tools.display(),
        programs.display(),
        include_str!("guest.sh")
    ))
}

/// The newest executable of the scenarios.
fn scenario_program() -> Result<std::path::PathBuf> {
    let dir = built_dir()?.join("deps");
    let is_program = |path: &Path| {
        path.extension().is_none()
            && path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("scenarios-"))
    };
    let entries = std::fs::read_dir(&dir).context(format!("read {}", dir.display()))?;
    entries
        .flatten()
        .map(|e| e.path())
        .filter(|path| is_program(path))
        .max_by_key(|path| path.metadata().and_then(|m| m.modified()).ok())
        .context(format!(
            "{} holds no scenarios: build the tests first",
            dir.display()
        ))
}
