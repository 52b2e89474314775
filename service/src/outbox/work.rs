//! What each job does. Each reads how things stand now, and may be done twice.

use sqlx::Row;

use super::Job;
use crate::domain::UserId;
use crate::domain::user::User;
use crate::state::State;
use crate::storage::{Durability, StorageError, user};
use crate::synapse::{self, Profile};

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Synapse did not say yes.
    #[error(transparent)]
    Synapse(#[from] synapse::Error),
    /// How things stand could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Written by a version that knows other jobs.
    #[error("the job cannot be understood")]
    Payload(#[source] serde_json::Error),
}

impl Fault {
    /// Whether trying again can never help. A job that cannot be understood waits for the version that wrote it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Synapse(error) if error.is_final())
    }
}

/// Does one job.
pub(super) async fn perform(state: &State, job: &Job) -> Result<(), Fault> {
    let Some(user) = user::by_id(&mut *state.storage.read().await?, job.user()).await? else {
        return Ok(());
    };
    match job {
        Job::DeleteDevice { device_id, .. } => delete_device(state, &user, device_id).await,
        Job::ProvisionUser { .. } if user.deactivated_at.is_some() => Ok(()),
        Job::ProvisionUser { .. } => provision(state, &user).await,
        Job::SyncDevices { .. } => sync_devices(state, &user).await,
        Job::DeleteUser { erase, .. } => match user.deactivated_at {
            Some(_) => unless_unknown(state.synapse.hurried().delete_user(&user.username, *erase).await),
            None => Ok(()),
        },
        Job::ReactivateUser { .. } => match user.deactivated_at {
            Some(_) => Ok(()),
            None => match state.synapse.hurried().reactivate_user(&user.username).await {
                Err(synapse::Error::NotFound) => provision(state, &user).await,
                told => Ok(told?),
            },
        },
    }
}

async fn delete_device(state: &State, user: &User, device_id: &str) -> Result<(), Fault> {
    if live_devices(state, &user.id).await?.iter().any(|live| live == device_id) {
        return Ok(());
    }
    unless_unknown(state.synapse.hurried().delete_device(&user.username, device_id).await)?;
    // A login that took the device in this very moment told Synapse before us: its device is made again.
    if live_devices(state, &user.id).await?.iter().any(|live| live == device_id) {
        state.synapse.hurried().upsert_device(&user.username, device_id, None).await?;
    }
    Ok(())
}

async fn provision(state: &State, user: &User) -> Result<(), Fault> {
    let profile = Profile {
        // Later on the name is the user's own, to change with any Matrix client.
        display_name: match (user.provisioned_at, &user.display_name) {
            (None, Some(name)) => Some(Some(name.clone())),
            _ => None,
        },
        emails: Some(
            texts(state, "SELECT email FROM user_emails WHERE user_id = $1 ORDER BY created_at", &user.id)
                .await?,
        ),
        locked: Some(user.locked_at.is_some()),
    };
    state.synapse.hurried().provision_user(&user.username, &profile).await?;
    if user.provisioned_at.is_none() {
        let mut tx = state.storage.begin(Durability::Relaxed).await?;
        sqlx::query("UPDATE users SET provisioned_at = $2 WHERE id = $1 AND provisioned_at IS NULL")
            .bind(user.id.as_str())
            .bind(state.clock.now().millis())
            .execute(&mut *tx)
            .await
            .map_err(StorageError::from)?;
        tx.commit().await?;
    }
    Ok(())
}

async fn sync_devices(state: &State, user: &User) -> Result<(), Fault> {
    let devices = live_devices(state, &user.id).await?;
    unless_unknown(state.synapse.sync_devices(&user.username, &devices).await)
}

/// Nothing has to be deleted of whom Synapse does not know.
fn unless_unknown(told: Result<(), synapse::Error>) -> Result<(), Fault> {
    match told {
        Err(synapse::Error::NotFound) => Ok(()),
        told => Ok(told?),
    }
}

async fn live_devices(state: &State, user: &UserId) -> Result<Vec<String>, StorageError> {
    texts(state, "SELECT device_id FROM compat_sessions WHERE user_id = $1 AND finished_at IS NULL", user)
        .await
}

/// The first column of what a user has.
async fn texts(state: &State, statement: &'static str, user: &UserId) -> Result<Vec<String>, StorageError> {
    let mut connection = state.storage.read().await?;
    let rows = sqlx::query(statement).bind(user.as_str()).fetch_all(&mut *connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
