//! Counters of the edge, and their text for Prometheus. Every worker counts on its own cache lines; they are added up
//! when somebody asks.

mod ended;
mod limit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use accept::{ConnectionLimits, Counts, Exposition};

use crate::error::Fault;
use crate::listener::{Grown, Waiting};
pub(crate) use ended::Ended;
pub(crate) use limit::Limit;

/// Makes the counters that are one number each: the field, and its name and description on `/metrics`.
macro_rules! counters {
    ($($field:ident: $name:literal, $help:literal;)+) => {
        /// Counters of one worker.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct Counters {
            $($field: AtomicU64,)+
            /// By the hundreds of the status; 0 for requests without an answer.
            requests: [AtomicU64; 6],
            request_microseconds: AtomicU64,
            /// What HTTP/2 clients do not take.
            waiting: Waiting,
            /// What the windows of HTTP/2 clients have grown by.
            grown: Grown,
            /// In the order of [`Limit::ALL`].
            limits: [AtomicU64; Limit::COUNT],
        }

        fn write_counters(out: &mut Exposition, workers: &[Arc<Counters>]) {
            $(out.counter($name, $help, sum(workers, |worker| &worker.$field));)+
        }
    };
}

counters! {
    connections: "connections_total", "Connections that came to HTTP.";
    refused_heads: "refused_heads_total", "Heads refused before they were requests.";
    request_bytes: "request_bytes_total", "Bytes of request bodies.";
    response_bytes: "response_bytes_total", "Bytes of response bodies.";
    upstream_errors: "upstream_errors_total", "Failed tries to get an answer from an upstream.";
}

impl Counters {
    /// A connection was handed to the HTTP engine.
    pub(crate) fn connection(&self) {
        one_more(&self.connections);
    }

    /// What HTTP/2 clients do not take.
    pub(crate) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// What the windows of HTTP/2 clients have grown by.
    pub(crate) fn grown(&self) -> &Grown {
        &self.grown
    }

    /// A head was refused before it was a request.
    pub(crate) fn refused_head(&self) {
        one_more(&self.refused_heads);
    }

    /// A try to get an answer from an upstream failed.
    pub(crate) fn upstream_error(&self) {
        one_more(&self.upstream_errors);
    }

    /// A limit or a deadline was reached, once per request or connection that it ended.
    pub(crate) fn limit_hit(&self, limit: Limit) {
        if let Some(count) = self.limits.get(limit as usize) {
            one_more(count);
        }
    }

    /// A request ended for this fault; when that is a limit, it was hit. Tries to connect count one by one, where they fail.
    pub(crate) fn fault(&self, fault: Fault) {
        if let Some(limit) = fault.limit().filter(|limit| *limit != Limit::Connect) {
            self.limit_hit(limit);
        }
    }

    /// A request ended, with these numbers of body bytes.
    pub(crate) fn request(&self, status: u16, bytes_in: usize, bytes_out: usize, microseconds: u64) {
        if let Some(count) = self.requests.get(usize::from(status / 100)) {
            one_more(count);
        }
        self.request_bytes.fetch_add(bytes_in as u64, Ordering::Relaxed);
        self.response_bytes.fetch_add(bytes_out as u64, Ordering::Relaxed);
        self.request_microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }
}

/// Everything that is known, in Prometheus's text format.
pub(crate) fn text(
    workers: &[Arc<Counters>],
    connections: &ConnectionLimits,
    dropped_lines: u64,
    is_maintenance: bool,
) -> Exposition {
    let mut out = Exposition::new("gatehouse_edge_");
    connections.write(&mut out);
    let counts = connections.counts();
    write_counters(&mut out, workers);
    out.counters("limit_hits_total", "Limits and deadlines reached, by the key that sets them.", |family| {
        for limit in Limit::ALL {
            let hits = sum_at(workers, |worker| worker.limits.get(*limit as usize));
            family.sample(&[("limit", limit.key())], hits + before_http(*limit, &counts));
        }
    });
    out.counters("requests_total", "Requests by class of status; none: the client left.", |family| {
        for (class, label) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().enumerate() {
            family.sample(&[("status", label)], sum_at(workers, |worker| worker.requests.get(class)));
        }
    });
    let microseconds = sum(workers, |worker| &worker.request_microseconds);
    out.counter(
        "request_seconds_total",
        "Time from a request's head to the end of its answer.",
        format_args!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000),
    );
    out.counter("access_log_dropped_total", "Lines of the access log that found no room.", dropped_lines);
    out.gauge(
        "buffered_bytes",
        "Bytes of answers that wait for HTTP/2 clients to take them.",
        workers.iter().map(|worker| worker.waiting.bytes()).sum::<u64>(),
    );
    out.gauge("maintenance", "1 while maintenance mode is on, else 0.", u8::from(is_maintenance));
    out
}

/// Hits that are counted where connections are accepted.
fn before_http(limit: Limit, counts: &Counts) -> u64 {
    match limit {
        Limit::MaxConnections => counts.over_total,
        Limit::MaxConnectionsPerIp => counts.over_per_address,
        Limit::ProxyHeader => counts.refused_for("proxy_deadline"),
        Limit::MaxProxyHeaderSize => counts.refused_for("proxy_too_long"),
        Limit::Handshake => counts.refused_for("tls_deadline"),
        Limit::Drain => counts.cut_off,
        _ => 0,
    }
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn sum(workers: &[Arc<Counters>], counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
    sum_at(workers, |worker| Some(counter(worker)))
}

fn sum_at(workers: &[Arc<Counters>], counter: impl Fn(&Counters) -> Option<&AtomicU64>) -> u64 {
    workers.iter().filter_map(|worker| counter(worker)).map(|counter| counter.load(Ordering::Relaxed)).sum()
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
        workers[0].limit_hit(Limit::Header);
        workers[1].limit_hit(Limit::Header);
        let connections = ConnectionLimits::new(1, 0);
        let mut open = connections.admit(&"https".into()).unwrap();
        connections.admit(&"http".into()).unwrap_err();
        open.claim_address([192, 0, 2, 1].into()).unwrap_err();
        let text = text(&workers, &connections, 4, true).into_text();
        for line in [
            "gatehouse_edge_connections_open 1",
            "gatehouse_edge_connections_over_limit_total 2",
            "gatehouse_edge_connections_refused_total{reason=\"proxy_missing\"} 0",
            "gatehouse_edge_listener_connections_open{listener=\"https\"} 1",
            "gatehouse_edge_listener_connections_over_limit_total{listener=\"http\",limit=\"max_connections\"} 1",
            "gatehouse_edge_limit_hits_total{limit=\"limits.max_connections\"} 1",
            "gatehouse_edge_limit_hits_total{limit=\"limits.max_connections_per_ip\"} 1",
            "gatehouse_edge_limit_hits_total{limit=\"timeouts.header\"} 2",
            "gatehouse_edge_limit_hits_total{limit=\"timeouts.idle\"} 0",
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
