//! Counters of the edge, and their text for Prometheus. Every worker counts on its own cache lines; they are added up
//! when somebody asks.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use accept::limits::Counts;

/// Counters of one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    connections: AtomicU64,
    refused_heads: AtomicU64,
    /// By the hundreds of the status; 0 for requests without an answer.
    requests: [AtomicU64; 6],
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    request_microseconds: AtomicU64,
    upstream_errors: AtomicU64,
}

impl Counters {
    /// A connection was handed to the HTTP engine.
    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A head was refused before it was a request.
    pub(crate) fn refused_head(&self) {
        self.refused_heads.fetch_add(1, Ordering::Relaxed);
    }

    /// A try to get an answer from an upstream failed.
    pub(crate) fn upstream_error(&self) {
        self.upstream_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A request ended, with these numbers of body bytes.
    pub(crate) fn request(&self, status: u16, bytes_in: usize, bytes_out: usize, microseconds: u64) {
        if let Some(count) = self.requests.get(usize::from(status / 100)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.request_bytes.fetch_add(bytes_in as u64, Ordering::Relaxed);
        self.response_bytes.fetch_add(bytes_out as u64, Ordering::Relaxed);
        self.request_microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }
}

/// Prometheus's text format, version 0.0.4.
pub(crate) fn text(
    workers: &[Arc<Counters>],
    connections: Counts,
    dropped_lines: u64,
    is_maintenance: bool,
) -> String {
    let sum = |counter: fn(&Counters) -> &AtomicU64| -> u64 {
        workers.iter().map(|worker| counter(worker).load(Ordering::Relaxed)).sum()
    };
    let mut out = String::with_capacity(4096);
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    metric("gatehouse_edge_connections_open", "gauge", "Open connections.", connections.open as u64);
    metric(
        "gatehouse_edge_connections_accepted_total",
        "counter",
        "Connections accepted.",
        connections.admitted,
    );
    metric(
        "gatehouse_edge_connections_over_limit_total",
        "counter",
        "Connections closed because there were too many.",
        connections.over_limit,
    );
    metric(
        "gatehouse_edge_connections_total",
        "counter",
        "Connections that came to HTTP.",
        sum(|w| &w.connections),
    );
    metric(
        "gatehouse_edge_refused_heads_total",
        "counter",
        "Heads refused before they were requests.",
        sum(|w| &w.refused_heads),
    );
    metric(
        "gatehouse_edge_request_bytes_total",
        "counter",
        "Bytes of request bodies.",
        sum(|w| &w.request_bytes),
    );
    metric(
        "gatehouse_edge_response_bytes_total",
        "counter",
        "Bytes of response bodies.",
        sum(|w| &w.response_bytes),
    );
    metric(
        "gatehouse_edge_upstream_errors_total",
        "counter",
        "Failed tries to get an answer from an upstream.",
        sum(|w| &w.upstream_errors),
    );
    metric(
        "gatehouse_edge_access_log_dropped_total",
        "counter",
        "Lines of the access log that found no room.",
        dropped_lines,
    );
    metric(
        "gatehouse_edge_maintenance",
        "gauge",
        "1 while maintenance mode is on, else 0.",
        u64::from(is_maintenance),
    );
    let name = "gatehouse_edge_connections_refused_total";
    let _ = writeln!(
        out,
        "# HELP {name} Connections closed for their PROXY header or TLS handshake.\n# TYPE {name} counter"
    );
    for (reason, count) in accept::REFUSAL_REASONS.iter().zip(connections.refused) {
        let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {count}");
    }
    let name = "gatehouse_edge_requests_total";
    let _ = writeln!(
        out,
        "# HELP {name} Requests by class of status; none: the client left.\n# TYPE {name} counter"
    );
    for (class, label) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().enumerate() {
        let of_class =
            |worker: &Counters| worker.requests.get(class).map_or(0, |count| count.load(Ordering::Relaxed));
        let _ = writeln!(
            out,
            "{name}{{status=\"{label}\"}} {}",
            workers.iter().map(|worker| of_class(worker)).sum::<u64>()
        );
    }
    let microseconds = sum(|worker| &worker.request_microseconds);
    let name = "gatehouse_edge_request_seconds_total";
    let _ = writeln!(
        out,
        "# HELP {name} Time from a request's head to the end of its answer.\n# TYPE {name} counter"
    );
    let _ = writeln!(out, "{name} {}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_added_up() {
        let workers = [Arc::new(Counters::default()), Arc::default()];
        workers[0].request(200, 1, 2, 1_500_000);
        workers[1].request(204, 1, 2, 1);
        workers[1].request(0, 0, 0, 0);
        let refused = std::array::from_fn(|index| index as u64);
        let text = text(&workers, Counts { open: 3, refused, ..Counts::default() }, 4, true);
        for line in [
            "gatehouse_edge_connections_open 3",
            "gatehouse_edge_connections_refused_total{reason=\"proxy_missing\"} 1",
            "gatehouse_edge_connections_refused_total{reason=\"tls_deadline\"} 9",
            "gatehouse_edge_requests_total{status=\"2xx\"} 2",
            "gatehouse_edge_requests_total{status=\"none\"} 1",
            "gatehouse_edge_request_bytes_total 2",
            "gatehouse_edge_request_seconds_total 1.500001",
            "gatehouse_edge_access_log_dropped_total 4",
            "gatehouse_edge_maintenance 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
