//! `GET /metrics`: connections, requests and the outbox, then what the service itself counts (`metrics.rs`), in the text format of
//! Prometheus. Names begin with `gatehouse_auth_`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use accept::ConnectionLimits;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use crate::state::SharedState;
use crate::storage::outbox;

/// A database that takes longer is left out.
const DEADLINE: Duration = Duration::from_secs(2);

/// Connections and requests, of all listeners together.
#[derive(Debug)]
pub struct Traffic {
    /// Answers by the first digit of their status, 1 to 5.
    answers: [AtomicU64; 5],
    limits: Arc<ConnectionLimits>,
}

impl Traffic {
    /// Nothing counted yet; `limits` knows the open connections.
    pub fn new(limits: Arc<ConnectionLimits>) -> Self {
        Self { answers: Default::default(), limits }
    }

    /// Counts an answer.
    pub fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.answers[class - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// The answer to `GET /metrics`.
    pub async fn answer(&self, state: &SharedState) -> Response {
        let waiting = async { outbox::count(&mut *state.storage.read().await?).await };
        let waiting = tokio::time::timeout(DEADLINE, waiting).await;
        let waiting = waiting.ok().and_then(Result::ok);
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            self.text(waiting) + &state.metrics.render(),
        )
            .into_response()
    }

    fn text(&self, waiting: Option<u64>) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP gatehouse_auth_requests_total Requests answered, by class of status.");
        let _ = writeln!(text, "# TYPE gatehouse_auth_requests_total counter");
        for (class, answers) in (1..).zip(&self.answers) {
            let answers = answers.load(Ordering::Relaxed);
            let _ = writeln!(text, "gatehouse_auth_requests_total{{status=\"{class}xx\"}} {answers}");
        }
        let _ = writeln!(text, "# HELP gatehouse_auth_connections Open connections.");
        let _ = writeln!(text, "# TYPE gatehouse_auth_connections gauge");
        let connections = self.limits.counts();
        let _ = writeln!(text, "gatehouse_auth_connections {}", connections.open);
        let name = "gatehouse_auth_connections_refused_total";
        let _ = writeln!(text, "# HELP {name} Connections closed for their PROXY header or TLS handshake.");
        let _ = writeln!(text, "# TYPE {name} counter");
        for (reason, count) in accept::REFUSAL_REASONS.iter().zip(connections.refused) {
            let _ = writeln!(text, "{name}{{reason=\"{reason}\"}} {count}");
        }
        if let Some(waiting) = waiting {
            let _ = writeln!(text, "# HELP gatehouse_auth_outbox_jobs What Synapse has not heard yet.");
            let _ = writeln!(text, "# TYPE gatehouse_auth_outbox_jobs gauge");
            let _ = writeln!(text, "gatehouse_auth_outbox_jobs {waiting}");
        }
        text
    }
}
