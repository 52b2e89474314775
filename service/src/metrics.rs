//! What has happened since the start, in numbers, in the text form that Prometheus reads.

use std::sync::atomic::{AtomicU64, Ordering};

use accept::Exposition;

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
    /// Adds all of them to `out`.
    pub fn write(&self, out: &mut Exposition) {
        let expired: Vec<_> = Expired::ALL.iter().map(|what| what.name()).zip(&self.expired).collect();
        let mut family = |name, help, label, values: &[(&str, &Counter)]| {
            out.counters(name, help, |family| {
                for (value, counter) in values {
                    family.sample(&[(label, value)], counter.total());
                }
            });
        };
        let logins = [
            ("ok", &self.logins),
            ("refused", &self.logins_refused),
            ("limited", &self.logins_limited),
            ("failed", &self.logins_failed),
        ];
        family("logins_total", "Compat logins by result.", "result", &logins);
        let refreshes = [("ok", &self.refreshes), ("refused", &self.refreshes_refused)];
        family("refreshes_total", "Refresh tokens by result.", "result", &refreshes);
        family("logouts_total", "Logouts by clients.", "kind", &[("compat", &self.logouts)]);
        let introspections =
            [("true", &self.introspections_active), ("false", &self.introspections_inactive)];
        family("introspections_total", "Introspected tokens.", "active", &introspections);
        family("expired_rows_total", "Rows deleted by the clean-up.", "table", &expired);
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
        let mut out = Exposition::new("gatehouse_auth_");
        metrics.write(&mut out);
        let text = out.into_text();
        assert!(text.contains("gatehouse_auth_logins_total{result=\"ok\"} 1\n"), "{text}");
        assert!(text.contains("gatehouse_auth_expired_rows_total{table=\"access_tokens\"} 7\n"), "{text}");
    }
}
