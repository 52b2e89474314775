//! `GET /metrics`: connections, requests and the outbox, then what the service itself counts (`metrics.rs`), in the text format of
//! Prometheus. Names begin with `gatehouse_auth_`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use accept::{ConnectionLimits, Expiries, Exposition, Reloads};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use crate::limit::{Limit, LimitHits};
use crate::metrics::Metrics;
use crate::state::SharedState;
use crate::storage::outbox;

/// A database that takes longer is left out.
const DEADLINE: Duration = Duration::from_secs(2);

/// Connections and requests, of all listeners together, the certificates that they show, and reloads.
#[derive(Debug)]
pub struct Traffic {
    /// Answers by the first digit of their status, 1 to 5.
    answers: [AtomicU64; 5],
    connections: Arc<ConnectionLimits>,
    /// Limits that have bitten.
    pub limits: Arc<LimitHits>,
    pub(crate) expiries: Expiries,
    pub(crate) reloads: Reloads,
}

impl Traffic {
    /// Nothing counted yet; `connections` knows the open connections.
    pub fn new(connections: Arc<ConnectionLimits>) -> Self {
        Self {
            answers: Default::default(),
            connections,
            limits: Arc::default(),
            expiries: Expiries::default(),
            reloads: Reloads::default(),
        }
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
            self.text(&state.metrics, waiting),
        )
            .into_response()
    }

    fn text(&self, metrics: &Metrics, waiting: Option<u64>) -> String {
        let mut out = Exposition::new("gatehouse_auth_");
        self.connections.write(&mut out);
        out.gauge("connections", "Open connections.", self.connections.open());
        out.counters("requests_total", "Requests answered, by class of status.", |family| {
            for (class, answers) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(&self.answers) {
                family.sample(&[("status", class)], answers.load(Ordering::Relaxed));
            }
        });
        let connections = self.connections.counts();
        out.counters("limit_hits_total", "Limits and deadlines that clients came up against.", |family| {
            for limit in Limit::ALL {
                // Before HTTP they are counted where connections are.
                let before_http = match limit {
                    Limit::ProxyHeader => connections.refused_for("proxy_deadline"),
                    Limit::Handshake => connections.refused_for("tls_deadline"),
                    Limit::MaxConnections => connections.over_total,
                    Limit::MaxConnectionsPerIp => connections.over_per_address,
                    Limit::Drain => connections.cut_off,
                    _ => 0,
                };
                family.sample(&[("limit", limit.key())], before_http + self.limits.total(*limit));
            }
        });
        if let Some(waiting) = waiting {
            out.gauge("outbox_jobs", "What Synapse has not heard yet.", waiting);
        }
        metrics.write(&mut out);
        self.reloads.write(&mut out);
        self.expiries.write(&mut out);
        accept::process::write(&mut out);
        out.into_text()
    }
}
