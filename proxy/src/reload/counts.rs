//! What became of reloads, for `/metrics`. They begin with the process and go on over everything else that changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use accept::Exposition;

/// Counts of reloads. They are rare: one set for the whole process.
#[derive(Debug)]
pub(crate) struct Reloads {
    now: fn() -> SystemTime,
    applied: AtomicU64,
    refused: AtomicU64,
    generation: AtomicU64,
    /// Seconds since 1970.
    since: AtomicU64,
}

impl Reloads {
    pub(crate) fn new(now: fn() -> SystemTime) -> Self {
        let zero = || AtomicU64::new(0);
        Self { now, applied: zero(), refused: zero(), generation: zero(), since: zero() }
    }

    /// A reload changed the configuration.
    pub(crate) fn applied(&self) {
        self.applied.fetch_add(1, Ordering::Relaxed);
    }

    /// A reload changed nothing, because something was wrong with the new configuration.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Another configuration is in force, be it the first.
    pub(crate) fn in_force(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        let since = (self.now)().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.since.store(since.as_secs(), Ordering::Relaxed);
    }

    pub(crate) fn write(&self, out: &mut Exposition) {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        out.counters("reloads_total", "Reloads by outcome.", |family| {
            family.sample(&[("outcome", "applied")], value(&self.applied));
            family.sample(&[("outcome", "refused")], value(&self.refused));
        });
        out.gauge(
            "config_generation",
            "Configurations so far; 1 is that of the start.",
            value(&self.generation),
        );
        out.gauge(
            "config_applied_timestamp_seconds",
            "When the configuration in force was applied, in seconds since 1970.",
            value(&self.since),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn outcomes_are_counted_apart() {
        let reloads = Reloads::new(|| UNIX_EPOCH + Duration::from_secs(7));
        reloads.in_force();
        reloads.refused();
        reloads.refused();
        reloads.applied();
        reloads.in_force();
        let mut out = Exposition::new("gatehouse_edge_");
        reloads.write(&mut out);
        let text = out.into_text();
        for line in [
            "gatehouse_edge_reloads_total{outcome=\"applied\"} 1",
            "gatehouse_edge_reloads_total{outcome=\"refused\"} 2",
            "gatehouse_edge_config_generation 2",
            "gatehouse_edge_config_applied_timestamp_seconds 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
