//! What became of connections since the start, in numbers: of one listener, and of all together. It decides nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::acceptor::{REFUSAL_REASONS, Refused};
use crate::connection::{Connection, TlsFacts};
use crate::exposition::{Exposition, Family};
use crate::limits::TooMany;
use conf::ProxyVersion;

/// The numbers of one listener, or of all.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    open: AtomicU64,
    accepted: AtomicU64,
    /// In the order of [`LIMITS`].
    over_limit: [AtomicU64; LIMITS.len()],
    /// In the order of [`REFUSAL_REASONS`].
    refused: [AtomicU64; REFUSAL_REASONS.len()],
    /// In the order of [`PROXY_VERSIONS`].
    proxy_headers: [AtomicU64; PROXY_VERSIONS.len()],
    /// In the order of [`HANDSHAKES`].
    handshakes: [AtomicU64; HANDSHAKES.len()],
    /// In the order of [`HANDSHAKE_FAILURES`].
    handshake_failures: [AtomicU64; HANDSHAKE_FAILURES.len()],
    shortages: AtomicU64,
    cut_off: AtomicU64,
}

/// A tally for each listener, by name: whoever has the same name after a reload counts on.
#[derive(Debug, Default)]
pub(crate) struct Tallies(ArcSwap<BTreeMap<Arc<str>, Arc<Tally>>>);

/// What became of connections since the start, of all listeners together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open now.
    pub open: u64,
    /// Accepted, and not over a limit in total; including those refused afterwards.
    pub accepted: u64,
    /// Closed because there were too many in total.
    pub over_total: u64,
    /// Closed because there were too many of their address.
    pub over_per_address: u64,
    /// Closed because of their PROXY header or TLS handshake, in the order of [`REFUSAL_REASONS`].
    pub refused: [u64; REFUSAL_REASONS.len()],
    /// Closed because they were still open at the end of a drain.
    pub cut_off: u64,
}

impl Counts {
    /// How many were refused for this reason, one of [`REFUSAL_REASONS`].
    pub fn refused_for(&self, reason: &str) -> u64 {
        let mut counts = REFUSAL_REASONS.iter().zip(self.refused);
        counts.find(|(known, _)| **known == reason).map_or(0, |(_, count)| count)
    }
}

impl Tally {
    /// A connection was accepted and is open.
    pub(crate) fn open(&self) {
        one_more(&self.accepted);
        one_more(&self.open);
    }

    /// An open connection has ended.
    pub(crate) fn close(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection was closed because there are too many.
    pub(crate) fn over_limit(&self, limit: TooMany) {
        one_more(&self.over_limit[limit as usize]);
    }

    /// A connection did not come to HTTP.
    pub(crate) fn refuse(&self, refused: &Refused) {
        count_label(&REFUSAL_REASONS, &self.refused, refused.reason());
        if let Some(failure) = handshake_failure(refused) {
            count_label(&HANDSHAKE_FAILURES, &self.handshake_failures, failure);
        }
    }

    /// A connection began with a PROXY header, if it did.
    pub(crate) fn proxy_header(&self, connection: &Connection) {
        if let Some(header) = &connection.proxy_header {
            one_more(&self.proxy_headers[usize::from(header.version == ProxyVersion::V2)]);
        }
    }

    /// A handshake was completed.
    pub(crate) fn handshake(&self, facts: &TlsFacts) {
        let kind = (facts.version, if facts.is_resumed { "resumed" } else { "full" });
        if let Some(index) = HANDSHAKES.iter().position(|known| *known == kind) {
            one_more(&self.handshakes[index]);
        }
    }

    /// The system gave no connection, for want of descriptors or memory.
    pub(crate) fn shortage(&self) {
        one_more(&self.shortages);
    }

    /// Connections were closed that were still open at the end of a drain.
    pub(crate) fn cut_off(&self, connections: u64) {
        self.cut_off.fetch_add(connections, Ordering::Relaxed);
    }

    /// The numbers that others than metrics want.
    pub(crate) fn counts(&self) -> Counts {
        let [over_total, over_per_address] = self.over_limit.each_ref().map(read);
        Counts {
            open: read(&self.open),
            accepted: read(&self.accepted),
            over_total,
            over_per_address,
            refused: self.refused.each_ref().map(read),
            cut_off: read(&self.cut_off),
        }
    }
}

impl Tallies {
    /// The tally of a listener, a new one if it has none.
    pub(crate) fn of(&self, listener: &Arc<str>) -> Arc<Tally> {
        if let Some(tally) = self.0.load().get(listener) {
            return tally.clone();
        }
        let fresh = Arc::new(Tally::default());
        self.0.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            if known.len() >= MOST_NAMES {
                // Reloads may bring ever new names: those without an open connection are forgotten.
                known.retain(|_, tally| read(&tally.open) > 0);
            }
            known.entry(listener.clone()).or_insert_with(|| fresh.clone());
            known
        });
        self.0.load().get(listener).cloned().unwrap_or(fresh)
    }

    /// Name and numbers of every listener.
    pub(crate) fn each(&self) -> Vec<(Arc<str>, Counts)> {
        self.0.load().iter().map(|(listener, tally)| (listener.clone(), tally.counts())).collect()
    }
}

