//! The story of `make run`: what an administrator types on two nodes, shown as it happens.

use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, poll};
use crate::error::{Context, Result, fail};
use crate::node::Node;
use crate::oracle::{digests, is_caught_up, same_files};
use crate::process::Process;
use crate::sandbox::{kept_dirs, remove_kept};
use crate::supervisor::INIT_FILE;

const A: &str = "istore-test-bs7";
const B: &str = "istore-test-bap7";
const RESOURCE: &str = "Mars-ResA";
const DISK: &str = "/dev/vg-test/LV-ResA";
const DISK_BYTES: u64 = 1 << 30;
/// Bytes of real files that are copied before the second node joins.
const FIRST_BYTES: u64 = 250 << 20;
/// Bytes of real files that are copied while it syncs.
const SECOND_BYTES: u64 = 50 << 20;

/// Tells the story; the last line says what was compared.
///
/// # Errors
/// The first step that did not work.
pub fn tell(keep: bool) -> Result {
    let begin = Instant::now();
    say("two nodes, each with its own host name, address, disk, /mars, /dev and sshd");
    let cluster = Cluster::start(&[A, B])?;
    let told = play(&cluster);
    if keep {
        let dir = cluster.keep()?;
        print_kept(&dir);
    } else {
        drop(cluster);
    }
    let verified = told?;
    say(&format!("all of this took {} s", begin.elapsed().as_secs()));
    println!("{verified}");
    Ok(())
}

fn play(cluster: &Cluster) -> Result<String> {
    let (a, b) = (&cluster[0], &cluster[1]);
    for node in [a, b] {
        node.add_disk(DISK, DISK_BYTES)?;
    }
    found_cluster(cluster, a)?;
    join(cluster, a, b)?;
    hand_over(cluster, a, b)
}

fn found_cluster(cluster: &Cluster, a: &Node) -> Result {
    say(&format!(
        "a cluster of one node, with one resource on {DISK}"
    ));
    shell(a, "MARSADM create-cluster")?;
    start_marsd(a)?;
    shell(a, &format!("MARSADM create-resource {RESOURCE} {DISK}"))?;
    cluster.wait("the device appears", 30, || a.serves(RESOURCE))?;
    shell(
        a,
        &format!(
            "mkfs.ext4 -q /dev/mars/{RESOURCE} && mkdir -p /srv/data && mount /dev/mars/{RESOURCE} /srv/data"
        ),
    )?;
    choose_files(a)?;
    shell(a, "rsync -a --files-from=/tmp/first / /srv/data/ && sync")?;
    shell(a, "df -h /srv/data")
}

/// Two lists of real files of this machine.
fn choose_files(a: &Node) -> Result {
    a.run(&format!(
        "find /usr/share /usr/lib -xdev -type f -size -4M -printf '%s %P\\t%p\\n' | sort -k2 -t$'\\t' |
         awk -F'\\t' '{{ split($1, f, \" \"); sum += f[1]
                if (sum < {FIRST_BYTES}) print $2 > \"/tmp/first\"
                else if (sum < {FIRST_BYTES} + {SECOND_BYTES}) print $2 > \"/tmp/second\" }}'
         touch /tmp/first /tmp/second"
    ))
    .map(drop)
}

fn join(cluster: &Cluster, a: &Node, b: &Node) -> Result {
    say("the second node joins, over ssh with the administrator's agent");
    shell(b, "ssh-add -l")?;
    shell(b, &format!("MARSADM join-cluster {A}"))?;
    start_marsd(b)?;
    let known = format!("resource-{RESOURCE}/data-{A}");
    cluster.wait("the resource is known on both nodes", 30, || {
        b.link(&known).is_some()
    })?;
    shell(b, &format!("MARSADM join-resource {RESOURCE} {DISK}"))?;

    say("files are written on while the disk is synced");
    let mut writing =
        type_in_background(a, "rsync -a --files-from=/tmp/second / /srv/data/ && sync")?;
    let mut shown = false;
    show_progress(a, b, || {
        if !shown {
            shown = true;
            return status(a, b);
        }
        Ok(())
    })?;
    writing.wait(Duration::from_secs(120))?;
    cluster.wait_caught_up(RESOURCE, a, b, 120)?;
    say("caught up: all that was logged is replayed on the other disk");
    status(a, b)
}

fn status(a: &Node, b: &Node) -> Result {
    for node in [a, b] {
        shell(node, "MARS-STATUS")?;
    }
    Ok(())
}

