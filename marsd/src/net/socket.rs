//! TCP below everything else: connecting, listening, and the options that find dead peers and keep latency low.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, lookup_host};

use super::directory::Address;
use super::error::NetError;

const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// Longest time that the kernel is told to wait for an acknowledgement: its limit lies above.
const USER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Unsent bytes that the kernel may hold: what is queued there cannot be overtaken by a small message any more.
const NOT_SENT_MAX: u32 = 128 * 1024;

/// All interfaces, IPv6 and IPv4.
pub fn any_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

/// Connects to the first address of `target` that answers; see [`tune`].
pub(super) async fn connect(target: &Address, silence: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((target.host.as_str(), target.port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                tune(&stream, silence)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Binds `address`; where IPv6 does not exist, [`any_address`] falls back to IPv4.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, NetError> {
    let bound = match TcpListener::bind(address).await {
        Err(e) if address == any_address(address.port()) && is_no_ipv6(&e) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    };
    bound.map_err(|cause| NetError::Listen {
        address: address.to_string(),
        cause,
    })
}

fn is_no_ipv6(error: &io::Error) -> bool {
    let codes = [
        libc::EAFNOSUPPORT,
        libc::EADDRNOTAVAIL,
        libc::EPROTONOSUPPORT,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

/// Sets the options that every connection between nodes has. What is sent must be acknowledged within `silence`.
pub(super) fn tune(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(silence.min(USER_TIMEOUT_MAX)))?;
    socket.set_tcp_notsent_lowat(NOT_SENT_MAX)
}
