//! What each job does. Each reads how things stand now, and may be done twice.

use super::Job;
use crate::domain::UserId;
use crate::domain::user::User;
use crate::state::State;
use crate::storage::{Durability, StorageError, session, user};
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
    if is_live(state, &user.id, device_id).await? {
        return Ok(());
    }
    unless_unknown(state.synapse.hurried().delete_device(&user.username, device_id).await)?;
    // A login that took the device in this very moment may have told Synapse before us: its device is made again.
    if is_live(state, &user.id, device_id).await? {
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
        emails: Some(user::emails(&mut *state.storage.read().await?, &user.id).await?),
        locked: Some(user.locked_at.is_some()),
    };
    state.synapse.hurried().provision_user(&user.username, &profile).await?;
    if user.provisioned_at.is_none() {
        let mut tx = state.storage.begin(Durability::Relaxed).await?;
        user::set_provisioned(&mut tx, &user.id, state.clock.now()).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn sync_devices(state: &State, user: &User) -> Result<(), Fault> {
    let live = session::of_user(&mut *state.storage.read().await?, &user.id, true).await?;
    let devices: Vec<String> = live.into_iter().map(|session| session.device_id).collect();
    unless_unknown(state.synapse.sync_devices(&user.username, &devices).await)
}

async fn is_live(state: &State, user: &UserId, device_id: &str) -> Result<bool, StorageError> {
    session::has_device(&mut *state.storage.read().await?, user, device_id).await
}

/// Nothing has to be deleted of whom Synapse does not know.
fn unless_unknown(told: Result<(), synapse::Error>) -> Result<(), Fault> {
    match told {
        Err(synapse::Error::NotFound) => Ok(()),
        told => Ok(told?),
    }
}