/// Writes the numbers of all listeners together and of each.
pub(crate) fn write(out: &mut Exposition, all: &Tally, tallies: &Tallies) {
    let counts = all.counts();
    out.gauge("connections_open", "Open connections.", counts.open);
    out.counter("connections_accepted_total", "Connections accepted.", counts.accepted);
    out.counter(
        "connections_over_limit_total",
        "Connections closed because there were too many.",
        counts.over_total + counts.over_per_address,
    );
    out.counters(
        "connections_refused_total",
        "Connections closed for their PROXY header or TLS handshake.",
        |family| {
            for (reason, count) in REFUSAL_REASONS.iter().zip(counts.refused) {
                family.sample(&[("reason", reason)], count);
            }
        },
    );
    out.counter(
        "connections_cut_off_total",
        "Connections still open at the end of a drain, and closed.",
        counts.cut_off,
    );
    out.counter(
        "accept_errors_total",
        "Times the system gave no connection, for want of descriptors or memory.",
        read(&all.shortages),
    );
    let tallies = tallies.0.load();
    let per_listener = |family: &mut Family<'_>, count: &dyn Fn(&Tally) -> &AtomicU64| {
        for (listener, tally) in tallies.iter() {
            family.sample(&[("listener", listener)], read(count(tally)));
        }
    };
    let per_label =
        |family: &mut Family<'_>, label: &str, labels: &[&str], counts: &dyn Fn(&Tally) -> &[AtomicU64]| {
            for (listener, tally) in tallies.iter() {
                for (value, count) in labels.iter().zip(counts(tally)) {
                    family.sample(&[("listener", listener), (label, value)], read(count));
                }
            }
        };
    out.gauges("listener_connections_open", "Open connections of a listener.", |family| {
        per_listener(family, &|tally| &tally.open);
    });
    out.counters("listener_connections_accepted_total", "Connections a listener accepted.", |family| {
        per_listener(family, &|tally| &tally.accepted);
    });
    out.counters(
        "listener_connections_over_limit_total",
        "Connections of a listener closed because there were too many, by the limit.",
        |family| per_label(family, "limit", &LIMITS, &|tally| &tally.over_limit),
    );
    out.counters(
        "listener_connections_refused_total",
        "Connections of a listener closed for their PROXY header or TLS handshake.",
        |family| per_label(family, "reason", &REFUSAL_REASONS, &|tally| &tally.refused),
    );
    out.counters("listener_proxy_headers_total", "PROXY headers believed, by version.", |family| {
        per_label(family, "version", &PROXY_VERSIONS, &|tally| &tally.proxy_headers);
    });
    out.counters(
        "listener_tls_handshakes_total",
        "TLS handshakes completed, by version, and whether a session was resumed.",
        |family| {
            for (listener, tally) in tallies.iter() {
                for ((version, session), count) in HANDSHAKES.iter().zip(&tally.handshakes) {
                    let labels = [("listener", &**listener), ("version", version), ("session", session)];
                    family.sample(&labels, read(count));
                }
            }
        },
    );
    out.counters(
        "listener_tls_handshake_failures_total",
        "TLS handshakes not completed, by what went wrong.",
        |family| per_label(family, "reason", &HANDSHAKE_FAILURES, &|tally| &tally.handshake_failures),
    );
    out.counters(
        "listener_accept_errors_total",
        "Times the system gave a listener no connection, for want of descriptors or memory.",
        |family| per_listener(family, &|tally| &tally.shortages),
    );
}

