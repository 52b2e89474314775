//! Ending sessions at the wish of who holds a token of one.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::UserId;
use crate::outbox::{self, Job};
use crate::state::SharedState;
use crate::storage::session::Introspected;
use crate::storage::{self, Durability, StorageError, Tx};
use crate::token::TokenHash;

/// Why nothing was ended.
#[derive(Debug, thiserror::Error)]
pub enum LogoutError {
    /// No such token, or its session has ended.
    #[error("unknown access token")]
    Unknown,
    /// The token has expired, its session lives: a refresh would help.
    #[error("the access token has expired")]
    Expired,
    /// The database failed.
    #[error("the database failed")]
    Storage(#[from] StorageError),
}

/// Which sessions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The token's own.
    One,
    /// All of the user.
    All,
}

/// Ends the session of `token`, or all of its user. Locked users may do that, too.
///
/// The tokens are dead here when the change is committed, and at Synapse when it has deleted the device: that is tried before this
/// returns, for a few seconds, and goes on in the background.
///
/// # Errors
/// [`LogoutError`]
pub async fn logout(state: &SharedState, token: &str, extent: Extent) -> Result<(), LogoutError> {
    let hash = TokenHash::of_presented(token).ok_or(LogoutError::Unknown)?;
    let now = state.clock.now();
    let found = storage::session::by_access_token(&mut *state.storage.read().await?, &hash).await?;
    let found = found.filter(|found| found.finished_at.is_none() && found.deactivated_at.is_none());
    let found = found.ok_or(LogoutError::Unknown)?;
    if found.expires_at.is_some_and(|end| end <= now) {
        return Err(LogoutError::Expired);
    }
    let mut tx = state.storage.begin(Durability::Full).await?;
    storage::user::hold(&mut tx, &found.user_id).await?;
    let jobs = match extent {
        Extent::One => finish_one(&mut tx, &found, now).await?,
        Extent::All => finish_all(&mut tx, &found.user_id, &found.username, now).await?,
    };
    tx.commit().await?;
    if !outbox::deliver(state, &jobs, PATIENCE).await {
        tracing::warn!(user = %found.user_id, "Synapse has not heard of a logout yet, it will");
    }
    Ok(())
}

async fn finish_one(tx: &mut Tx, found: &Introspected, now: Timestamp) -> Result<Vec<Job>, LogoutError> {
    if !storage::session::finish(tx, &found.session_id, now).await? {
        return Err(LogoutError::Unknown);
    }
    let job = Job::DeleteDevice {
        user: found.user_id.clone(),
        localpart: found.username.clone(),
        device_id: found.device_id.clone(),
    };
    outbox::enqueue(tx, &job, now).await?;
    Ok(vec![job])
}

/// Ends every live session of a user and writes down that Synapse has to forget the devices.
///
/// # Errors
/// Faults of the database.
pub(super) async fn finish_all(
    tx: &mut Tx,
    user: &UserId,
    username: &str,
    now: Timestamp,
) -> Result<Vec<Job>, StorageError> {
    let mut jobs = Vec::new();
    for session in storage::session::of_user(tx, user, true).await? {
        storage::session::finish(tx, &session.id, now).await?;
        let localpart = username.to_owned();
        let job = Job::DeleteDevice { user: user.clone(), localpart, device_id: session.device_id };
        outbox::enqueue(tx, &job, now).await?;
        jobs.push(job);
    }
    Ok(jobs)
}

/// How long a client waits for Synapse at logout.
const PATIENCE: Duration = Duration::from_secs(5);
