//! The kernels of the virtual machines and what is built for them, as the scripts in `shim-kmod/vm` provide it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context, Result, fail};

/// One of the kernels that `shim-kmod/vm/kernel` builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// For load and for measuring.
    Plain,
    /// Looks for mistakes in locking, memory and lists.
    Checked,
}

impl Kernel {
    /// Its name on the command lines of the scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Checked => "checked",
        }
    }

    /// Where the kernel was built; builds it if need be.
    ///
    /// # Errors
    /// The build fails.
    pub fn build_dir(self) -> Result<PathBuf> {
        script("kernel", self.name())
    }

    /// The kernel module of this tree for this kernel; builds it if need be.
    ///
    /// # Errors
    /// The build fails.
    pub fn module(self) -> Result<PathBuf> {
        script("module", self.name())
    }
}

/// A file of `shim-kmod/vm`.
pub(crate) fn vm_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shim-kmod/vm")
        .join(name)
}

/// Runs a script that prints a path; what it says on standard error is for the user.
fn script(name: &str, arg: &str) -> Result<PathBuf> {
    let path = vm_file(name);
    let output = Command::new(&path)
        .arg(arg)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context(format!("start {}", path.display()))?;
    if !output.status.success() {
        return Err(fail(format!("{} {arg} failed", path.display())));
    }
    let text = String::from_utf8(output.stdout).context(format!("output of {name}"))?;
    Ok(text.trim_end().into())
}
