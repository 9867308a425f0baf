//! Who belongs to a resource: late joins, a node that is lost for good and replaced under its name, a primary that is away.

use std::fs;

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Cluster, Context, Node, Result, scenario};

const BYTES: u64 = 48 << 20;

fn write(node: &Node, seed: u64) -> Result {
    node.run(&format!("mars-node load {DEVICE} {seed} 0 4096 800 50"))
        .map(drop)
}

fn rotate(cluster: &Cluster, node: &Node) -> Result {
    let before = node.replay(RESOURCE).map_or(0, |at| at.log.seq);
    node.run(&format!("marsadm log-rotate {RESOURCE}"))?;
    cluster
        .wait("the log is rotated", 30, || {
            node.replay(RESOURCE)
                .is_some_and(|at| at.log.seq == before + 1)
        })
        .map(drop)
}

/// Paths of a node's tree that bear a name.
fn traces(node: &Node, name: &str) -> Result<Vec<String>> {
    let links = node.links()?;
    let ends = |path: &String| {
        path.split('/')
            .any(|part| part.ends_with(&format!("-{name}")))
    };
    Ok(links.into_keys().filter(ends).collect())
}

/// A new machine takes the place of a node: nothing is left of `/mars`, the disk is empty.
fn replace(cluster: &Cluster, node: &Node) -> Result {
    let mars = node.dir().join("mars");
    fs::remove_dir_all(&mars)
        .and_then(|()| fs::create_dir(&mars))
        .context("empty /mars")?;
    let image = node.disk(DISK)?.image;
    fs::File::options()
        .write(true)
        .open(image)
        .and_then(|file| file.set_len(0).and_then(|()| file.set_len(BYTES)))
        .context("empty the disk")?;
    cluster.boot(node)
}

#[test]
fn a_lost_node_is_removed_and_replaced_under_its_name() -> Result {
    scenario(&[PAIR[0], PAIR[1], "db-1", "node4.x"], |cluster| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|n| &cluster[n]);
        cluster.create_resource(BYTES)?;
        for seed in 1..=2 {
            write(a, seed)?;
            rotate(cluster, a)?;
        }
        // Late, and one while the other syncs.
        cluster.limit(b, "40mbit")?;
        a.run(&format!(
            "dd if=/dev/urandom of={DEVICE} bs=1M count=24 oflag=direct status=none"
        ))?;
        for node in [b, c, d] {
            cluster.join_resource(node)?;
        }
        write(a, 3)?;
        for node in [b, c, d] {
            cluster.wait_caught_up(RESOURCE, a, node, 120)?;
            same_disks(a, node, DISK)?;
        }
        let old_key = a.link(&format!("ips/key-{}", d.name()));

        d.power_off()?;
        write(a, 4)?;
        rotate(cluster, a)?;
        let needed = a.try_run(&format!("marsadm log-delete-all {RESOURCE}"))?;
        assert!(needed.text.contains(d.name()), "{}", needed.text);
        let remove = format!("marsadm leave-cluster --host {}", d.name());
        let alive = a.try_run(&remove)?;
        assert_eq!(alive.code, 1, "{}", alive.text);
        // An hour ahead: the clock of the new machine will be far behind the stamps of the cluster.
        c.set_clock(3600)?;
        c.run(&remove)?;
        for node in [a, b, c] {
            cluster.wait("the lost node is forgotten", 30, || {
                traces(node, d.name()).is_ok_and(|t| t.is_empty())
            })?;
            cluster.wait_caught_up(RESOURCE, a, c, 60)?;
        }
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        a.run(&format!("marsadm log-delete-all {RESOURCE}"))?;
        cluster.wait("only the last log is left", 30, || {
            a.logs(RESOURCE).len() == 1
        })?;

        replace(cluster, d)?;
        d.run(&format!("marsadm join-cluster {}", a.name()))?;
        d.start_marsd()?;
        d.run(&format!("marsadm join-resource {RESOURCE} {DISK}"))?;
        cluster.wait_caught_up(RESOURCE, a, d, 60)?;
        for node in [b, c, d] {
            cluster.wait("all know the new key", 30, || {
                let key = node.link(&format!("ips/key-{}", d.name()));
                key.is_some() && key != old_key
            })?;
        }
        cluster.hand_over(a, d)?;
        write(d, 5)?;
        for node in [a, b, c] {
            cluster.wait_caught_up(RESOURCE, d, node, 60)?;
            same_disks(d, node, DISK)?;
        }
        Ok(())
    })
}

