//! What the machine must offer, checked before anything is made.

use std::path::Path;

use crate::error::{Result, fail};

/// Commands that the harness and the nodes use, with the Debian package of each.
const COMMANDS: [(&str, &str); 11] = [
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("losetup", "util-linux"),
    ("nft", "nftables"),
    ("rsync", "rsync"),
    ("ssh", "openssh-client"),
    ("ssh-agent", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Programs of MARS that a node runs.
pub const PROGRAMS: [&str; 4] = ["marsd", "mars-shim", "marsadm", "mars-status"];

/// Checks privileges, devices and commands.
///
/// # Errors
/// Everything that is missing, and what to do about it.
pub fn check() -> Result {
    if !nix::unistd::geteuid().is_root() {
        return Err(fail(
            "clusters need root: nodes are made of namespaces, loop devices and mounts; run this as root (sudo)",
        ));
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            let module = if device == "/dev/fuse" {
                "fuse"
            } else {
                "loop"
            };
            return Err(fail(format!(
                "{device} is missing: the kernel must offer it (`modprobe {module}`; in a container, pass the device in)"
            )));
        }
    }
    let missing: Vec<_> = COMMANDS.iter().filter(|(c, _)| !on_path(c)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = missing
        .iter()
        .map(|(c, package)| format!("{c} (package {package})"))
        .collect();
    Err(fail(format!(
        "commands are missing: {}; `make deps` installs them",
        list.join(", ")
    )))
}

/// The directory with the programs of MARS: `MARS_BIN_DIR`, or where this executable was built.
///
/// # Errors
/// A program is not there.
pub fn program_dir() -> Result<std::path::PathBuf> {
    let dir = match std::env::var_os("MARS_BIN_DIR") {
        Some(dir) => dir.into(),
        None => built_dir()?,
    };
    for program in PROGRAMS {
        if !dir.join(program).is_file() {
            return Err(fail(format!(
                "{} is not built; run `make build` first",
                dir.join(program).display()
            )));
        }
    }
    Ok(dir)
}

/// Where cargo put this executable, without the `deps` of test executables.
///
/// # Errors
/// The path of this executable is unknown.
pub fn built_dir() -> Result<std::path::PathBuf> {
    use crate::error::Context;
    let exe = std::env::current_exe().context("find the own executable")?;
    let dir = exe
        .parent()
        .context("the own executable has no directory")?;
    Ok(if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir).to_path_buf()
    } else {
        dir.to_path_buf()
    })
}

fn on_path(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(command).is_file())
}
