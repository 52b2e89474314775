//! What has happened since the start, in numbers, in the text form that Prometheus reads.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::cleanup::Expired;

/// Counters; each only grows.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Logins that succeeded.
    pub logins: Counter,
    /// Logins with wrong credentials, or of locked accounts.
    pub logins_refused: Counter,
    /// Logins that were told to come again later.
    pub logins_limited: Counter,
    /// Logins that failed through no fault of the client.
    pub logins_failed: Counter,
    /// Refresh tokens exchanged.
    pub refreshes: Counter,
    /// Refresh tokens refused.
    pub refreshes_refused: Counter,
    /// Sessions ended by their clients.
    pub logouts: Counter,
    /// Introspected tokens that were good.
    pub introspections_active: Counter,
    /// Introspected tokens that were not.
    pub introspections_inactive: Counter,
    /// Rows deleted, in the order of [`Expired::ALL`].
    pub expired: [Counter; Expired::ALL.len()],
}

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// All of them as text (Prometheus exposition format 0.0.4).
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(2048);
        family(
            &mut text,
            "gatehouse_auth_logins_total",
            "compat logins by result",
            "result",
            &[
                ("ok", &self.logins),
                ("refused", &self.logins_refused),
                ("limited", &self.logins_limited),
                ("failed", &self.logins_failed),
            ],
        );
        family(
            &mut text,
            "gatehouse_auth_refreshes_total",
            "refresh tokens by result",
            "result",
            &[("ok", &self.refreshes), ("refused", &self.refreshes_refused)],
        );
        family(
            &mut text,
            "gatehouse_auth_logouts_total",
            "logouts by clients",
            "kind",
            &[("compat", &self.logouts)],
        );
        family(
            &mut text,
            "gatehouse_auth_introspections_total",
            "introspected tokens",
            "active",
            &[("true", &self.introspections_active), ("false", &self.introspections_inactive)],
        );
        let expired: Vec<_> = Expired::ALL.iter().map(|what| what.name()).zip(&self.expired).collect();
        family(
            &mut text,
            "gatehouse_auth_expired_rows_total",
            "rows deleted by the clean-up",
            "table",
            &expired,
        );
        text
    }
}

fn family(text: &mut String, name: &str, help: &str, label: &str, values: &[(&str, &Counter)]) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (value, counter) in values {
        let _ = writeln!(text, "{name}{{{label}=\"{value}\"}} {}", counter.total());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_rendered_with_their_labels() {
        let metrics = Metrics::default();
        metrics.logins.count();
        metrics.expired[0].add(7);
        let text = metrics.render();
        assert!(text.contains("gatehouse_auth_logins_total{result=\"ok\"} 1\n"), "{text}");
        assert!(text.contains("gatehouse_auth_expired_rows_total{table=\"access_tokens\"} 7\n"), "{text}");
    }
}
