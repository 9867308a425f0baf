//! The tree on a real file system: what is written is what is loaded, and damage stays where it is.
#![allow(clippy::unwrap_used)] // a failed step fails the test

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use mars_core::{HostName, Lamport, Link, LinkPath, LogName, ResourceName, Stamp};
use mars_tree::{TreeDir, TreeError, key, manifest, wall_clock};

const SAMPLE: &str = "\
ips/
resource-r1/
resource-r1/todo-A/
todo-global/
ips/ip-A -> 10.0.0.1 @100.000000001
todo-global/deleted-A -> 1 @100.000000002
resource-r1/size -> 10485760 @100.999999999
resource-r1/primary -> A @101.000000000
resource-r1/replay-A -> log-000000001-A,0,0 @102.123456789
resource-r1/todo-A/attach -> 1 @103.000000001
log resource-r1/log-000000001-A 8360
";

fn temp() -> (tempfile::TempDir, TreeDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = TreeDir::new(temp.path());
    (temp, dir)
}

fn path(text: &str) -> LinkPath {
    LinkPath::parse(text).unwrap()
}

#[test]
fn a_manifest_survives_the_disk_to_the_nanosecond() {
    let (_temp, dir) = temp();
    let tree = manifest::parse(SAMPLE).unwrap();
    manifest::store_manifest(&tree, dir.root()).unwrap();
    let loaded = dir.load();
    assert_eq!(loaded.problems, vec![]);
    assert_eq!(manifest::format(&loaded.tree), manifest::format(&tree));
    assert_eq!(loaded.tree, tree);
}

#[test]
fn a_bad_manifest_names_line_and_reason() {
    for (text, line) in [
        ("ips/\nnonsense", 2),
        ("resource-r/size -> 1", 1),
        ("resource-r/size -> 10G @1.000000000", 1),
        ("resource-r/size -> 1 @1.5", 1),
        ("log resource-r/log-1-A 5", 1),
    ] {
        assert_eq!(manifest::parse(text).unwrap_err().line, line, "{text}");
    }
}

#[test]
fn damage_is_told_and_the_rest_is_loaded() {
    let (_temp, dir) = temp();
    manifest::store_manifest(&manifest::parse(SAMPLE).unwrap(), dir.root()).unwrap();
    let good = dir.load().tree;
    let res = dir.root().join("resource-r1");
    let bad = |target: &str, name: &str| symlink(target, res.join(name)).unwrap();
    bad("10G", "actsize-A");
    bad("1", "version-1-A");
    bad("1", "version-0000000001-A");
    bad("log-000000001-A,0,0", "replay-a\nb");
    bad(&"9".repeat(4000), "syncstatus-A");
    bad("1", "log-000000002-A");
    fs::write(res.join("connect-B"), "A").unwrap();
    fs::create_dir(res.join("data-B")).unwrap();
    fs::write(res.join("log-2-A"), "").unwrap();
    symlink("1", res.join(std::ffi::OsStr::from_bytes(b"data-\xff"))).unwrap();
    symlink("1", dir.root().join("alive-a b")).unwrap();
    fs::create_dir(dir.root().join("resource-1x")).unwrap();
    symlink("77", dir.root().join("resource-1x/size")).unwrap();
    let loaded = dir.load();
    assert_eq!(loaded.tree, good);
    let seen: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    for wanted in [
        "resource-r1/actsize-A: bad value '10G'",
        "resource-r1/version-1-A: malformed name",
        "resource-r1/version-0000000001-A: malformed name",
        "resource-r1/replay-a\\nb: the name contains",
        "resource-r1/syncstatus-A: bad value '9999",
        "resource-r1/log-000000002-A: a symlink stands",
        "resource-r1/connect-B: ",
        "resource-r1/data-B: a directory",
        "resource-r1/log-2-A: malformed",
        "resource-r1/data-\u{fffd}: the name is not UTF-8",
        "alive-a b: malformed",
        "resource-1x: malformed",
    ] {
        assert!(
            seen.iter().any(|s| s.starts_with(wanted)),
            "{wanted}: {seen:#?}"
        );
    }
    assert_eq!(seen.len(), 12, "{seen:#?}");
}

