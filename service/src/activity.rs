//! When sessions were last active: noted in memory, written down now and then, so that the hot path does not write.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::SessionId;
use crate::storage::{Durability, Storage, StorageError, session};

/// Sessions that were active since the last flush.
#[derive(Debug, Default)]
pub struct Activity(Mutex<HashMap<SessionId, Timestamp>>);

impl Activity {
    /// Notes that a session is active. Nothing is noted when that is written down already for this minute, or when
    /// too many wait to be written down: activity is for people to look at, not for decisions.
    pub fn note(&self, session: &SessionId, written_down: Option<Timestamp>, now: Timestamp) {
        if written_down.is_some_and(|at| now.since(at) < RESOLUTION) {
            return;
        }
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < MOST || noted.contains_key(session) {
            noted.insert(session.clone(), now);
        }
    }

    /// Writes down what was noted. Says how many sessions.
    ///
    /// # Errors
    /// Faults of the database; what was noted is lost then, and noted again with the next request.
    pub async fn flush(&self, storage: &Storage) -> Result<usize, StorageError> {
        let noted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all: Vec<_> = noted.into_iter().collect();
        // In the order in which everybody locks several sessions: so nobody deadlocks.
        all.sort_unstable();
        for batch in all.chunks(BATCH) {
            let mut tx = storage.begin(Durability::Relaxed).await?;
            for (session, at) in batch {
                session::touch(&mut tx, session, *at, None).await?;
            }
            tx.commit().await?;
        }
        Ok(all.len())
    }
}

/// Finer than this nobody wants to know it.
const RESOLUTION: Duration = Duration::from_secs(60);
/// About 3 MB.
const MOST: usize = 20_000;
const BATCH: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Rng;

    #[test]
    fn notes_are_bounded_and_sparse() {
        let (activity, rng) = (Activity::default(), Rng::seeded(1));
        let now = Timestamp::from_millis(1_000_000);
        let session = SessionId::new(now, &rng);
        activity.note(&session, Some(now.minus(Duration::from_secs(59))), now);
        assert_eq!(activity.0.lock().unwrap().len(), 0);
        activity.note(&session, Some(now.minus(Duration::from_secs(60))), now);
        assert_eq!(activity.0.lock().unwrap().len(), 1);
        for _ in 0..MOST + 10 {
            activity.note(&SessionId::new(now, &rng), None, now);
        }
        assert_eq!(activity.0.lock().unwrap().len(), MOST);
    }
}
