//! How many logins of one bucket are under way: not more than could all fail.
//!
//! A login takes a token before it knows whether it will succeed. Without this, a burst of *right* passwords from behind one address
//! would find the bucket empty for a moment; so they wait for each other here, in turn and not for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limit::Bucket;

/// Logins under way, by bucket.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<String, Arc<Semaphore>>>);

/// A login that is under way; ends when dropped.
#[derive(Debug)]
pub struct Attempt {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Attempts {
    /// Waits for one's turn in each of the buckets, in their order. `None` when that takes too long.
    pub async fn begin(&self, buckets: &[Bucket]) -> Option<Attempt> {
        let turns = async {
            let mut permits = Vec::with_capacity(buckets.len());
            for bucket in buckets {
                permits.push(self.semaphore(bucket).acquire_owned().await.ok()?);
            }
            Some(Attempt { _permits: permits })
        };
        tokio::time::timeout(PATIENCE, turns).await.ok().flatten()
    }

    fn semaphore(&self, bucket: &Bucket) -> Arc<Semaphore> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SWEEP {
            // Permits hold their semaphore: what nobody holds has nobody under way or waiting.
            all.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let make = || Arc::new(Semaphore::new(bucket.burst().min(MOST_AT_ONCE)));
        all.entry(bucket.name.clone()).or_insert_with(make).clone()
    }
}

/// As long as a password waits to be checked.
const PATIENCE: Duration = Duration::from_secs(10);
/// As many buckets are kept without looking whether they are in use; those in use are bounded by the connections.
const SWEEP: usize = 1024;
/// tokio's semaphores do not count as far as a configuration can.
const MOST_AT_ONCE: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(address: &str) -> Bucket {
        let limit = conf::RateLimit { burst: 2, per_second: 1.0 };
        let limits = conf::RateLimiting { login_per_ip: limit, login_per_account: limit };
        Bucket::login_of_address(&limits, Some(address.parse().unwrap()))
    }

    #[tokio::test]
    async fn as_many_as_could_fail_are_under_way_and_the_rest_waits() {
        let attempts = Attempts::default();
        let buckets = [bucket("192.0.2.1")];
        let first = attempts.begin(&buckets).await.unwrap();
        let _second = attempts.begin(&buckets).await.unwrap();
        let mut third = std::pin::pin!(attempts.begin(&buckets));
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(third.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        assert!(attempts.begin(&[bucket("192.0.2.2")]).await.is_some());
        drop(first);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn what_is_not_under_way_is_forgotten() {
        let attempts = Attempts::default();
        let kept = attempts.begin(&[bucket("203.0.113.1")]).await.unwrap();
        for number in 0..3000_u32 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
            assert!(attempts.begin(&[bucket(&address)]).await.is_some());
        }
        let all = attempts.0.lock().unwrap();
        assert!(all.len() <= SWEEP, "{}", all.len());
        assert!(all.contains_key(&bucket("203.0.113.1").name));
        drop(kept);
    }
}