#[test]
fn strange_names_are_left_alone_and_hidden_ones_not_even_looked_at() {
    let (_temp, dir) = temp();
    for name in [".tmp-size", "ignore-me", "log.txt", "uuid"] {
        fs::write(dir.root().join(name), "x").unwrap();
    }
    for name in ["lost+found/x/y", "userspace/todo-A"] {
        fs::create_dir_all(dir.root().join(name)).unwrap();
        symlink("x", dir.root().join(name).join("attach")).unwrap();
    }
    fs::create_dir_all(dir.root().join("resource-r/defaults-A")).unwrap();
    fs::create_dir(dir.root().join(".tmp.r2")).unwrap();
    symlink("garbage", dir.root().join(".tmp.r2/size")).unwrap();
    let loaded = dir.load();
    assert_eq!(loaded.problems, vec![]);
    assert!(loaded.tree.links.is_empty());
    let dirs: Vec<&str> = loaded.tree.dirs.iter().map(String::as_str).collect();
    assert_eq!(dirs, ["resource-r", "resource-r/defaults-A", "userspace"]);
}

#[test]
fn parameters_are_links_and_misspelt_ones_are_told() {
    let (_temp, dir) = temp();
    for (at, name, value) in [
        ("defaults", "free_space_mb", "16"),
        ("defaults-A", "network_io_timeout", "5"),
        ("resource-r/defaults-A", "loadavg_limit", "7"),
        ("resource-r/defaults", "free_space_mb", "16"),
        ("defaults", "loadavg", "7"),
    ] {
        fs::create_dir_all(dir.root().join(at)).unwrap();
        symlink(value, dir.root().join(at).join(name)).unwrap();
    }
    let loaded = dir.load();
    let links: Vec<String> = loaded.tree.links.keys().map(ToString::to_string).collect();
    assert_eq!(
        links,
        [
            "defaults/free_space_mb",
            "resource-r/defaults-A/loadavg_limit"
        ]
    );
    let problems: Vec<&str> = loaded.problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        problems,
        [
            "defaults/loadavg",
            "defaults-A/network_io_timeout",
            "resource-r/defaults/free_space_mb"
        ]
    );
}

#[test]
fn a_missing_root_is_an_empty_tree_with_one_problem() {
    let loaded = TreeDir::new("/nonexistent/mars").load();
    assert!(loaded.tree.links.is_empty() && loaded.tree.dirs.is_empty());
    assert_eq!(loaded.problems.len(), 1);
}

#[test]
fn a_sparse_file_is_a_disk_and_is_never_replaced_by_a_link() {
    let (_temp, dir) = temp();
    dir.create_dir("resource-r").unwrap();
    let disk = dir.root().join("resource-r/data-A");
    fs::write(&disk, "\\").unwrap();
    let data = path("resource-r/data-A");
    assert_eq!(dir.load().tree.get(&data), disk.to_str());
    let refused = dir.write_link(&data, "/dev/sda", wall_clock());
    assert!(
        matches!(refused, Err(TreeError::NotALink { .. })),
        "{refused:?}"
    );
    assert!(matches!(dir.remove(&data), Err(TreeError::NotALink { .. })));
    assert_eq!(fs::read(&disk).unwrap(), b"\\");
}

