//! One connection of HTTP/1.1 without blocking, strict about every byte that comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::configurations::Configuration;

/// For an answer, unless it is meant to take long.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Server name of all requests over TLS.
pub(super) const NAME: &str = "storm.example.com";

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Where to connect to.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

/// An open connection.
pub(super) struct Connection {
    stream: Box<dyn Duplex>,
    read: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// Not a byte of one came.
    Unanswered(String),
    /// It began.
    Broken(String),
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    /// In lower case.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Server {
    pub(super) async fn connect(&self) -> Result<Connection, Fault> {
        let stream = timeout(PATIENCE, self.stream()).await;
        let stream = stream.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream = stream.map_err(|error| Fault::Broken(format!("connecting: {error}")))?;
        Ok(Connection { stream, read: Vec::new() })
    }

    pub(super) async fn stream(&self) -> std::io::Result<Box<dyn Duplex>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => {
                let name = ServerName::try_from(NAME).unwrap();
                Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?))
            }
        }
    }
}

impl Connection {
    /// Sends a request and reads its answer.
    pub(super) async fn exchange(&mut self, request: &[u8], patience: Duration) -> Result<Answer, Fault> {
        match timeout(patience, self.send_and_receive(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::Broken(format!("no answer after {patience:?}"))),
        }
    }

    /// Whether the server has closed while nothing was asked of it.
    pub(super) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        // Pending: it is open. A byte would be an answer that nobody asked for.
        timeout(Duration::ZERO, self.stream.read(&mut byte)).await.is_ok()
    }

    /// Sends bytes of another protocol than HTTP.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next `length` bytes.
    pub(super) async fn receive(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        while self.read.len() < length {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.read.drain(..length).collect())
    }

    async fn send_and_receive(&mut self, request: &[u8]) -> Result<Answer, Fault> {
        let unanswered = |error| Fault::Unanswered(format!("{error}"));
        self.send(request).await.map_err(unanswered)?;
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(1..) => {}
                Ok(0) if self.read.is_empty() => return Err(Fault::Unanswered("closed".to_owned())),
                Err(error) if self.read.is_empty() => return Err(unanswered(error)),
                Ok(0) => return Err(Fault::Broken("closed within the head".to_owned())),
                Err(error) => return Err(Fault::Broken(format!("within the head: {error}"))),
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
        self.read.drain(..end + 4);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| Fault::Broken(format!("no status: {head}")))?;
        if status == 101 {
            return Ok(Answer { status, head, body: Vec::new() });
        }
        // All answers here have one.
        let length = header(&head, "content-length").and_then(|length| length.parse().ok());
        let length: usize = length.ok_or_else(|| Fault::Broken(format!("no length: {head}")))?;
        while self.read.len() < length {
            match self.stream.read_buf(&mut self.read).await {
                Ok(1..) => {}
                Ok(0) => return Err(Fault::Broken(format!("{} of {length} bytes", self.read.len()))),
                Err(error) => {
                    return Err(Fault::Broken(format!("{} of {length} bytes: {error}", self.read.len())));
                }
            }
        }
        if self.read.len() > length {
            return Err(Fault::Broken("more than one answer".to_owned()));
        }
        Ok(Answer { status, head, body: std::mem::take(&mut self.read) })
    }
}

impl Answer {
    /// Whether the connection ends after it.
    pub(super) fn is_last(&self) -> bool {
        header(&self.head, "connection").is_some_and(|value| value.contains("close"))
    }

    /// Whether it is what was asked for; the configuration that answered, if it tells.
    pub(super) fn judge(&self, asked: &Asked) -> Result<Option<Configuration>, String> {
        judge(asked, self.status, header(&self.head, "x-configuration"), &self.body)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.trim())
}

/// What can be asked.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    /// What the configuration answers by itself.
    Which,
    /// The upstream of the configuration, with a body of this many bytes.
    Up(usize),
    /// A quarter of a MiB from the upstream.
    Large,
    /// An answer after a while.
    Poll(Duration),
}

