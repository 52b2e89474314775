//! What Synapse still has to hear, kept in the database until it has heard it.
//!
//! A job is written in the transaction of the change it tells of ([`enqueue`]), so that neither exists without the other, and it says
//! only *what* to look at: how things stand is read when it is done, so that a late, repeated or overtaken job does no harm.
//! [`run`] works them off, each user's in order, until Synapse has answered; [`deliver`] does some at once, for an answer that
//! must not be given before.

mod backoff;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::clock::Timestamp;
use crate::domain::UserId;
use crate::error::Chain;
use crate::state::{SharedState, State};
use crate::storage::outbox::{self as table, Claimed};
use crate::storage::{Durability, StorageError, Tx};
use crate::synapse;

/// How often the table is looked at: other processes (`gatehouse user …`) write jobs too.
const POLL: Duration = Duration::from_secs(1);
/// Jobs under way at a time. Synapse is one process with one core.
const MOST_AT_A_TIME: usize = 8;
/// How long a job is ours. Longer than its calls may take (two of 10 s), so that it is given to somebody else only after a crash.
const LEASE: Duration = Duration::from_secs(45);
/// How long jobs under way may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Something Synapse has to hear.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Delete a device, unless a live session has it again.
    DeleteDevice {
        /// Whose.
        user: UserId,
        /// The user's localpart.
        localpart: String,
        /// Which one.
        device_id: String,
    },
    /// Bring addresses and lock (at first the name too) up to date with what is stored now.
    ProvisionUser {
        /// Who.
        user: UserId,
    },
    /// Make Synapse's devices equal to the live sessions.
    SyncDevices {
        /// Whose.
        user: UserId,
    },
    /// Deactivate the user on Synapse, unless it has been reactivated.
    DeleteUser {
        /// Who.
        user: UserId,
        /// Whether the messages are hidden too.
        erase: bool,
    },
    /// Undo a deactivation, unless the user has been deactivated again.
    ReactivateUser {
        /// Who.
        user: UserId,
    },
}

impl Job {
    /// Whom it concerns.
    pub fn user(&self) -> &UserId {
        match self {
            Self::DeleteDevice { user, .. }
            | Self::ProvisionUser { user }
            | Self::SyncDevices { user }
            | Self::DeleteUser { user, .. }
            | Self::ReactivateUser { user } => user,
        }
    }

    /// What makes two jobs the same.
    fn key(&self) -> String {
        match self {
            Self::DeleteDevice { user, device_id, .. } => format!("delete_device:{user}:{device_id}"),
            Self::ProvisionUser { user } => format!("provision_user:{user}"),
            Self::SyncDevices { user } => format!("sync_devices:{user}"),
            Self::DeleteUser { user, .. } => format!("delete_user:{user}"),
            Self::ReactivateUser { user } => format!("reactivate_user:{user}"),
        }
    }
}

/// Wakes the worker of this process.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<Notify>);

impl Outbox {
    /// Tells the worker that there is something to do now; after the commit.
    pub fn kick(&self) {
        self.0.notify_one();
    }
}

/// Writes `job` down in the transaction of the change it belongs to. The same job twice is one job, which is done after the second time.
///
/// # Errors
/// Faults of the database.
pub async fn enqueue(tx: &mut Tx, job: &Job, now: Timestamp) -> Result<(), StorageError> {
    let payload =
        serde_json::to_string(job).map_err(|_| StorageError::Corrupt("a job that cannot be written"))?;
    table::insert(tx, &job.key(), job.user(), &payload, now).await
}

/// Does jobs that were just committed, at once, and returns when Synapse has heard of them or `patience` is over. What could not
/// be done stays in the outbox. True when all of them are done.
pub async fn deliver(state: &State, jobs: &[Job], patience: Duration) -> bool {
    let all = async {
        let mut done = true;
        for job in jobs {
            done &= deliver_one(state, &job.key()).await;
        }
        done
    };
    let done = tokio::time::timeout(patience, all).await.unwrap_or(false);
    if !done {
        state.outbox.kick();
    }
    done
}

async fn deliver_one(state: &State, key: &str) -> bool {
    let claimed = async {
        let now = state.clock.now();
        let mut tx = state.storage.begin(Durability::Relaxed).await?;
        let claimed = table::claim_one(&mut tx, key, now, now.plus(LEASE)).await?;
        tx.commit().await.map(|()| claimed)
    };
    match claimed.await {
        Ok(Some(job)) => attempt(state, &job).await,
        // Done already, or the worker is at it: then its end is near.
        Ok(None) => is_gone(state, key).await,
        Err(fault) => {
            warn!(error = %Chain(&fault), "the outbox cannot be read");
            false
        }
    }
}