#[test]
fn a_node_joins_and_syncs_while_the_primary_is_away() -> Result {
    scenario(&[PAIR[0], PAIR[1], "db-1"], |cluster| {
        join_while_away(cluster)?;
        all_leave(cluster)
    })
}

fn join_while_away(cluster: &Cluster) -> Result {
    let [a, b, c] = [0, 1, 2].map(|n| &cluster[n]);
    cluster.create_resource(BYTES)?;
    write(a, 1)?;
    rotate(cluster, a)?;
    cluster.join_resource(b)?;
    write(a, 2)?;
    cluster.wait_caught_up(RESOURCE, a, b, 60)?;
    a.run(&format!("marsadm log-delete-all {RESOURCE}"))?;
    // It has not yet been told of the third node.
    a.power_off()?;

    c.add_disk(DISK, BYTES)?;
    c.run(&format!("marsadm join-cluster {}", b.name()))?;
    c.start_marsd()?;
    // As after 100 s without a sign of life.
    let alive = |node: &Node| c.link_stamp(&format!("alive-{}", node.name()));
    let before = alive(c).context("sign of life")?.secs;
    c.set_clock(200)?;
    cluster.wait("only the primary is silent", 30, || {
        [b, c]
            .iter()
            .all(|n| alive(n).is_some_and(|s| s.secs > before + 150))
    })?;
    let said = c.run(&format!("marsadm join-resource {RESOURCE} {DISK}"))?;
    assert!(said.contains(b.name()), "{said}");
    cluster.wait("it is synced", 60, || c.is_synced(RESOURCE))?;
    same_disks(b, c, DISK)?;
    c.set_clock(0)?;

    b.run(&format!("marsadm --force primary {RESOURCE}"))?;
    cluster.wait_device(b)?;
    write(b, 3)?;
    cluster.boot(a)?;
    a.start_marsd()?;
    for node in [a, c] {
        cluster.wait_caught_up(RESOURCE, b, node, 60)?;
        same_disks(b, node, DISK)?;
    }
    Ok(())
}

/// Two leave while nobody sees the other, so that their deletion orders bear the same numbers; the one that is left takes the
/// resource with it.
fn all_leave(cluster: &Cluster) -> Result {
    let [a, b, c] = [0, 1, 2].map(|n| &cluster[n]);
    let cables = [(a, b), (a, c), (b, c)];
    for (one, other) in cables {
        cluster.cut(one, other)?;
    }
    for node in [a, c] {
        node.run(&format!("marsadm detach {RESOURCE}; marsadm disconnect-local {RESOURCE}; marsadm pause-sync-local {RESOURCE}; marsadm pause-replay-local {RESOURCE}; marsadm leave-resource {RESOURCE}"))?;
    }
    for (one, other) in cables {
        cluster.heal(one, other)?;
    }
    cluster.wait("the members are forgotten", 30, || {
        [a, c].iter().all(|n| {
            let of_resource = |path: &String| path.starts_with("resource-");
            traces(b, n.name()).is_ok_and(|left| !left.iter().any(of_resource))
        })
    })?;
    b.run(&format!("marsadm --force delete-resource {RESOURCE}"))?;
    for node in [a, b, c] {
        cluster.wait("the resource is gone", 30, || {
            !node.mars().join(format!("resource-{RESOURCE}")).exists()
        })?;
    }
    Ok(())
}
