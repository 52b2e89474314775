//! `X-Forwarded-For`: who asked, through proxies that are trusted. Pure. It does not read `Forwarded` (RFC 7239),
//! `X-Real-IP` or anything else: one header, one answer. Writing headers is the business of `proxy`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use ipnet::IpNet;

use crate::connection::{ClientAddress, Remote};

/// The client of a request that arrived from `peer` ([`Connection::peer`](crate::Connection::peer)).
///
/// Starts at the peer and walks `X-Forwarded-For` from the right, all lines joined, only while the current hop is in
/// `trusted`; a Unix peer counts as trusted. The first hop that is not trusted is the client; an entry that is not an
/// address ends the walk at the hop before it, and so does the end of the list. Entries are `ip`, `ip:port`, `[v6]` or
/// `[v6]:port` with blanks around them. [`ClientAddress::UNKNOWN`] only for a Unix peer without a usable entry.
pub fn client_address(peer: Remote, trusted: &[IpNet], headers: &HeaderMap) -> ClientAddress {
    let mut client = match peer.ip() {
        Some(ip) if !contains(trusted, ip) => return ClientAddress::from(ip),
        Some(ip) => ClientAddress::from(ip),
        None => ClientAddress::UNKNOWN,
    };
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    for entry in lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b',')) {
        let Some(ip) = address(entry) else { return client };
        client = ClientAddress::from(ip);
        if !contains(trusted, ip) {
            return client;
        }
    }
    client
}

/// Whether one of the networks holds the address; an IPv4-mapped address is looked up as IPv4. No networks hold nobody.
pub fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// One entry of the list as an address; the port is checked and dropped.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            let ip = ip.parse::<Ipv6Addr>().ok()?;
            let port_is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            port_is_fine.then(|| IpAddr::from(ip).to_canonical())
        }
        None => {
            let (ip, port) = text.rsplit_once(':')?;
            let ip = ip.parse::<Ipv4Addr>().ok()?;
            is_port(port).then_some(IpAddr::from(ip))
        }
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests;
