//! Connects to an upstream that wants a PROXY header, and writes the header before anything else, TLS included.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// A way to connect that begins with a PROXY header, made when it is needed.
pub(crate) fn introducing(
    header: impl Fn() -> Vec<u8> + Send + Sync + 'static,
    deadline: Duration,
) -> Arc<dyn Connect + Send + Sync> {
    Arc::new(Introducing { header, deadline })
}

struct Introducing<F> {
    header: F,
    deadline: Duration,
}

impl<F> fmt::Debug for Introducing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introducing").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[async_trait]
impl<F: Fn() -> Vec<u8> + Send + Sync> Connect for Introducing<F> {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        match timeout(self.deadline, self.dial(address)).await {
            Ok(dialled) => dialled,
            Err(_) => Error::e_explain(ErrorType::ConnectTimedout, "connecting with a PROXY header"),
        }
    }
}

impl<F: Fn() -> Vec<u8> + Send + Sync> Introducing<F> {
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
        stream.write_all(&(self.header)()).await.map_err(|error| connect_error(&error))
    }
}

fn connect_error(error: &std::io::Error) -> Box<Error> {
    let kind = match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => ErrorType::ConnectRefused,
        _ => ErrorType::ConnectError,
    };
    Error::explain(kind, error.to_string())
}
