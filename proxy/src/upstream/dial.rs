//! Connects to an upstream that wants a PROXY header, and writes the header before anything else, TLS included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr as InetAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use conf::ProxyVersion;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// A way to connect that begins with a PROXY header for the client at `source`, who connected to `destination`.
/// Without a source the header says that nobody knows.
pub(crate) fn introduction(
    version: ProxyVersion,
    source: Option<InetAddr>,
    destination: Option<InetAddr>,
    deadline: Duration,
) -> Arc<dyn Connect + Send + Sync> {
    let (source, destination) = match source {
        None => (None, None),
        Some(source) => {
            let (source, destination) = of_one_family(source, destination);
            (Some(source), Some(destination))
        }
    };
    Arc::new(Introduction { header: accept::proxy_protocol::write(version, source, destination), deadline })
}

#[derive(Debug)]
struct Introduction {
    header: Vec<u8>,
    deadline: Duration,
}

#[async_trait]
impl Connect for Introduction {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        match timeout(self.deadline, self.dial(address)).await {
            Ok(dialled) => dialled,
            Err(_) => Error::e_explain(ErrorType::ConnectTimedout, "connecting with a PROXY header"),
        }
    }
}

impl Introduction {
    async fn dial(&self, address: &SocketAddr) -> Result<Stream> {
        match address {
            SocketAddr::Inet(address) => {
                let mut stream = TcpStream::connect(address).await.map_err(|error| connect_error(&error))?;
                self.introduce(&mut stream).await?;
                Ok(stream.into())
            }
            SocketAddr::Unix(address) => {
                let Some(path) = address.as_pathname() else {
                    return Error::e_explain(ErrorType::InternalError, "Unix socket without a path");
                };
                let mut stream = UnixStream::connect(path).await.map_err(|error| connect_error(&error))?;
                self.introduce(&mut stream).await?;
                Ok(stream.into())
            }
        }
    }

    async fn introduce(&self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        stream.write_all(&self.header).await.map_err(|error| connect_error(&error))
    }
}

fn connect_error(error: &std::io::Error) -> Box<Error> {
    let kind = match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => ErrorType::ConnectRefused,
        _ => ErrorType::ConnectError,
    };
    Error::explain(kind, error.to_string())
}

/// The header has one address family; an IPv4 address beside an IPv6 one is written as IPv4-mapped. An unknown
/// destination is the unspecified address.
fn of_one_family(source: InetAddr, destination: Option<InetAddr>) -> (InetAddr, InetAddr) {
    let source = InetAddr::new(source.ip().to_canonical(), source.port());
    let unspecified = match source {
        InetAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        InetAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let destination = destination.unwrap_or(InetAddr::new(unspecified, 0));
    let destination = InetAddr::new(destination.ip().to_canonical(), destination.port());
    if source.is_ipv4() == destination.is_ipv4() {
        (source, destination)
    } else {
        (mapped(source), mapped(destination))
    }
}

fn mapped(address: InetAddr) -> InetAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    InetAddr::new(ip.into(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, destination: Option<&str>, expected: (&str, &str)) {
        let address = |text: &str| text.parse().unwrap();
        let found = of_one_family(address(source), destination.map(address));
        assert_eq!((found.0.to_string().as_str(), found.1.to_string().as_str()), expected);
    }

    #[test]
    fn both_addresses_are_of_one_family() {
        check("192.0.2.1:1", Some("192.0.2.2:2"), ("192.0.2.1:1", "192.0.2.2:2"));
        check("[::ffff:192.0.2.1]:1", Some("192.0.2.2:2"), ("192.0.2.1:1", "192.0.2.2:2"));
        check("[2001:db8::1]:1", Some("192.0.2.2:2"), ("[2001:db8::1]:1", "[::ffff:192.0.2.2]:2"));
        check("192.0.2.1:1", Some("[2001:db8::2]:2"), ("[::ffff:192.0.2.1]:1", "[2001:db8::2]:2"));
        check("192.0.2.1:0", None, ("192.0.2.1:0", "0.0.0.0:0"));
        check("[2001:db8::1]:0", None, ("[2001:db8::1]:0", "[::]:0"));
    }
}
