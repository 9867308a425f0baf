//! Who may connect to whom, and what is said if not.

use marsd::net::{
    Incoming, NetError, Protocol, ServeFuture, Service, StreamRequest, any_address, dial, listen,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::nodes::{Bench, Node, host, pair, within};

fn sync() -> StreamRequest {
    StreamRequest::Sync {
        resource: mars_core::ResourceName::new("r").unwrap(),
    }
}

#[tokio::test]
async fn nodes_that_know_each_other_talk() {
    let (_a, b, conn) = pair().await;
    assert_eq!(conn.peer(), &b.name);
    let mut stream = within("open", conn.open(&sync())).await.unwrap();
    stream.write_all(b"\x03\0\0\0abc").await.unwrap();
    let mut back = [0; 7];
    within("echo", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"\x03\0\0\0abc");
    stream.shutdown().await.unwrap();
    assert_eq!(within("end", stream.read(&mut back)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stranger_is_told_why_and_gets_nothing() {
    let (a, mut b) = (Node::new("a"), Node::new("b"));
    b.listen().await;
    a.knows(&[&b]);
    let error = within("dial", dial(&a.context, &b.name)).await.unwrap_err();
    assert!(matches!(error, NetError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    for part in [
        "b at 127.0.0.1:",
        "refused",
        "does not know the key",
        &a.fingerprint(),
        "ips/key-a",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[tokio::test]
async fn another_key_than_expected_is_named_with_both_fingerprints() {
    let (a, mut b, c) = (Node::new("a"), Node::new("b"), Node::new("c"));
    b.listen().await;
    b.knows(&[&a]);
    let mut entry = b.entry();
    entry.key = c.entry().key;
    a.directory.replace([(b.name.clone(), entry)].into());
    let error = within("dial", dial(&a.context, &b.name)).await.unwrap_err();
    assert!(matches!(error, NetError::WrongKey { .. }), "{error:?}");
    let text = error.to_string();
    for part in [
        "b at 127.0.0.1:",
        &b.fingerprint(),
        &c.fingerprint(),
        "ips/key-b",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[tokio::test]
async fn nobody_takes_the_name_of_another_node() {
    let (mut b, impostor, real) = (Node::new("b"), Node::new("a"), Node::new("a"));
    b.listen().await;
    impostor.knows(&[&b]);
    // The key of the impostor belongs to c.
    let entries = [(host("a"), real.entry()), (host("c"), impostor.entry())];
    b.directory.replace(entries.into());
    let error = within("dial", dial(&impostor.context, &b.name))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("it says it is a, but ips/key-a is not its key"),
        "{text}"
    );
}

#[tokio::test]
async fn versions_without_overlap_are_both_named() {
    let (a, mut b) = (Node::new("a"), Node::new("b"));
    b.listen().await;
    a.knows(&[&b]);
    b.knows(&[&a]);
    let newer = a.context.speaking(Protocol {
        newest: 7,
        oldest: 5,
    });
    let text = within("dial", dial(&newer, &b.name))
        .await
        .unwrap_err()
        .to_string();
    for part in [
        "no common protocol version",
        "a runs",
        "5 to 7",
        "b runs",
        "1 to 1",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    let both = a.context.speaking(Protocol {
        newest: 7,
        oldest: 1,
    });
    within("dial", dial(&both, &b.name)).await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_not_in_the_tree_is_not_dialled() {
    let a = Node::new("a");
    let error = dial(&a.context, &host("b")).await.unwrap_err();
    assert!(matches!(error, NetError::UnknownPeer { .. }), "{error:?}");
    let (mut b, dead) = (Node::new("b"), Node::new("dead"));
    b.listen().await;
    drop(b.listener.take());
    a.knows(&[&dead]);
    let error = within("dial", dial(&a.context, &dead.name))
        .await
        .unwrap_err();
    assert!(matches!(error, NetError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn whoever_speaks_no_tls_gets_no_byte_and_hinders_nobody() {
    let (a, b, _conn) = pair().await;
    let mut stranger = tokio::net::TcpStream::connect(b.address()).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert is all that TLS says; a reset instead of an end is as good.
    drop(within("end", stranger.read_to_end(&mut answer)).await);
    assert!(
        answer.len() <= 7 && answer.first().is_none_or(|b| *b == 21),
        "{answer:?}"
    );
    let _silent = tokio::net::TcpStream::connect(b.address()).await.unwrap();
    within("dial", dial(&a.context, &b.name)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_no_marsd_is_an_error_not_a_hang() {
    let a = Node::new("a");
    let fake = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut entry = a.entry();
    entry.address = fake.local_addr().unwrap().to_string();
    a.directory.replace([(host("b"), entry)].into());
    let talking = tokio::spawn(async move {
        let (mut socket, _) = fake.accept().await.unwrap();
        socket.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        let mut rest = Vec::new();
        drop(socket.read_to_end(&mut rest).await);
    });
    let error = within("dial", dial(&a.context, &host("b")))
        .await
        .unwrap_err();
    assert!(matches!(error, NetError::Handshake { .. }), "{error:?}");
    within("the other end", talking).await.unwrap();
}

#[tokio::test]
async fn a_node_that_leaves_the_tree_loses_its_connections_on_both_sides() {
    let (a, b, conn) = pair().await;
    b.knows(&[]);
    let error = within("closed", conn.closed()).await;
    assert!(matches!(error, NetError::Closed { .. }), "{error:?}");

    b.knows(&[&a]);
    let conn = within("dial", dial(&a.context, &b.name)).await.unwrap();
    a.knows(&[]);
    let text = within("closed", conn.closed()).await.to_string();
    assert!(text.contains("ips/key-b"), "{text}");
    let text = within("open", conn.open(&sync()))
        .await
        .unwrap_err()
        .to_string();
    assert!(text.contains("ips/key-b"), "{text}");
}

#[tokio::test]
async fn a_listener_on_all_interfaces_is_reached_by_ipv4() {
    let (a, b) = (Node::new("a"), Node::new("b"));
    let service = Bench::new(&b.run_dir(), &b.tree());
    let listener = listen(&b.context, any_address(0), std::sync::Arc::new(service))
        .await
        .unwrap();
    b.knows(&[&a]);
    let mut entry = b.entry();
    entry.address = format!("127.0.0.1:{}", listener.local_addr().port());
    a.directory.replace([(b.name.clone(), entry)].into());
    within("dial", dial(&a.context, &b.name)).await.unwrap();
    let taken = listen(
        &a.context,
        listener.local_addr(),
        std::sync::Arc::new(Bench::new(&a.run_dir(), &a.tree())),
    );
    let error = taken.await.unwrap_err().to_string();
    assert!(
        error.contains("cannot listen on") && error.contains("in use"),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_lives_as_long_as_its_last_handle_or_stream() {
    let (_a, _b, conn) = pair().await;
    let mut stream = within("open", conn.open(&sync())).await.unwrap();
    let closed = conn.clone();
    drop(conn);
    let mut back = [0; 5];
    stream.write_all(b"\x01\0\0\0x").await.unwrap();
    within("echo", stream.read_exact(&mut back)).await.unwrap();
    drop(closed);
    stream.write_all(b"\x01\0\0\0x").await.unwrap();
    within("echo without a handle", stream.read_exact(&mut back))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_unused_connection_is_closed() {
    let (mut b, a) = (Node::new("b"), Node::new("a"));
    let (seen, mut ends) = tokio::sync::mpsc::unbounded_channel();
    b.serve(std::sync::Arc::new(Ends(seen))).await;
    a.knows(&[&b]);
    b.knows(&[&a]);
    let conn = within("dial", dial(&a.context, &b.name)).await.unwrap();
    let stream = within("open", conn.open(&sync())).await.unwrap();
    drop((conn, stream));
    within("end", ends.recv()).await.unwrap();
}

/// Tells when a stream that it serves has ended, by whatever means.
struct Ends(tokio::sync::mpsc::UnboundedSender<()>);

struct Told(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

impl Service for Ends {
    fn serve(
        &self,
        _peer: mars_core::HostName,
        _request: StreamRequest,
        stream: Incoming,
    ) -> ServeFuture {
        let told = Told(self.0.clone());
        Box::pin(async move {
            let _told = told;
            let _stream = stream.accept().await?;
            std::future::pending().await
        })
    }
}
