//! The address under which the peers reach this node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrLike;

use crate::error::{AdmError, Result};
use crate::exit::Exit;

const PORT: u16 = 7777;
// Addresses reserved for documentation: nobody has them, so they stand for "the outside".
const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Reads `--ip`: an address, with a port or without, or a host name.
pub(crate) fn parse(text: &str) -> Result<String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(format_ip(ip));
    }
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(text.into());
    }
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Some(Ok(ip)) = inner.map(str::parse::<Ipv6Addr>) {
        return Ok(format_ip(ip.into()));
    }
    let (name, port) = text.split_once(':').unwrap_or((text, "7777"));
    let good = mars_core::HostName::new(name).is_ok() && port.parse::<u16>().is_ok_and(|p| p > 0);
    if good && !name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Ok(text.into());
    }
    Err(
        AdmError::new(Exit::Usage, format!("'{text}' is no address"))
            .remedy("give ADDRESS, ADDRESS:PORT, [V6ADDRESS]:PORT or a host name"),
    )
}

/// The value of an `ip-` link: the port is left out where that is unambiguous.
pub(crate) fn format_ip(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]:{PORT}"),
    }
}

/// The source address of the route to the outside; without such a route the only address there is.
pub(crate) fn of_route_out() -> Result<String> {
    if let Some(ip) = OUTSIDE.into_iter().find_map(source_for) {
        return Ok(format_ip(ip));
    }
    let all = own_addresses();
    match &all[..] {
        [one] => Ok(format_ip(*one)),
        _ => {
            let names: Vec<String> = all.into_iter().map(format_ip).collect();
            let found = if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            };
            Err(AdmError::refused(format!(
                "cannot determine my IP address: there is no route to the outside, addresses of this node: {found}"
            ))
            .remedy("give the address under which the other nodes reach this one: --ip ADDRESS"))
        }
    }
}

/// The address from which packets to `to` would go out. Nothing is sent.
fn source_for(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, PORT)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    is_usable(ip).then_some(ip)
}

fn is_usable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !link_local
}

fn own_addresses() -> Vec<IpAddr> {
    let Ok(list) = getifaddrs() else {
        return Vec::new();
    };
    list.filter_map(|interface| interface.address)
        .filter(|address| address.family().is_some())
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .filter(|ip| is_usable(*ip))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_normalised_and_nonsense_is_refused() {
        for (text, value) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:7000", "10.0.0.1:7000"),
            ("fd00::1", "[fd00::1]:7777"),
            ("[fd00::1]", "[fd00::1]:7777"),
            ("[fd00::1]:80", "[fd00::1]:80"),
            ("node-1.example.org", "node-1.example.org"),
            ("node-1:7778", "node-1:7778"),
        ] {
            assert_eq!(parse(text).unwrap(), value);
        }
        for bad in [
            "",
            "10.0.0",
            "10.0.0.1.5",
            "a b",
            "x:0",
            "x:99999",
            "[1.2.3.4]",
            "/etc",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