/// Bytes of [`Asked::Large`].
pub(super) const LARGE: usize = 1 << 18;

impl Asked {
    pub(super) fn target(&self, number: u64) -> String {
        match self {
            Self::Which => format!("/which?n={number}"),
            Self::Up(_) => format!("/up?n={number}"),
            Self::Large => format!("/large?n={number}"),
            Self::Poll(time) => format!("/poll?ms={}&n={number}", time.as_millis()),
        }
    }

    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Up(1..) => "POST",
            _ => "GET",
        }
    }

    pub(super) fn body(&self) -> Vec<u8> {
        match self {
            Self::Up(length) => vec![b'u'; *length],
            _ => Vec::new(),
        }
    }

    /// How long its answer may take.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Poll(time) => PATIENCE + *time,
            _ => PATIENCE,
        }
    }

    /// As HTTP/1.1.
    pub(super) fn request(&self, number: u64) -> Vec<u8> {
        let body = self.body();
        let mut request = format!("{} {} HTTP/1.1\r\nHost: {NAME}\r\n", self.method(), self.target(number));
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        [request.into_bytes(), body].concat()
    }
}

/// Whether this answer is whole, right, and of one configuration.
pub(super) fn judge(
    asked: &Asked,
    status: u16,
    header: Option<&str>,
    body: &[u8],
) -> Result<Option<Configuration>, String> {
    if status != 200 {
        return Err(format!("status {status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])));
    }
    match asked {
        Asked::Which => {
            let by = header.and_then(|name| Configuration::named(&name.to_ascii_uppercase()));
            let by = by.ok_or_else(|| format!("of configuration {header:?}"))?;
            if body != by.body().as_bytes() {
                let seen = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
                return Err(format!("field of {by}, body {seen}… of {} bytes", body.len()));
            }
            Ok(Some(by))
        }
        Asked::Up(length) => {
            let answer: serde_json::Value =
                serde_json::from_slice(body).map_err(|error| format!("{error}: {body:?}"))?;
            let by = answer["upstream"].as_str().and_then(Configuration::named);
            let by = by.ok_or_else(|| format!("of no upstream: {answer}"))?;
            if answer["path"] != format!("/up/{by}") {
                return Err(format!("route and upstream are of two configurations: {answer}"));
            }
            if answer["received"] != *length {
                return Err(format!("{length} bytes were sent: {answer}"));
            }
            Ok(Some(by))
        }
        Asked::Large if body.len() == LARGE && body.iter().all(|byte| *byte == b'x') => Ok(None),
        Asked::Large => Err(format!("{} bytes of {LARGE}", body.len())),
        Asked::Poll(_) if body == b"{\"late\":true}" => Ok(None),
        Asked::Poll(_) => Err(format!("{body:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_two_configurations_are_found() {
        let (a, b) = (Configuration::A.body(), Configuration::B.body());
        assert_eq!(judge(&Asked::Which, 200, Some("a"), a.as_bytes()), Ok(Some(Configuration::A)));
        assert!(judge(&Asked::Which, 200, Some("a"), b.as_bytes()).is_err());
        assert!(judge(&Asked::Which, 200, Some("a"), &a.as_bytes()[1..]).is_err());
        assert!(judge(&Asked::Which, 404, Some("a"), a.as_bytes()).is_err());
        let up = |upstream, path| format!(r#"{{"upstream":"{upstream}","path":"{path}","received":7}}"#);
        assert_eq!(judge(&Asked::Up(7), 200, None, up("B", "/up/B").as_bytes()), Ok(Some(Configuration::B)));
        assert!(judge(&Asked::Up(7), 200, None, up("B", "/up/A").as_bytes()).is_err());
        assert!(judge(&Asked::Up(8), 200, None, up("B", "/up/B").as_bytes()).is_err());
    }
}