/// Waits until a job has left the table; the caller bounds the wait.
async fn is_gone(state: &State, key: &str) -> bool {
    loop {
        let found = async { table::exists(&mut *state.storage.read().await?, key).await };
        match found.await {
            Ok(false) => return true,
            Ok(true) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(_) => return false,
        }
    }
}

/// Works jobs off until `stop`, then finishes those under way, at most 10 s. Each round works with the state of its moment, always of the
/// same database.
pub async fn run(current: watch::Receiver<SharedState>, mut stop: watch::Receiver<bool>) {
    let mut under_way = JoinSet::new();
    let mut database_works = true;
    while !*stop.borrow() {
        while under_way.try_join_next().is_some() {}
        let state = current.borrow().clone();
        let claimed = claim(&state, MOST_AT_A_TIME - under_way.len()).await;
        match (&claimed, database_works) {
            (Err(fault), true) => {
                warn!(error = %Chain(fault), "the outbox cannot be read, trying again");
            }
            (Ok(_), false) => info!("the outbox can be read again"),
            _ => {}
        }
        database_works = claimed.is_ok();
        let claimed = claimed.unwrap_or_default();
        let found_some = !claimed.is_empty();
        for job in claimed {
            let state = state.clone();
            under_way.spawn(async move { attempt(&state, &job).await });
        }
        if found_some && under_way.len() < MOST_AT_A_TIME {
            continue;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = state.outbox.0.notified() => {}
            // A finished job may be what the user's next one waits for.
            Some(_) = under_way.join_next() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    let drained = tokio::time::timeout(DRAIN, async { while under_way.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        debug!(left = under_way.len(), "jobs under way are left to the next start");
    }
}

async fn claim(state: &State, most: usize) -> Result<Vec<Claimed>, StorageError> {
    let now = state.clock.now();
    if most == 0 || !table::is_any_due(&mut *state.storage.read().await?, now).await? {
        return Ok(Vec::new());
    }
    let mut tx = state.storage.begin(Durability::Relaxed).await?;
    let claimed = table::claim_due(&mut tx, now, now.plus(LEASE), most).await?;
    tx.commit().await?;
    Ok(claimed)
}

/// Does a claimed job and writes down what became of it. True when it is done for good.
async fn attempt(state: &State, job: &Claimed) -> bool {
    let result = match serde_json::from_str::<Job>(&job.payload) {
        Ok(parsed) => work::perform(state, &parsed).await,
        Err(fault) => Err(work::Fault::Payload(fault)),
    };
    let done = match &result {
        Ok(()) => {
            debug!(job = job.key, "Synapse has heard");
            true
        }
        Err(fault) if fault.is_final() => {
            error!(
                job = job.key,
                error = %Chain(fault),
                "a job is given up: it can never succeed"
            );
            true
        }
        Err(fault) => {
            log_failure(job, fault);
            false
        }
    };
    let recorded = async {
        let now = state.clock.now();
        let mut tx = state.storage.begin(Durability::Relaxed).await?;
        match &result {
            Err(fault) if !done => {
                let next = now.plus(backoff::delay(job.attempts, u64::from_ne_bytes(state.rng.bytes())));
                table::postpone(&mut tx, job, next, &fault.to_string()).await?;
            }
            _ => table::finish(&mut tx, job, now).await?,
        }
        tx.commit().await
    };
    match recorded.await {
        Ok(()) => done,
        Err(fault) => {
            // The lease ends, and it is done again: every job can be.
            warn!(
                job = job.key,
                error = %Chain(&fault),
                "what became of a job cannot be written down"
            );
            done
        }
    }
}

/// The first failures of a job are worth a line; later ones are news to nobody.
fn log_failure(job: &Claimed, fault: &work::Fault) {
    let (key, attempts, error) = (&job.key, job.attempts + 1, Chain(fault));
    let needs_somebody =
        matches!(fault, work::Fault::Synapse(synapse::Error::SecretRefused | synapse::Error::NotDelegated));
    match (attempts, needs_somebody) {
        (1, true) => error!(job = key, %error, "Synapse was not told, trying again"),
        (1 | 5, _) => warn!(job = key, attempts, %error, "Synapse was not told, trying again"),
        _ => debug!(job = key, attempts, %error, "Synapse was not told, trying again"),
    }
}

#[cfg(test)]
mod tests;