fn hand_over(cluster: &Cluster, a: &Node, b: &Node) -> Result<String> {
    say("handover: the other node becomes primary");
    let expected = digests(a, "/srv/data")?;
    shell(a, "umount /srv/data")?;
    shell(a, &format!("MARSADM secondary {RESOURCE}"))?;
    shell(b, &format!("MARSADM primary {RESOURCE}"))?;
    cluster.wait("the device appears on the new primary", 60, || {
        b.serves(RESOURCE)
    })?;
    shell(
        b,
        &format!("mkdir -p /srv/data && mount /dev/mars/{RESOURCE} /srv/data && df -h /srv/data"),
    )?;
    let found = digests(b, "/srv/data")?;
    same_files(&expected, &found)?;
    shell(b, &format!("ls -l /mars/resource-{RESOURCE}"))?;
    let bytes = b.run(
        "find /srv/data -type f -printf '%s\\n' | awk '{ sum += $1 } END { printf \"%d\", sum }'",
    )?;
    if found.is_empty() {
        return Err(fail("no file was replicated: there was none to copy"));
    }
    Ok(format!(
        "verified: {} files, {bytes} bytes identical on {B} after handover",
        found.len()
    ))
}

/// Prints how far the sync is until it is done; `midway` is called once in the middle.
fn show_progress(a: &Node, b: &Node, mut midway: impl FnMut() -> Result) -> Result {
    let terminal = std::io::stdout().is_terminal();
    let mut last = Instant::now();
    let mut result = Ok(());
    let done = poll(Duration::from_secs(300), || {
        let synced: u64 = b
            .own(RESOURCE, "syncstatus")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        if synced > DISK_BYTES / 4 && result.is_ok() {
            result = midway();
        }
        let finished = is_caught_up(a, b, RESOURCE) || synced == DISK_BYTES;
        if finished || last.elapsed() > Duration::from_millis(if terminal { 200 } else { 1000 }) {
            last = Instant::now();
            print_progress(synced, terminal && !finished);
        }
        finished
    });
    result?;
    done.context(format!("the sync of {B} does not end"))
}

fn print_progress(synced: u64, again: bool) {
    let percent = synced * 100 / DISK_BYTES;
    let bar = "#".repeat(usize::try_from(percent / 4).unwrap_or(0));
    let end = if again { "\r" } else { "\n" };
    print!(
        "sync of {B}: [{bar:<25}] {percent:3} %, {} of {} MiB{end}",
        synced >> 20,
        DISK_BYTES >> 20
    );
    // Progress is for the eye only.
    let _ = std::io::stdout().flush();
}

fn say(text: &str) {
    println!("\n--- {text}");
}

fn typed(node: &Node, command: &str) {
    println!("root@{}:~# {command}", node.name());
}

/// Types a command on a node and shows what it prints.
fn shell(node: &Node, command: &str) -> Result {
    typed(node, command);
    let output = node.try_run(command)?;
    // mars-status ends with a blank, as it always did.
    let text = output.text.trim_end();
    if !text.is_empty() {
        println!("{text}");
    }
    output.good().map(drop)
}

fn type_in_background(node: &Node, command: &str) -> Result<crate::node::Task> {
    typed(node, &format!("{command} &"));
    node.spawn("background", command)
}

fn start_marsd(node: &Node) -> Result {
    typed(node, "marsd &");
    node.start_marsd().map(drop)
}

fn print_kept(dir: &Path) {
    let program = std::env::current_exe().unwrap_or_else(|_| "mars-run".into());
    say(&format!(
        "the cluster stays up, its files are in {}",
        dir.display()
    ));
    for node in [A, B] {
        println!("a shell on {node}: {} enter {node}", program.display());
    }
    println!("to remove it: {} remove", program.display());
}

/// Opens a shell on a node of a cluster that was kept.
///
/// # Errors
/// No such node is up.
pub fn enter(name: &str) -> Result {
    let file = |dir: &Path| dir.join(name).join(INIT_FILE);
    let init = kept_dirs()?
        .iter()
        .find_map(|dir| Process::load(&file(dir)))
        .context(format!(
            "no node {name} is up; `make run KEEP=1` leaves two"
        ))?;
    let cause = Command::new("nsenter")
        .args(["--target", &init.pid.to_string()])
        .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--"])
        .args([
            "env",
            "HOME=/root",
            "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        ])
        .args(["bash", "-c", "cd; exec bash"])
        .exec();
    Err(fail(format!("start nsenter: {cause}")))
}

/// Removes all clusters that were kept.
///
/// # Errors
/// Something of one cannot be removed.
pub fn remove() -> Result {
    for dir in kept_dirs()? {
        println!("removing {}", dir.display());
        remove_kept(&dir)?;
    }
    Ok(())
}