#[test]
fn a_write_keeps_its_stamp_makes_private_dirs_and_leaves_no_temporary() {
    let (_temp, dir) = temp();
    let switch = path("resource-r/todo-db-1/connect");
    let stamp = Stamp::new(1_348_749_967, 999_999_999);
    dir.write_link(&switch, "1", stamp).unwrap();
    let link = dir.read_link(&switch).unwrap().unwrap();
    assert_eq!((link.value.as_str(), link.stamp), ("1", stamp));
    let home = dir.root().join("resource-r/todo-db-1");
    assert_eq!(fs::metadata(&home).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    let refused = dir.write_link(&switch, "yes", stamp);
    assert!(matches!(refused, Err(TreeError::Value { .. })));
    assert_eq!(dir.read_link(&switch).unwrap().unwrap().value, "1");
    dir.sync_dirs().unwrap();
    dir.remove(&switch).unwrap();
    dir.remove(&switch).unwrap();
    assert_eq!(dir.read_link(&switch).unwrap(), None);
}

#[test]
fn only_what_supersedes_a_link_replaces_it_and_set_always_does() {
    let (_temp, dir) = temp();
    let primary = path("resource-r/primary");
    let far = Stamp::new(wall_clock().secs + 1_000_000, 999_999_999);
    let link = |value: &str, stamp| Link {
        value: value.into(),
        stamp,
    };
    assert!(dir.write_newer(&primary, &link("A", far)).unwrap());
    // Of two of the same moment the greater value stays, in whatever order they come.
    assert!(dir.write_newer(&primary, &link("B", far)).unwrap());
    for value in ["A", "B"] {
        assert!(!dir.write_newer(&primary, &link(value, far)).unwrap());
    }
    assert_eq!(dir.read_link(&primary).unwrap().unwrap().value, "B");
    assert_eq!(dir.set(&primary, "C").unwrap(), far.next());
    assert_eq!(
        dir.read_link(&primary).unwrap(),
        Some(link("C", far.next()))
    );
    let later = Stamp::new(far.secs + 50, 0);
    let mut clock = Lamport::new(later);
    assert_eq!(
        dir.set_with(&primary, "D", &mut clock).unwrap(),
        later.next()
    );
}

#[test]
fn a_link_that_was_written_again_is_not_removed_in_place_of_the_old_one() {
    let (_temp, dir) = temp();
    let switch = path("resource-r/todo-A/attach");
    let judged = dir.set(&switch, "0").unwrap();
    dir.set(&switch, "1").unwrap();
    let lock = dir.lock().unwrap();
    assert!(!lock.remove_up_to(&switch, judged).unwrap());
    assert_eq!(dir.read_link(&switch).unwrap().unwrap().value, "1");
    let now = dir.read_link(&switch).unwrap().unwrap().stamp;
    assert!(lock.remove_up_to(&switch, now).unwrap());
    assert_eq!(dir.read_link(&switch).unwrap(), None);
    assert!(lock.remove_up_to(&switch, now).unwrap());
}

#[test]
fn links_that_are_set_together_have_ascending_stamps() {
    let (_temp, dir) = temp();
    let (one, two) = (path("resource-r/size"), path("resource-r/primary"));
    let mut clock = Lamport::default();
    dir.set_all([(&one, "512"), (&two, "A")], &mut clock)
        .unwrap();
    let tree = dir
        .load_subset([&one, &two, &path("alive-A")].into_iter())
        .tree;
    assert_eq!(tree.links.len(), 2);
    assert!(tree.stamp(&one) < tree.stamp(&two));
}

#[test]
fn readers_never_see_a_mixture_while_a_link_is_replaced() {
    let (_temp, dir) = temp();
    let size = path("resource-r/size");
    dir.write_link(&size, "0", Stamp::new(0, 0)).unwrap();
    let writer = dir.clone();
    let at = size.clone();
    let thread = std::thread::spawn(move || {
        for n in 1..2000 {
            writer
                .write_link(&at, &n.to_string(), Stamp::new(n, 0))
                .unwrap();
        }
    });
    let mut seen = 0;
    while !thread.is_finished() {
        if let Ok(Some(link)) = dir.read_link(&size) {
            assert_eq!(link.value, link.stamp.secs.to_string());
            seen += 1;
        }
    }
    thread.join().unwrap();
    assert!(seen > 0);
}

#[test]
fn the_lock_excludes_and_its_wait_is_bounded() {
    let (_temp, dir) = temp();
    let held = dir.lock().unwrap();
    let refused = TreeDir::new(dir.root()).lock_within(Duration::from_millis(20));
    assert!(
        matches!(refused, Err(TreeError::Locked { .. })),
        "{refused:?}"
    );
    drop(held);
    drop(dir.lock_within(Duration::ZERO).unwrap());
}

#[test]
fn paths_out_of_the_tree_are_refused() {
    let (_temp, dir) = temp();
    for rel in ["", "../x", "/etc", "a/../../b", "."] {
        assert!(dir.create_dir(rel).is_err(), "{rel}");
    }
}

#[test]
fn logs_have_a_place_and_can_go_twice() {
    let (_temp, dir) = temp();
    let res = ResourceName::new("r1").unwrap();
    let log = LogName::new(12, &HostName::new("db-1").unwrap());
    dir.create_dir("resource-r1").unwrap();
    let place = dir.log_path(&res, &log);
    assert!(place.ends_with("resource-r1/log-000000012-db-1"));
    fs::write(&place, "abc").unwrap();
    assert_eq!(dir.load().tree.resource(&res).log_size(&log), Some(3));
    dir.remove_log(&res, &log).unwrap();
    dir.remove_log(&res, &log).unwrap();
    assert!(dir.load().tree.logs.is_empty());
}

#[test]
fn a_key_is_made_once_kept_private_and_a_damaged_one_is_refused() {
    let (_temp, dir) = temp();
    let host = HostName::new("A").unwrap();
    let made = key::load_or_create(dir.root(), &host).unwrap();
    assert_eq!(made.public_hex.len(), 64);
    path("ips/key-A").check_value(&made.public_hex).unwrap();
    let again = key::load_or_create(dir.root(), &host).unwrap();
    assert_eq!(
        (&made.pkcs8, &made.public_hex),
        (&again.pkcs8, &again.public_hex)
    );
    let file = key::key_path(dir.root(), &host);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert!(!format!("{made:?}").contains("pkcs8"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        key::load_or_create(dir.root(), &host),
        Err(TreeError::Key { .. })
    ));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "garbage").unwrap();
    assert!(matches!(
        key::load_or_create(dir.root(), &host),
        Err(TreeError::Key { .. })
    ));
    assert_eq!(fs::read(&file).unwrap(), b"garbage");
}