/// What went wrong with a handshake: one of [`HANDSHAKE_FAILURES`].
fn handshake_failure(refused: &Refused) -> Option<&'static str> {
    let error = match refused {
        Refused::TlsDeadline => return Some("deadline"),
        Refused::Tls(error) => error,
        _ => return None,
    };
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    Some(match (tls, error.kind()) {
        (Some(rustls::Error::AlertReceived(_)), _) => "alert",
        (Some(rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. }), _) => "not_tls",
        (Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol), _) => {
            "incompatible"
        }
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "closed"
        }
        (Some(_) | None, _) => "other",
    })
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn count_label<const N: usize>(labels: &[&str; N], counts: &[AtomicU64; N], label: &str) {
    if let Some((_, count)) = labels.iter().zip(counts).find(|(known, _)| **known == label) {
        one_more(count);
    }
}

/// The limits, as [`TooMany`] has them.
const LIMITS: [&str; 2] = ["max_connections", "max_connections_per_ip"];
/// As the labels have it.
const PROXY_VERSIONS: [&str; 2] = ["1", "2"];
/// Version, and whether it began a session.
const HANDSHAKES: [(&str, &str); 4] =
    [("1.2", "full"), ("1.2", "resumed"), ("1.3", "full"), ("1.3", "resumed")];
/// `alert`: the client refuses us, often for the certificate; `not_tls`: other bytes, such as HTTP; `incompatible`: no version,
/// cipher or protocol in common; `closed`: the client left.
const HANDSHAKE_FAILURES: [&str; 6] = ["deadline", "closed", "not_tls", "incompatible", "alert", "other"];
/// More names than any configuration has listeners.
const MOST_NAMES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_on_and_are_bounded() {
        let tallies = Tallies::default();
        tallies.of(&"https".into()).open();
        assert_eq!(tallies.of(&"https".into()).counts().accepted, 1, "the same after a reload");
        for number in 0..1000 {
            tallies.of(&number.to_string().into()).shortage();
        }
        let names = tallies.each();
        assert!(names.len() <= MOST_NAMES, "{}", names.len());
        assert!(names.iter().any(|(name, _)| &**name == "https"), "it has an open connection");
    }

    #[test]
    fn failures_have_a_reason() {
        let check = |error: Refused, expected| assert_eq!(handshake_failure(&error), expected);
        let tls = |error: rustls::Error| Refused::Tls(io::Error::new(io::ErrorKind::InvalidData, error));
        check(Refused::TlsDeadline, Some("deadline"));
        check(Refused::Closed, None);
        check(tls(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired)), Some("alert"));
        check(
            tls(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)),
            Some("not_tls"),
        );
        check(tls(rustls::Error::NoApplicationProtocol), Some("incompatible"));
        check(tls(rustls::Error::General("x".into())), Some("other"));
        check(Refused::Tls(io::ErrorKind::UnexpectedEof.into()), Some("closed"));
        check(Refused::Tls(io::ErrorKind::TimedOut.into()), Some("other"));
    }

    #[test]
    fn every_reason_has_a_place() {
        let tally = Tally::default();
        tally.refuse(&Refused::Untrusted);
        tally.refuse(&Refused::TlsDeadline);
        tally.over_limit(TooMany::Address);
        let counts = tally.counts();
        assert_eq!(counts.refused_for("proxy_untrusted"), 1);
        assert_eq!(counts.refused_for("tls_deadline"), 1);
        assert_eq!(counts.refused.iter().sum::<u64>(), 2);
        assert_eq!((counts.over_total, counts.over_per_address), (0, 1));
    }
}
