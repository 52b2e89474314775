//! `/health`, `/ready` and `/metrics`, for people and programs of one's own: a listener apart, a few lines of HTTP/1,
//! one request per connection. Nothing here is meant for the public. In maintenance mode all is answered as ever: whoever asks
//! `/ready` would otherwise take us away from those who shall read the notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use accept::{ConnectionLimits, Expiries, Listener, Reloads, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::access_log::Logs;
use crate::maintenance::Maintenance;
use crate::metrics::{self, Counters};

/// What can be asked.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) counters: Vec<Arc<Counters>>,
    pub(crate) maintenance: Arc<Maintenance>,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) reloads: Arc<Reloads>,
    pub(crate) expiries: Expiries,
    pub(crate) stop: watch::Receiver<bool>,
    /// Another process goes on where this one stops.
    pub(crate) has_successor: Arc<AtomicBool>,
}

/// Answers on one socket until the future is dropped.
pub(crate) async fn serve(listener: Listener, admin: Arc<Admin>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = admin.clone();
                tokio::spawn(async move {
                    // Past the deadline the connection is simply closed.
                    let _ = timeout(DEADLINE, admin.one(stream)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the admin listener, trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Admin {
    async fn one(&self, mut stream: Stream) -> std::io::Result<()> {
        let mut head = Vec::with_capacity(1024);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if head.len() >= HEAD_BYTES || stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        stream.write_all(self.answer(&head).as_bytes()).await?;
        stream.shutdown().await
    }

    fn answer(&self, head: &[u8]) -> String {
        let line = head.split(|byte| *byte == b'\r').next().and_then(|line| str::from_utf8(line).ok());
        let mut words = line.unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method != "GET" && method != "HEAD" {
            return response("405 Method Not Allowed", "", method);
        }
        match target.split('?').next().unwrap_or_default() {
            "/health" => response("200 OK", "ok\n", method),
            "/ready" if *self.stop.borrow() && !self.has_successor.load(Ordering::Relaxed) => {
                response("503 Service Unavailable", "stopping\n", method)
            }
            "/ready" => response("200 OK", "ready\n", method),
            "/metrics" => response("200 OK", &self.metrics(), method),
            _ => response("404 Not Found", "", method),
        }
    }

    fn metrics(&self) -> String {
        let dropped = self.logs.dropped();
        let mut out = metrics::text(&self.counters, &self.limits, dropped, self.maintenance.is_on());
        self.reloads.write(&mut out);
        self.expiries.write(&mut out);
        accept::process::write(&mut out);
        out.into_text()
    }
}

fn response(status: &str, body: &str, method: &str) -> String {
    let length = body.len();
    let body = if method == "HEAD" { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

const CONNECTIONS: usize = 64;
const HEAD_BYTES: usize = 8 * 1024;
const DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let (sender, stop) = watch::channel(false);
        let limits = Arc::new(ConnectionLimits::new(1, 1));
        let admin = Admin {
            counters: vec![Arc::default()],
            maintenance: Arc::default(),
            limits,
            logs: Arc::default(),
            reloads: Arc::default(),
            expiries: Expiries::default(),
            stop,
            has_successor: Arc::default(),
        };
        let status = |line: &str| {
            let answer = admin.answer(format!("{line} HTTP/1.1\r\n\r\n").as_bytes());
            answer.split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!(status("GET /health"), "200");
        assert_eq!(status("GET /ready?x"), "200");
        assert_eq!(status("POST /ready"), "405");
        assert_eq!(status("GET /"), "404");
        assert_eq!(status(""), "405");
        sender.send(true).unwrap();
        assert_eq!(status("GET /ready"), "503");
        assert_eq!(status("GET /health"), "200");
        assert!(
            admin.answer(b"GET /metrics HTTP/1.1\r\n\r\n").contains("\ngatehouse_edge_connections_open 0\n")
        );
    }
}
