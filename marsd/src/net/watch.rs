//! The watch stream: announcements from the listening node, and heartbeats both ways that find a dead peer.

use std::time::Duration;

use mars_core::plan::LogOffer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use super::client::PeerConn;
use super::error::NetError;
use super::frame::{FrameError, read_json, write_json};
use super::mux::Stream;
use super::request::{Announce, AnnouncedLink, StreamRequest, is_tree_path};

/// Paths in one message: well below [`super::frame::JSON_MAX`], as are [`LOGS_MAX`] and [`LINKS_MAX`].
const PATHS_MAX: usize = 1024;
/// Links in one message.
const LINKS_MAX: usize = 256;
/// Logs of a resource in one message.
const LOGS_MAX: usize = 6000;

/// How often each side speaks, and how long the other may be silent.
#[derive(Clone, Copy)]
struct Pace {
    beat: Duration,
    silence: Duration,
}

impl Pace {
    const fn of(silence: Duration) -> Self {
        let beat = Duration::from_secs(5);
        Self { beat, silence }
    }
}

/// Opens the watch stream and puts what `conn`'s peer announces into `sink`, without heartbeats and without paths
/// that cannot be in a tree. Runs until the connection ends or `sink` is closed (then `Ok`). If the peer is silent
/// for longer than the context allows, the connection is closed.
///
/// # Errors
/// The stream is refused, the connection ends, or the peer speaks nonsense.
pub async fn watch_client(conn: &PeerConn, sink: mpsc::Sender<Announce>) -> Result<(), NetError> {
    let stream = conn.open(&StreamRequest::Watch).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (_silent, nothing) = mpsc::channel(1);
    let pace = Pace::of(conn.context().silence());
    let ended = tokio::select! {
        ended = receive(&mut reader, pace, Some(&sink)) => ended,
        ended = announce(&mut writer, pace, nothing) => ended,
        () = sink.closed() => Ok(()),
    };
    ended.map_err(|cause| {
        let error = NetError::Stream {
            operation: "cannot watch",
            peer: conn.peer().clone(),
            cause,
        };
        conn.close(&error.to_string());
        error
    })
}

/// Sends what comes out of `source` to the peer at the other end of a watch stream. Runs until the peer goes away or
/// `source` is closed (then `Ok`). If the peer is silent for as long as `silence`, the connection is closed. A slow peer slows this
/// down: fill `source` with `try_send`, and end it when it is full.
///
/// # Errors
/// The connection ends, or the peer speaks nonsense.
pub async fn watch_server(
    stream: Stream,
    source: mpsc::Receiver<Announce>,
    silence: Duration,
) -> Result<(), NetError> {
    let pace = Pace::of(silence);
    let handle = stream.handle();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = receive(&mut reader, pace, None) => ended,
        ended = announce(&mut writer, pace, source) => ended,
    };
    ended.map_err(|cause| {
        let error = NetError::Stream {
            operation: "cannot announce to",
            peer: handle.peer().clone(),
            cause,
        };
        handle.close(error.to_string());
        error
    })
}

/// Reads until the other side ends the stream; silence is an error.
async fn receive<R>(
    reader: &mut R,
    pace: Pace,
    sink: Option<&mpsc::Sender<Announce>>,
) -> Result<(), FrameError>
where
    R: AsyncRead + Unpin,
{
    loop {
        let message = match timeout(pace.silence, read_json(reader)).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Err(silent(pace)),
        };
        if let (Some(sink), Some(message)) = (sink, sensible(message))
            && sink.send(message).await.is_err()
        {
            return Ok(());
        }
    }
}

fn silent(pace: Pace) -> FrameError {
    let text = format!("no sign of life for {} s", pace.silence.as_secs());
    FrameError::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

fn sensible(message: Announce) -> Option<Announce> {
    match message {
        Announce::Heartbeat | Announce::Unknown => None,
        Announce::Changed { mut paths } => {
            let before = paths.len();
            paths.retain(|path| is_tree_path(path));
            if paths.len() < before {
                warn!(
                    "{} announced paths are not inside a tree and left out",
                    before - paths.len()
                );
            }
            (!paths.is_empty()).then_some(Announce::Changed { paths })
        }
        links @ Announce::Progress { .. } => Some(links),
        logs @ (Announce::Logs { .. } | Announce::MoreLogs { .. }) => Some(logs),
    }
}

/// Writes what comes out of `source`, and heartbeats; ends the stream when `source` ends.
async fn announce<W>(
    writer: &mut W,
    pace: Pace,
    mut source: mpsc::Receiver<Announce>,
) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin,
{
    let mut beat = interval(pace.beat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = source.recv() => message,
            _ = beat.tick() => Some(Announce::Heartbeat),
        };
        let Some(message) = message else {
            writer.shutdown().await?;
            return Ok(());
        };
        for part in split(message) {
            match timeout(pace.silence, write_json(writer, &part)).await {
                Ok(written) => written?,
                Err(_) => return Err(silent(pace)),
            }
        }
    }
}