#[test]
fn one_resource_is_loaded_without_the_others_and_its_directory_removed_when_empty() {
    let (_temp, dir) = temp();
    manifest::store_manifest(&manifest::parse(SAMPLE).unwrap(), dir.root()).unwrap();
    let res = ResourceName::new("r1").unwrap();
    for path in [
        "resource-r2/size",
        "todo-global/delete-000000003",
        "alive-A",
    ] {
        let value = if path.starts_with("todo") {
            "/mars/resource-r1/size"
        } else {
            "1"
        };
        dir.set(&self::path(path), value).unwrap();
    }
    let tree = dir.load_resource(&res).tree;
    let names: Vec<String> = tree.links.keys().map(ToString::to_string).collect();
    assert!(
        names.contains(&"resource-r1/todo-A/attach".into()),
        "{names:?}"
    );
    assert!(names.contains(&"ips/ip-A".into()) && names.contains(&"alive-A".into()));
    assert!(
        !names
            .iter()
            .any(|n| n.contains("r2") || n.contains("todo-global"))
    );
    assert_eq!(tree.resource(&res).logs().count(), 1);
    assert_eq!(dir.load_names().len(), 2);
    assert_eq!(dir.load_orders().tree.links.len(), 4);

    assert!(!dir.remove_resource_dir(&res).unwrap(), "links are left");
    for link in tree.resource(&res).links().map(|(link, _)| link.clone()) {
        dir.remove(&LinkPath::res(&res, link)).unwrap();
    }
    for hidden in [".tmp-size.1-0", ".passed", "todo-A/.tmp-attach.1-0"] {
        fs::write(dir.resource_dir(&res).join(hidden), "").unwrap();
    }
    assert!(dir.remove_resource_dir(&res).unwrap());
    assert!(!dir.resource_dir(&res).exists());
    assert!(dir.remove_resource_dir(&res).unwrap(), "it is gone already");
}
