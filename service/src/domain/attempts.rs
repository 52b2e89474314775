//! Limiting failures without knowing yet which attempts will fail.
//!
//! An attempt begins only when its bucket would hold out if every attempt under way failed; else it waits for one of them to end, in
//! turn and not for ever. So parallel guesses do not slip through, right passwords cost nothing, and many of them at once from one
//! address just follow each other. What is under way is counted per process: several machines may let through one attempt more each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::limit::Bucket;
use crate::clock::Clock;
use crate::storage::{self, Durability, Storage, StorageError};

/// Attempts under way, by bucket.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<String, Arc<Gate>>>);

#[derive(Debug, Default)]
struct Gate {
    /// Held by the one who is next; fair.
    next: tokio::sync::Mutex<()>,
    under_way: AtomicUsize,
    ended: Notify,
}

/// An attempt that is under way; ends when dropped, after [`Attempt::failed`] if it has failed.
#[derive(Debug)]
pub struct Attempt {
    buckets: Vec<Bucket>,
    _passed: Vec<Passed>,
}

#[derive(Debug)]
struct Passed(Arc<Gate>);

/// Why an attempt may not begin.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Too many failures: come again after that time.
    #[error("too many failures")]
    Limited(Duration),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Attempts {
    /// Waits until the attempt may begin.
    ///
    /// # Errors
    /// [`Refused::Limited`] when a bucket is empty, or too many are under way for too long.
    pub async fn begin(
        &self,
        storage: &Storage,
        clock: &Clock,
        buckets: Vec<Bucket>,
    ) -> Result<Attempt, Refused> {
        let mut passed = Vec::with_capacity(buckets.len());
        let all = async {
            for bucket in &buckets {
                passed.push(pass(self.gate(bucket), storage, clock, bucket).await?);
            }
            Ok::<_, Refused>(())
        };
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(result) => result?,
            Err(_) => return Err(Refused::Limited(WHEN_CROWDED)),
        }
        Ok(Attempt { buckets, _passed: passed })
    }

    fn gate(&self, bucket: &Bucket) -> Arc<Gate> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SWEEP {
            // Who waits or is under way holds the gate.
            all.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        all.entry(bucket.name.clone()).or_default().clone()
    }
}

async fn pass(gate: Arc<Gate>, storage: &Storage, clock: &Clock, bucket: &Bucket) -> Result<Passed, Refused> {
    let turn = gate.next.lock().await;
    loop {
        // Read before the bucket: who ends meanwhile has recorded its failure before.
        let under_way = gate.under_way.load(Ordering::SeqCst);
        let full_at = storage::limit::full_at(&mut *storage.read().await?, bucket).await?;
        let now = clock.now();
        if under_way < bucket.tokens(full_at, now) {
            gate.under_way.fetch_add(1, Ordering::SeqCst);
            drop(turn);
            return Ok(Passed(gate));
        }
        if under_way == 0 {
            return Err(Refused::Limited(bucket.wait(full_at, now)));
        }
        gate.ended.notified().await;
    }
}

impl Attempt {
    /// Records that it has failed; then ends it.
    ///
    /// # Errors
    /// Faults of the database. Then nobody may learn that the attempt has failed: it was not counted.
    pub async fn failed(self, storage: &Storage, clock: &Clock) -> Result<(), StorageError> {
        let mut tx = storage.begin(Durability::Relaxed).await?;
        let now = clock.now();
        for bucket in &self.buckets {
            storage::limit::take(&mut tx, bucket, now).await?;
        }
        tx.commit().await
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        // Only the one who is next waits for it; if nobody does, the next one does not need to.
        self.0.ended.notify_one();
    }
}

/// As long as a password waits to be checked.
const PATIENCE: Duration = Duration::from_secs(10);
/// When too many are under way for that long.
const WHEN_CROWDED: Duration = Duration::from_secs(2);
/// As many gates are kept without looking whether they are in use; those in use are bounded by the connections.
const SWEEP: usize = 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::IpAddr;
    use std::task::Poll;

    use super::*;
    use crate::clock::Timestamp;
    use crate::fixture;

    fn bucket(address: &str) -> Vec<Bucket> {
        let limit = conf::RateLimit { burst: 2, per_second: 0.1 };
        let limits = conf::RateLimiting { login_per_ip: limit, login_per_account: limit };
        let address: IpAddr = address.parse().unwrap();
        vec![Bucket::login_of_address(&limits, Some(address))]
    }

    async fn storage() -> (tempfile::TempDir, Storage, Clock) {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_millis(1_700_000_000_000);
        let uri = fixture::database(folder.path()).await;
        let storage = Storage::open(&uri, 5, Duration::from_secs(10), now).await.unwrap();
        (folder, storage, Clock::fixed(now))
    }

    #[tokio::test]
    async fn as_many_as_may_fail_are_under_way_and_the_next_waits_for_an_end() {
        let (_folder, storage, clock) = storage().await;
        let attempts = Attempts::default();
        let begin = |address| attempts.begin(&storage, &clock, bucket(address));
        let first = begin("192.0.2.1").await.unwrap();
        let second = begin("192.0.2.1").await.unwrap();
        let mut third = std::pin::pin!(begin("192.0.2.1"));
        for _ in 0..20 {
            assert!(poll_fn(|cx| Poll::Ready(third.as_mut().poll(cx))).await.is_pending());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(begin("192.0.2.2").await.is_ok());
        drop(first);
        let third = third.await.unwrap();
        second.failed(&storage, &clock).await.unwrap();
        third.failed(&storage, &clock).await.unwrap();
        let Err(Refused::Limited(wait)) = begin("192.0.2.1").await else { panic!("not limited") };
        assert_eq!(wait, Duration::from_secs(10));
        clock.advance(Duration::from_secs(10));
        assert!(begin("192.0.2.1").await.is_ok());
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_locks_nobody_out() {
        let (_folder, storage, clock) = storage().await;
        let attempts = Attempts::default();
        let earlier = Clock::fixed(Timestamp::from_millis(clock.now().millis() - 86_400_000));
        for _ in 0..2 {
            let attempt = attempts.begin(&storage, &clock, bucket("192.0.2.1")).await.unwrap();
            attempt.failed(&storage, &clock).await.unwrap();
        }
        assert!(attempts.begin(&storage, &clock, bucket("192.0.2.1")).await.is_err());
        // Both tokens are there again, and are counted by the clock as it is now.
        for _ in 0..2 {
            let attempt = attempts.begin(&storage, &earlier, bucket("192.0.2.1")).await.unwrap();
            attempt.failed(&storage, &earlier).await.unwrap();
        }
        let Err(Refused::Limited(wait)) = attempts.begin(&storage, &earlier, bucket("192.0.2.1")).await
        else {
            panic!("not limited")
        };
        assert_eq!(wait, Duration::from_secs(10));
    }

    #[tokio::test]
    async fn what_is_not_under_way_is_forgotten() {
        let attempts = Attempts::default();
        let kept = attempts.gate(&bucket("203.0.113.1")[0]);
        for number in 0..3000_u32 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
            attempts.gate(&bucket(&address)[0]);
        }
        let all = attempts.0.lock().unwrap();
        assert!(all.len() <= SWEEP, "{}", all.len());
        assert!(Arc::ptr_eq(&kept, &all[&bucket("203.0.113.1")[0].name]));
    }
}