/// Makes a long message fit into frames.
fn split(message: Announce) -> Vec<Announce> {
    match message {
        Announce::Changed { paths } if paths.len() > PATHS_MAX => {
            let part = |paths: &[String]| Announce::Changed {
                paths: paths.to_vec(),
            };
            paths.chunks(PATHS_MAX).map(part).collect()
        }
        Announce::Progress { links } if links.len() > LINKS_MAX => {
            let part = |links: &[AnnouncedLink]| Announce::Progress {
                links: links.to_vec(),
            };
            links.chunks(LINKS_MAX).map(part).collect()
        }
        Announce::Logs { resource, logs } if logs.len() > LOGS_MAX => {
            let part = |(n, logs): (usize, &[LogOffer])| {
                let (resource, logs) = (resource.clone(), logs.to_vec());
                match n {
                    0 => Announce::Logs { resource, logs },
                    _ => Announce::MoreLogs { resource, logs },
                }
            };
            logs.chunks(LOGS_MAX).enumerate().map(part).collect()
        }
        short => vec![short],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Pace = Pace {
        beat: Duration::from_millis(20),
        silence: Duration::from_millis(200),
    };

    #[tokio::test]
    async fn announcements_arrive_whole_and_in_order_without_heartbeats() {
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let (source, input) = mpsc::channel(4);
        let (sink, mut output) = mpsc::channel(4);
        let sender = tokio::spawn(async move { announce(&mut near, FAST, input).await });
        let receiver = tokio::spawn(async move { receive(&mut far, FAST, Some(&sink)).await });
        let mut paths: Vec<String> = (0..3000).map(|i| format!("resource-r/x{i}")).collect();
        let sent = Announce::Changed {
            paths: paths.clone(),
        };
        source.send(sent).await.unwrap();
        let bad = vec!["../etc/passwd".into(), "alive-a".into()];
        source.send(Announce::Changed { paths: bad }).await.unwrap();
        drop(source);
        sender.await.unwrap().unwrap();
        receiver.await.unwrap().unwrap();
        let mut got = Vec::new();
        while let Some(message) = output.recv().await {
            match message {
                Announce::Changed { paths } => got.extend(paths),
                other => panic!("{other:?}"),
            }
        }
        paths.push("alive-a".into());
        assert_eq!(got, paths);
    }

    #[tokio::test]
    async fn the_longest_messages_fit_into_frames() {
        let host = mars_core::HostName::new(&"h".repeat(64)).unwrap();
        let log = |seq| mars_core::plan::LogOffer {
            log: mars_core::LogName::new(seq, &host),
            durable: u64::MAX,
            complete: false,
        };
        let resource = mars_core::ResourceName::new(&"r".repeat(16)).unwrap();
        let logs = (1..=10_000).map(log).collect();
        let paths = vec!["p".repeat(512); 3000];
        let mut count = 0;
        let link = AnnouncedLink {
            path: "p".repeat(512),
            value: "v".repeat(mars_core::link::VALUE_MAX),
            stamp: mars_core::Stamp::new(i64::MAX, 999_999_999),
        };
        let links = vec![link; 3000];
        for message in [
            Announce::Logs { resource, logs },
            Announce::Changed { paths },
            Announce::Progress { links },
        ] {
            for part in split(message) {
                write_json(&mut tokio::io::sink(), &part).await.unwrap();
                if let Announce::Logs { logs, .. } | Announce::MoreLogs { logs, .. } = part {
                    count += logs.len();
                }
            }
        }
        assert_eq!(count, 10_000);
    }

    #[tokio::test]
    async fn heartbeats_keep_the_stream_alive_and_silence_ends_it() {
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let (_source, input) = mpsc::channel(1);
        let sender = tokio::spawn(async move { announce(&mut near, FAST, input).await });
        let listening = receive(&mut far, FAST, None);
        let alive = timeout(FAST.silence * 4, listening).await;
        assert!(alive.is_err(), "ended in spite of heartbeats: {alive:?}");
        sender.abort();
        let (_mute, mut far) = tokio::io::duplex(64);
        let error = receive(&mut far, FAST, None).await.unwrap_err();
        assert!(error.to_string().contains("no sign of life"), "{error}");
    }
}
