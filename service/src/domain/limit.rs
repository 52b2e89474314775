//! Rate limits: a token bucket as one number.
//!
//! A bucket is the moment at which it is full again. Taking a token moves that moment one interval on; a bucket whose moment is more
//! than `burst` intervals away is empty. So a row that lies in the past says nothing and can be deleted, and nothing has to be refilled.

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;

/// What one bucket counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name in storage.
    pub name: String,
    /// Microseconds until one token is back.
    pub interval_micros: i64,
    /// Microseconds from empty to full.
    pub capacity_micros: i64,
}

impl Bucket {
    /// Failed logins from one address; IPv6 counts per /64, because that is what one customer has. `None` counts all unknown addresses
    /// together.
    pub fn login_of_address(limits: &conf::RateLimiting, address: Option<IpAddr>) -> Self {
        Self::new(format!("login ip {}", network(address)), limits.login_per_ip)
    }

    /// Failed logins of one account; `account` is the user's identifier, or for nobody's name a digest of that name, so that guessing
    /// names is no way around the limit and limits do not tell which names exist.
    pub fn login_of_account(limits: &conf::RateLimiting, account: &str) -> Self {
        let digest = hex::encode(&Sha256::digest(account.as_bytes())[..16]);
        Self::new(format!("login account {digest}"), limits.login_per_account)
    }

    fn new(name: String, limit: conf::RateLimit) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "float to integer casts saturate, and are clamped"
        )]
        let interval_micros =
            ((1_000_000.0 / limit.per_second.max(1e-9)) as i64).clamp(1, LONGEST_INTERVAL_MICROS);
        let capacity_micros = interval_micros.saturating_mul(i64::from(limit.burst.max(1)));
        Self { name, interval_micros, capacity_micros: capacity_micros.min(LONGEST_INTERVAL_MICROS) }
    }

    /// How many tokens are in it.
    pub fn tokens(&self, full_at_micros: Option<i64>, now: Timestamp) -> usize {
        let until_full = self
            .believable(full_at_micros, now)
            .map_or(0, |full_at| full_at.saturating_sub(micros(now)))
            .max(0);
        let tokens = self.capacity_micros.saturating_sub(until_full).max(0) / self.interval_micros;
        usize::try_from(tokens).unwrap_or(usize::MAX)
    }

    /// How long until there is a token.
    pub fn wait(&self, full_at_micros: Option<i64>, now: Timestamp) -> Duration {
        let latest = micros(now).saturating_add(self.capacity_micros).saturating_sub(self.interval_micros);
        let micros = self.believable(full_at_micros, now).map_or(0, |full_at| full_at.saturating_sub(latest));
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// No bucket is written down further away than its capacity. One beyond this moment was written before the clock was set back,
    /// and says nothing: it would lock its owner out until the clock is there again.
    pub fn latest_believable(&self, now: Timestamp) -> i64 {
        micros(now).saturating_add(self.capacity_micros).saturating_add(SKEW_MICROS)
    }

    fn believable(&self, full_at_micros: Option<i64>, now: Timestamp) -> Option<i64> {
        full_at_micros.filter(|full_at| *full_at <= self.latest_believable(now))
    }
}

/// Microseconds since the epoch.
pub fn micros(now: Timestamp) -> i64 {
    now.millis().saturating_mul(1000)
}

fn network(address: Option<IpAddr>) -> String {
    match address {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(address) => address.to_string(),
            None => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        },
    }
}

/// By how much the clocks of machines that share a database may differ.
const SKEW_MICROS: i64 = 60 * 1_000_000;
/// Thirty years: no sum with the present overflows.
const LONGEST_INTERVAL_MICROS: i64 = 30 * 365 * 86_400 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let of = |text: &str| network(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2:aaaa::1"), of("2001:db8:1:2:bbbb::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.7"), of("203.0.113.7"));
    }

    #[test]
    fn tokens_come_back_one_by_one() {
        let limit = conf::RateLimit { burst: 3, per_second: 0.05 };
        let bucket = Bucket::new("x".into(), limit);
        let now = Timestamp::from_millis(1_000_000);
        let check = |taken: i64, secs: u64, tokens: usize, wait: u64| {
            let full_at = Some(micros(now) + taken * bucket.interval_micros);
            let then = now.plus(Duration::from_secs(secs));
            assert_eq!(bucket.tokens(full_at, then), tokens, "{taken} taken, after {secs} s");
            assert_eq!(
                bucket.wait(full_at, then),
                Duration::from_secs(wait),
                "{taken} taken, after {secs} s"
            );
        };
        check(0, 0, 3, 0);
        check(2, 0, 1, 0);
        check(3, 0, 0, 20);
        check(3, 5, 0, 15);
        check(3, 20, 1, 0);
        check(3, 1000, 3, 0);
        check(5, 0, 0, 60);
        assert_eq!((bucket.tokens(None, now), bucket.wait(None, now)), (3, Duration::ZERO));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let bucket = Bucket::new("x".into(), conf::RateLimit { burst: 3, per_second: 0.05 });
        let before = Timestamp::from_millis(100_000_000);
        let empty = Some(micros(before) + bucket.capacity_micros);
        let day_earlier = Timestamp::from_millis(before.millis() - 86_400_000);
        assert_eq!((bucket.tokens(empty, day_earlier), bucket.wait(empty, day_earlier)), (3, Duration::ZERO));
    }

    #[test]
    fn odd_limits_do_not_overflow() {
        for limit in [
            conf::RateLimit { burst: u32::MAX, per_second: 1e-300 },
            conf::RateLimit { burst: 0, per_second: f64::INFINITY },
            conf::RateLimit { burst: 1, per_second: f64::NAN },
        ] {
            let bucket = Bucket::new("x".into(), limit);
            assert!(bucket.interval_micros >= 1 && bucket.capacity_micros >= 1);
        }
    }
}
