//! What became of reloads, for `/metrics`. They begin with the process and go on over everything else that changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::exposition::Exposition;

/// Counts of reloads. They are rare: one set for the whole process.
#[derive(Debug, Default)]
pub struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    generation: AtomicU64,
    /// Seconds since 1970.
    since: AtomicU64,
}

impl Reloads {
    /// A reload changed the configuration.
    pub fn applied(&self) {
        self.applied.fetch_add(1, Ordering::Relaxed);
    }

    /// A reload changed nothing, because something was wrong with the new configuration.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Another configuration is in force since `now`, be it the first.
    pub fn in_force(&self, now: SystemTime) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.since.store(since.as_secs(), Ordering::Relaxed);
    }

    /// Whether no configuration has been in force yet.
    pub fn is_first(&self) -> bool {
        self.generation.load(Ordering::Relaxed) == 0
    }

    /// Writes all of it.
    pub fn write(&self, out: &mut Exposition) {
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
        let reloads = Reloads::default();
        reloads.in_force(UNIX_EPOCH);
        reloads.refused();
        reloads.refused();
        reloads.applied();
        reloads.in_force(UNIX_EPOCH + Duration::from_secs(7));
        let mut out = Exposition::new("x_");
        reloads.write(&mut out);
        let text = out.into_text();
        for line in [
            "x_reloads_total{outcome=\"applied\"} 1",
            "x_reloads_total{outcome=\"refused\"} 2",
            "x_config_generation 2",
            "x_config_applied_timestamp_seconds 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
