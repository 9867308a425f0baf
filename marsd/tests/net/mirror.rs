//! The mirror of the tree: exact stamps, nothing hidden, no way out of the tree.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mars_core::merge::merge;
use mars_core::{HostName, LinkPath, Stamp, Tree};
use mars_tree::Loaded;
use marsd::net::{
    Incoming, Mirror, MirrorSource, NetError, PeerConn, ServeFuture, Service, StreamRequest, dial,
    load_staged, mirror,
};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use walkdir::WalkDir;

use crate::nodes::{Node, host, pair, within};

/// Relative path, value and time of every entry that is no directory.
fn contents(root: &Path) -> BTreeMap<String, (String, i64, i64)> {
    let walk = WalkDir::new(root)
        .min_depth(1)
        .into_iter()
        .map(Result::unwrap);
    walk.filter(|e| !e.file_type().is_dir())
        .map(|e| {
            let meta = e.path().symlink_metadata().unwrap();
            let value =
                fs::read_link(e.path()).map_or("(no link)".into(), |v| v.display().to_string());
            let path = e.path().strip_prefix(root).unwrap().display().to_string();
            (path, (value, meta.mtime(), meta.mtime_nsec()))
        })
        .collect()
}

/// Puts a link, replacing an old one; nobody looks meanwhile.
fn put(root: &Path, path: &str, value: &str, stamp: Stamp) {
    let place = root.join(LinkPath::parse(path).unwrap().to_string());
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    drop(fs::remove_file(&place));
    symlink(value, &place).unwrap();
    let time = TimeSpec::new(stamp.secs, stamp.nanos.into());
    utimensat(
        AT_FDCWD,
        &place,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
    .unwrap();
}

fn paths(list: &[&str]) -> Mirror {
    Mirror::Paths(list.iter().map(|p| (*p).to_owned()).collect())
}

#[tokio::test]
async fn two_thousand_links_travel_exactly_and_logs_and_hidden_files_do_not() {
    let (a, b, conn) = pair().await;
    let tree = b.tree();
    for i in 0..2000_u32 {
        let path = format!("resource-r{}/version-{:09}-b", i % 50, i + 1);
        let value = format!("{:032x},b,{i},0", i);
        put(
            &tree,
            &path,
            &value,
            Stamp::new(1_700_000_000 + i64::from(i), 123_000_000 + i),
        );
    }
    put(&tree, "ips/ip-b", "10.0.0.2:99", Stamp::new(1, 1));
    put(
        &tree,
        "resource-r1/todo-b/sync",
        "1",
        Stamp::new(1_600_000_000, 999_999_999),
    );
    let expected = contents(&tree);
    assert_eq!(expected.len(), 2002);
    for (file, text) in [
        (".key-b", "secret"),
        ("resource-r1/.tmp.x", "hidden"),
        ("resource-r1/log-000000001-b", "log"),
        ("resource-r1/data-b", "big file"),
        ("log.txt", "messages"),
        ("5.total.log", "messages"),
    ] {
        fs::write(tree.join(file), text).unwrap();
    }
    symlink("x", tree.join("resource-r1/log-000000002-b")).unwrap();
    fs::create_dir_all(tree.join(".peers/c")).unwrap();
    symlink("x", tree.join(".peers/c/alive-c")).unwrap();

    within("mirror", mirror(&conn, &a.staging(), &Mirror::Whole))
        .await
        .unwrap();
    assert_eq!(contents(&a.staging()), expected);
    assert!(!a.staging().join(".peers").exists());
    let left = fs::read_dir(a.run_dir().join("bridge")).unwrap().count();
    assert_eq!(left, 0, "sockets are left over");
}

#[tokio::test]
async fn named_paths_travel_alone_and_missing_ones_are_removed() {
    let (a, b, conn) = pair().await;
    let (tree, staging) = (b.tree(), a.staging());
    for host in ["a", "b", "c"] {
        put(&tree, &format!("alive-{host}"), "1", Stamp::new(10, 5));
        put(
            &tree,
            &format!("resource-r/todo-{host}/sync"),
            "1",
            Stamp::new(10, 5),
        );
    }
    within("whole", mirror(&conn, &staging, &Mirror::Whole))
        .await
        .unwrap();
    assert_eq!(contents(&staging), contents(&tree));

    put(&tree, "alive-a", "0", Stamp::new(20, 7));
    put(&tree, "resource-r/todo-b/sync", "0", Stamp::new(20, 7));
    put(&tree, "resource-new/size", "4096", Stamp::new(20, 7));
    fs::remove_file(tree.join("alive-c")).unwrap();
    fs::remove_file(tree.join("resource-r/todo-c/sync")).unwrap();
    let mut expected = contents(&tree);
    let what = paths(&[
        "resource-r/todo-b/sync",
        "resource-new",
        "alive-c",
        "alive-never",
    ]);
    within("paths", mirror(&conn, &staging, &what))
        .await
        .unwrap();
    // Not asked for, so still as before.
    expected.insert("alive-a".into(), ("1".into(), 10, 5));
    expected.insert("resource-r/todo-c/sync".into(), ("1".into(), 10, 5));
    assert_eq!(contents(&staging), expected);

    within("whole", mirror(&conn, &staging, &Mirror::Whole))
        .await
        .unwrap();
    assert_eq!(contents(&staging), contents(&tree));
}

#[tokio::test]
async fn a_new_stamp_in_the_same_second_travels_even_if_the_value_is_the_same() {
    let (a, b, conn) = pair().await;
    let names = ["alive-a", "alive-b"];
    for (nanos, what) in [
        (5, Mirror::Whole),
        (900, Mirror::Whole),
        (901, paths(&names)),
        (7, paths(&names)),
    ] {
        for name in names {
            put(&b.tree(), name, "1", Stamp::new(10, nanos));
        }
        within("mirror", mirror(&conn, &a.staging(), &what))
            .await
            .unwrap();
        assert_eq!(contents(&a.staging()), contents(&b.tree()));
    }
}

#[tokio::test]
async fn a_tree_in_motion_is_mirrored_without_errors() {
    let (a, b, conn) = pair().await;
    let (tree, stop) = (b.tree(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let name = |i: u32| format!("resource-r{}/version-{:09}-b", i % 20, i + 1);
    (0..400).for_each(|i| put(&tree, &name(i), "0,b,0,0", Stamp::new(1, 1)));
    let mover = std::thread::spawn(move || {
        let mut round = 0;
        while !stopped.load(Ordering::Relaxed) {
            round += 1;
            (0..400).for_each(|i| drop(fs::remove_file(tree.join(name(i)))));
            (0..400).for_each(|i| put(&tree, &name(i), "0,b,0,0", Stamp::new(round, 1)));
        }
    });
    for _ in 0..8 {
        within("mirror", mirror(&conn, &a.staging(), &Mirror::Whole))
            .await
            .unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    mover.join().unwrap();
    within("mirror", mirror(&conn, &a.staging(), &Mirror::Whole))
        .await
        .unwrap();
    assert_eq!(contents(&a.staging()), contents(&b.tree()));
}

#[tokio::test]
async fn paths_that_leave_the_tree_are_refused_here() {
    let (a, _b, conn) = pair().await;
    for bad in ["../../etc", "/etc/passwd", "a/../..", ".key-b", "a\0b", ""] {
        let error = mirror(&conn, &a.staging(), &paths(&[bad]))
            .await
            .unwrap_err();
        assert!(
            matches!(error, NetError::BadPath { .. }),
            "{bad:?}: {error}"
        );
    }
}

/// What a hostile peer got with arguments of its own: did rsync like it, what did it say, what was copied.
struct Attempt {
    source: &'static str,
    options: &'static [&'static str],
    good: bool,
    text: String,
    loot: Vec<String>,
}

/// Asks the serving side with the arguments of a hostile peer, all attempts at once.
async fn hostile_rsync(
    conn: &PeerConn,
    attempts: &[(&'static str, &'static [&'static str])],
) -> Vec<Attempt> {
    let mut tasks = JoinSet::new();
    for (source, options) in attempts {
        tasks.spawn(attempt(conn.clone(), source, options));
    }
    within("all attempts", tasks.join_all()).await
}

async fn attempt(
    conn: PeerConn,
    source: &'static str,
    options: &'static [&'static str],
) -> Attempt {
    let mut stream = conn.open(&StreamRequest::Rsync).await.unwrap();
    let home = TempDir::new().unwrap();
    let (out, socket) = (home.path().join("loot"), home.path().join("s"));
    fs::create_dir(&out).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let mut child = Command::new("rsync");
    child.args(["-r", "-l", "-t"]).args(options);
    child.arg(format!(
        "--rsh={} rsync-bridge {}",
        env!("CARGO_BIN_EXE_marsd"),
        socket.display()
    ));
    child
        .arg(format!("b::{source}"))
        .arg(format!("{}/", out.display()))
        .kill_on_drop(true);
    let output = tokio::spawn(async move { child.output().await.unwrap() });
    let (mut bridge, _) = listener.accept().await.unwrap();
    drop(copy_bidirectional(&mut bridge, &mut stream).await);
    let output = output.await.unwrap();
    let loot = contents(&out)
        .into_iter()
        .map(|(path, (value, ..))| format!("{path} {value}"));
    Attempt {
        source,
        options,
        good: output.status.success(),
        text: String::from_utf8_lossy(&output.stderr).into_owned(),
        loot: loot.collect(),
    }
}

#[tokio::test]
async fn a_hostile_peer_gets_nothing_but_the_tree() {
    let (_a, b, conn) = pair().await;
    let secret = b.home.path().join("secret").display().to_string();
    fs::write(&secret, "secret").unwrap();
    put(&b.tree(), "resource-r/data-b", &secret, Stamp::new(1, 1));
    fs::write(b.tree().join(".key-b"), "secret").unwrap();
    fs::write(b.tree().join("resource-r/log-000000001-b"), "secret").unwrap();
    symlink(b.home.path(), b.tree().join("resource-out")).unwrap();
    let whole = vec![
        format!("resource-out {}", b.home.path().display()),
        format!("resource-r/data-b {secret}"),
    ];

    for got in hostile_rsync(&conn, &[("mars/", &[])]).await {
        assert!(
            got.good && got.loot == whole,
            "the way that is allowed: {:?} {}",
            got.loot,
            got.text
        );
    }
    // Climbing ends at the root of the tree, and filters of the peer hide at most more.
    let harmless: &[(_, &[_])] = &[
        ("mars/../", &[]),
        ("mars/../../", &[]),
        ("mars/", &["--filter=: .key-b"]),
    ];
    for Attempt {
        source,
        options,
        text,
        loot,
        ..
    } in hostile_rsync(&conn, harmless).await
    {
        assert!(
            loot == whole || loot.is_empty(),
            "{source} {options:?}: {loot:?} {text}"
        );
    }
    let elsewhere: &[(_, &[_])] = &[
        ("mars/../../etc/passwd", &[]),
        ("mars/resource-r/../../secret", &[]),
        ("mars/resource-out/secret", &[]),
        ("mars/resource-out/", &[]),
        ("etc/", &[]),
        ("mars/.key-b", &[]),
        ("mars/resource-r/log-000000001-b", &[]),
        (
            "mars/",
            &["--include=.key-b", "--include=log-*", "--exclude=*"],
        ),
    ];
    for Attempt {
        source,
        options,
        text,
        loot,
        ..
    } in hostile_rsync(&conn, elsewhere).await
    {
        assert!(loot.is_empty(), "{source} {options:?}: {loot:?} {text}");
    }
    let refused: &[(_, &[_])] = &[
        ("mars/resource-r/data-b", &["--copy-links"]),
        ("mars/", &["--copy-links"]),
        ("mars/", &["--copy-unsafe-links"]),
        ("mars/", &["--copy-dirlinks"]),
        ("mars/", &["--remove-source-files"]),
        ("mars/", &["--acls"]),
        ("mars/", &["--xattrs"]),
        ("mars/", &["--devices"]),
        ("mars/", &["--checksum"]),
        ("mars/", &["--compress"]),
        ("mars/", &["-M--log-file=/tmp/never"]),
        ("mars/", &["-M--copy-links"]),
        ("mars/", &["-M--files-from=/etc/passwd"]),
    ];
    for Attempt {
        source,
        options,
        good,
        text,
        loot,
    } in hostile_rsync(&conn, refused).await
    {
        assert!(
            !good && loot.is_empty(),
            "{source} {options:?}: {loot:?} {text}"
        );
    }
    assert!(!Path::new("/tmp/never").exists());
}

#[tokio::test]
async fn a_hostile_peer_cannot_write_into_the_tree() {
    let (a, b, conn) = pair().await;
    let mut stream = conn.open(&StreamRequest::Rsync).await.unwrap();
    let socket = a.home.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    symlink("1", a.tree().join("alive-evil")).unwrap();
    let mut child = Command::new("rsync");
    child.args(["-r", "-l", "-t", "--delete"]);
    child.arg(format!(
        "--rsh={} rsync-bridge {}",
        env!("CARGO_BIN_EXE_marsd"),
        socket.display()
    ));
    child
        .arg(format!("{}/", a.tree().display()))
        .arg("b::mars/")
        .kill_on_drop(true);
    let output = tokio::spawn(async move { child.output().await.unwrap() });
    let (mut bridge, _) = within("bridge", listener.accept()).await.unwrap();
    drop(within("carry", copy_bidirectional(&mut bridge, &mut stream)).await);
    assert!(!within("rsync", output).await.unwrap().status.success());
    assert!(!b.tree().join("alive-evil").is_symlink());
}

#[tokio::test]
async fn mirrors_into_one_directory_wait_for_each_other() {
    let (a, b, conn) = pair().await;
    for i in 0..200 {
        put(
            &b.tree(),
            &format!("resource-r/todo-h{i}/sync"),
            "1",
            Stamp::new(i + 1, 1),
        );
    }
    let mut all = Vec::new();
    for _ in 0..6 {
        let (conn, staging) = (conn.clone(), a.staging());
        all.push(tokio::spawn(async move {
            mirror(&conn, &staging, &Mirror::Whole).await
        }));
    }
    for one in all {
        within("mirror", one).await.unwrap().unwrap();
    }
    assert_eq!(contents(&a.staging()), contents(&b.tree()));
}

/// Serves a tree that no longer exists, or speaks nonsense, or dies.
enum Bad {
    Gone(MirrorSource),
    Nonsense,
    Dies,
}

impl Service for Bad {
    fn serve(&self, _peer: HostName, _request: StreamRequest, stream: Incoming) -> ServeFuture {
        if let Self::Gone(source) = self {
            let source = source.clone();
            return Box::pin(async move { Ok(source.serve(stream).await?) });
        }
        let dies = matches!(self, Self::Dies);
        Box::pin(async move {
            let mut stream = stream.accept().await?;
            stream.read_u8().await?;
            if !dies {
                stream
                    .write_all(b"@RSYNCD: 31.0 md5\n@RSYNCD: OK\n\xff\xff\xff\xff\xff\xff\xff\xff")
                    .await?;
                stream.shutdown().await?;
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_mirror_that_fails_says_why() {
    let missing = Node::new("x");
    let source =
        MirrorSource::new(&missing.run_dir(), &missing.home.path().join("nowhere")).unwrap();
    for (service, part) in [
        (Bad::Gone(source), "@ERROR: ch"),
        (Bad::Nonsense, "rsync"),
        (Bad::Dies, "gave up this stream"),
    ] {
        let (a, mut b) = (Node::new("a"), Node::new("b"));
        b.serve(Arc::new(service)).await;
        a.knows(&[&b]);
        b.knows(&[&a]);
        let conn = within("dial", dial(&a.context, &b.name)).await.unwrap();
        let error = within("mirror", mirror(&conn, &a.staging(), &Mirror::Whole))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("cannot mirror the tree of b") && text.contains(part),
            "{part}: {text}"
        );
    }
}

#[tokio::test]
async fn garbage_of_a_peer_is_told_and_the_rest_is_taken() {
    let (a, b, conn) = pair().await;
    put(&b.tree(), "resource-r/size", "4096", Stamp::new(10, 1));
    put(
        &b.tree(),
        "resource-r/replay-a",
        "log-000000001-b,0,0",
        Stamp::new(10, 1),
    );
    put(&b.tree(), "resource-r/todo-a/sync", "1", Stamp::new(10, 1));
    symlink("ten gigabytes", b.tree().join("resource-r/actsize-b")).unwrap();
    fs::write(b.tree().join("resource-r/data-b"), "").unwrap();
    within("mirror", mirror(&conn, &a.staging(), &Mirror::Whole))
        .await
        .unwrap();

    let mut live = Tree::default();
    let todo = LinkPath::parse("resource-r/todo-a/sync").unwrap();
    live.put(todo, "0", Stamp::new(10, 2)).unwrap();
    let check = |what: &Mirror| {
        let Loaded { tree, problems } = load_staged(&a.staging(), what);
        let taken: Vec<String> = merge(&live, &tree, &a.name, &host("b"))
            .iter()
            .map(|(p, l)| format!("{p} {}", l.value))
            .collect();
        let problems: Vec<String> = problems.into_iter().map(|p| p.path).collect();
        (taken, problems)
    };
    let size = vec!["resource-r/size 4096".to_owned()];
    let bad = vec!["resource-r/actsize-b".to_owned()];
    assert_eq!(check(&Mirror::Whole), (size.clone(), bad.clone()));
    assert_eq!(check(&paths(&["resource-r/size"])), (size, vec![]));
    assert_eq!(
        check(&paths(&[
            "resource-r/actsize-b",
            "resource-r/data-b",
            "resource-rx"
        ])),
        (vec![], bad)
    );
}
