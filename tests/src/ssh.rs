//! Keys of a cluster: a host key per node, known to all, and one administrator whose key every node accepts.

use std::fs;
use std::path::Path;

use crate::command::host;
use crate::error::{Context, Result};
use crate::network::{ipv4, ipv6};

const SSHD_CONFIG: &str = "\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
AllowAgentForwarding yes
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin MARS_CLOCK_OFFSET_FILE=/root/.clock-offset
";

/// Where the agent of a node listens.
pub const AGENT_SOCKET: &str = "/run/ssh-agent";

/// Writes the ssh configuration of every node below `dir/NODE` (`root/.ssh`, `etc/ssh`).
///
/// # Errors
/// A key cannot be made or a file cannot be written.
pub fn prepare(dir: &Path, hosts: &[&str]) -> Result {
    let admin = dir.join("admin_key");
    make_key(&admin, "admin")?;
    let accepted = read(&admin.with_extension("pub"))?;
    let mut known = String::new();
    for (index, name) in hosts.iter().enumerate() {
        let etc = dir.join(name).join("etc/ssh");
        make_dir(&etc)?;
        write(&etc.join("sshd_config"), SSHD_CONFIG)?;
        let key = etc.join("ssh_host_ed25519_key");
        make_key(&key, name)?;
        let public = read(&key.with_extension("pub"))?;
        let (v4, v6) = (ipv4(index + 1), ipv6(index + 1));
        known.push_str(&format!("{name},{v4},{v6} {public}"));
    }
    for name in hosts {
        let dot_ssh = dir.join(name).join("root/.ssh");
        make_dir(&dot_ssh)?;
        write(&dot_ssh.join("authorized_keys"), &accepted)?;
        write(&dot_ssh.join("known_hosts"), &known)?;
    }
    Ok(())
}

/// The script that starts sshd and an agent that holds the administrator's key.
///
/// # Errors
/// The key cannot be read.
pub fn start_script(dir: &Path) -> Result<String> {
    let key = read(&dir.join("admin_key"))?;
    Ok(format!(
        "/usr/sbin/sshd && ssh-agent -a {AGENT_SOCKET} >/dev/null && \
         SSH_AUTH_SOCK={AGENT_SOCKET} ssh-add -q - <<'END'\n{key}END\n"
    ))
}

fn make_key(path: &Path, comment: &str) -> Result {
    let path = path.to_string_lossy();
    host(&[
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        comment,
        "-f",
        &path,
    ])
    .map(drop)
}

fn make_dir(path: &Path) -> Result {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(format!("create {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(format!("read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result {
    fs::write(path, text).context(format!("write {}", path.display()))
}
