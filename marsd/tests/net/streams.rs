//! Streams: refusals, errors, fairness, and the death of a peer.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mars_core::{LogName, ResourceName};
use marsd::net::{NetError, PeerConn, Stream, StreamRequest, frame, watch_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::nodes::{host, pair, within};

fn fetch(seq: u64, bytes: u64) -> StreamRequest {
    StreamRequest::Fetch {
        resource: ResourceName::new("r").unwrap(),
        log: LogName::new(seq, &host("b")),
        from: bytes,
    }
}

fn sync() -> StreamRequest {
    StreamRequest::Sync {
        resource: ResourceName::new("r").unwrap(),
    }
}

async fn echo(stream: &mut Stream, text: &[u8]) {
    frame::write_frame(stream, text, 1 << 16).await.unwrap();
    let back = frame::read_frame(stream, 1 << 16).await.unwrap();
    assert_eq!(back.as_deref(), Some(text));
}

async fn open(conn: &PeerConn, request: &StreamRequest) -> Stream {
    within("open", conn.open(request)).await.unwrap()
}

#[tokio::test]
async fn a_refusal_carries_its_reason_and_ends_nothing_else() {
    let (_a, _b, conn) = pair().await;
    let error = within("open", conn.open(&fetch(2, 0))).await.unwrap_err();
    assert!(matches!(error, NetError::StreamRefused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("log-000000002-b") && text.contains("there is no log 2"),
        "{text}"
    );
    echo(&mut open(&conn, &sync()).await, b"still there").await;
}

#[tokio::test]
async fn a_panic_in_one_stream_ends_only_that_stream() {
    let (_a, _b, conn) = pair().await;
    let error = within("open", conn.open(&fetch(3, 0)))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("gave up this stream"), "{error}");
    echo(&mut open(&conn, &sync()).await, b"still there").await;
}

#[tokio::test]
async fn a_stream_that_is_given_up_is_no_proper_end() {
    let (_a, _b, conn) = pair().await;
    let mut stream = open(&conn, &fetch(1, 300_000)).await;
    let mut bytes = Vec::new();
    let error = within("read", stream.read_to_end(&mut bytes))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(bytes.len(), 300_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_data_on_many_streams_does_not_starve_small_messages() {
    let (_a, _b, conn) = pair().await;
    let mut small = open(&conn, &sync()).await;
    let mut bulk = Vec::new();
    let (count, mut counted) = mpsc::unbounded_channel();
    for _ in 0..20 {
        let (mut stream, count) = (open(&conn, &fetch(1, u64::MAX)).await, count.clone());
        bulk.push(tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                count.send(len).unwrap();
            }
        }));
    }
    let mut moved = 0;
    let mut worst = Duration::ZERO;
    // All rounds happen under load: each waits until another MiB has passed.
    for round in 0..50 {
        while moved < round << 20 {
            moved += within("bulk", counted.recv()).await.unwrap();
        }
        let began = Instant::now();
        within("echo", echo(&mut small, b"small")).await;
        worst = worst.max(began.elapsed());
    }
    assert!(
        worst < Duration::from_secs(1),
        "a small message took {worst:?}"
    );
    bulk.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn many_streams_one_after_another_and_at_once() {
    let (_a, _b, conn) = pair().await;
    for _ in 0..600 {
        echo(&mut open(&conn, &sync()).await, b"again").await;
    }
    let mut all = Vec::new();
    for _ in 0..300 {
        all.push(open(&conn, &sync()).await);
    }
    for stream in &mut all {
        echo(stream, b"at once").await;
    }
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_only_its_stream() {
    let (_a, _b, conn) = pair().await;
    let mut stream = open(&conn, &sync()).await;
    stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    let mut byte = [0];
    let error = within("read", stream.read(&mut byte)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    echo(&mut open(&conn, &sync()).await, b"still there").await;
}

#[tokio::test]
async fn own_close_ends_waiting_streams_with_the_reason() {
    let (_a, _b, conn) = pair().await;
    let mut stream = open(&conn, &sync()).await;
    let waiting = tokio::spawn(async move { stream.read_u8().await });
    tokio::task::yield_now().await;
    conn.close("told to");
    let error = within("read", waiting)
        .await
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(error.contains("told to"), "{error}");
    assert!(
        within("closed", conn.closed())
            .await
            .to_string()
            .contains("told to")
    );
}

/// Forwards one connection until told to die.
async fn proxy(target: String) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(target).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
    });
    (address, task)
}

#[tokio::test]
async fn a_peer_that_dies_ends_all_streams_with_an_error() {
    let (a, b, _direct) = pair().await;
    let (address, line) = proxy(b.address()).await;
    let mut entry = b.entry();
    entry.address = address;
    a.directory.replace([(b.name.clone(), entry)].into());
    let conn = within("dial", marsd::net::dial(&a.context, &b.name))
        .await
        .unwrap();
    let mut idle = open(&conn, &sync()).await;
    let mut busy = open(&conn, &fetch(1, u64::MAX)).await;
    let mut silent = open(&conn, &fetch(4, 0)).await;
    let (sink, _announced) = mpsc::channel(1);
    let watching = {
        let conn = conn.clone();
        tokio::spawn(async move { watch_client(&conn, sink).await })
    };
    let mut buffer = vec![0; 1 << 16];
    busy.read_exact(&mut buffer).await.unwrap();
    line.abort();
    for stream in [&mut idle, &mut busy, &mut silent] {
        let error = loop {
            match within("error", stream.read(&mut buffer)).await {
                Ok(0) => panic!("a lost connection looks like a proper end"),
                Ok(_) => {}
                Err(e) => break e,
            }
        };
        assert!(
            error
                .to_string()
                .contains("connection with b at 127.0.0.1:"),
            "{error}"
        );
    }
    assert!(within("write", idle.write_all(b"x")).await.is_err());
    within("watch", watching).await.unwrap().unwrap_err();
    let error = within("closed", conn.closed()).await;
    assert!(matches!(error, NetError::Closed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_listener_that_is_dropped_ends_its_connections() {
    let (_a, mut b, conn) = pair().await;
    let mut stream = open(&conn, &sync()).await;
    drop(b.listener.take());
    within("read", stream.read_u8()).await.unwrap_err();
    within("closed", conn.closed()).await;
}

#[tokio::test]
async fn the_number_of_connections_of_one_peer_is_bounded() {
    let (a, b, first) = pair().await;
    let mut all = vec![first];
    for _ in 0..7 {
        all.push(
            within("dial", marsd::net::dial(&a.context, &b.name))
                .await
                .unwrap(),
        );
    }
    let error = within("dial", marsd::net::dial(&a.context, &b.name))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("a has 8 connections already"),
        "{error}"
    );
    for conn in all {
        echo(&mut open(&conn, &sync()).await, b"still there").await;
    }
}
