//! What administrators do with accounts, on the database alone: Synapse hears of it through the outbox.

use crate::clock::{Rng, Timestamp};
use crate::domain::logout::finish_all;
use crate::domain::user::{User, UsernameError, check_new_username, email_key};
use crate::domain::{SessionId, UserId};
use crate::outbox::{self, Job};
use crate::password::Stored;
use crate::storage::{self, Durability, Storage, StorageError, Tx};

/// A user to be.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// The localpart.
    pub username: String,
    /// Shown to others.
    pub display_name: Option<String>,
    /// An address to log in with.
    pub email: Option<String>,
    /// May ask for scopes that administer.
    pub can_request_admin: bool,
    /// Without one nobody can log in by password.
    pub password: Option<Stored>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is no such user.
    #[error("there is no such user")]
    NotFound,
    /// Not a username.
    #[error(transparent)]
    Username(#[from] UsernameError),
    /// Not an e-mail address.
    #[error("not an e-mail address")]
    Email,
    /// Somebody has the name already.
    #[error("the username is taken")]
    UsernameTaken,
    /// Somebody has the address already.
    #[error("the e-mail address belongs to another user")]
    EmailTaken,
    /// It is deactivated.
    #[error("the account is deactivated")]
    Deactivated,
    /// The database failed.
    #[error("the database failed")]
    Storage(#[from] StorageError),
}

/// Makes an account; Synapse is told of it soon, and at the latest at the first login.
///
/// # Errors
/// [`AccountError`]; nothing is made then.
pub async fn create(
    storage: &Storage,
    server_name: &str,
    new: &NewUser,
    now: Timestamp,
    rng: &Rng,
) -> Result<User, AccountError> {
    check_new_username(&new.username, server_name)?;
    let email = match &new.email {
        Some(email) => Some((email_key(email).ok_or(AccountError::Email)?, email.trim())),
        None => None,
    };
    let user = User {
        id: UserId::new(now, rng),
        username: new.username.clone(),
        display_name: new.display_name.clone(),
        can_request_admin: new.can_request_admin,
        created_at: now,
        locked_at: None,
        deactivated_at: None,
        provisioned_at: None,
    };
    let mut tx = storage.begin(Durability::Full).await?;
    storage::user::insert(&mut tx, &user).await.map_err(|error| match error {
        StorageError::Exists(_) => AccountError::UsernameTaken,
        other => other.into(),
    })?;
    if let Some((key, email)) = email {
        storage::user::add_email(&mut tx, &user.id, &key, email, now).await.map_err(|error| match error {
            StorageError::Exists(_) => AccountError::EmailTaken,
            other => other.into(),
        })?;
    }
    if let Some(password) = &new.password {
        storage::user::set_password(&mut tx, &user.id, password, now).await?;
    }
    outbox::enqueue(&mut tx, &Job::ProvisionUser { user: user.id.clone() }, now).await?;
    tx.commit().await?;
    Ok(user)
}

/// Replaces the password; with `end_sessions` everybody who is logged in has to log in again. Says how many sessions ended.
///
/// # Errors
/// [`AccountError`]
pub async fn set_password(
    storage: &Storage,
    user: &UserId,
    password: &Stored,
    end_sessions: bool,
    now: Timestamp,
) -> Result<usize, AccountError> {
    let (mut tx, user) = held(storage, user).await?;
    if user.deactivated_at.is_some() {
        return Err(AccountError::Deactivated);
    }
    storage::user::set_password(&mut tx, &user.id, password, now).await?;
    let ended = match end_sessions {
        true => finish_all(&mut tx, &user.id, &user.username, now).await?.len(),
        false => 0,
    };
    tx.commit().await?;
    Ok(ended)
}

/// Locks the account: no login, and every session ends, because only deleting the devices ends what Synapse remembers of their tokens,
/// and a client whose device was deleted has to begin anew. Says how many sessions ended.
///
/// # Errors
/// [`AccountError`]
pub async fn lock(storage: &Storage, user: &UserId, now: Timestamp) -> Result<usize, AccountError> {
    let (mut tx, user) = held(storage, user).await?;
    if user.locked_at.is_none() {
        storage::user::set_locked(&mut tx, &user.id, Some(now)).await?;
    }
    let ended = finish_all(&mut tx, &user.id, &user.username, now).await?;
    outbox::enqueue(&mut tx, &Job::ProvisionUser { user: user.id }, now).await?;
    tx.commit().await?;
    Ok(ended.len())
}

/// Lifts the lock.
///
/// # Errors
/// [`AccountError`]
pub async fn unlock(storage: &Storage, user: &UserId, now: Timestamp) -> Result<(), AccountError> {
    let (mut tx, user) = held(storage, user).await?;
    storage::user::set_locked(&mut tx, &user.id, None).await?;
    outbox::enqueue(&mut tx, &Job::ProvisionUser { user: user.id }, now).await?;
    Ok(tx.commit().await?)
}

/// Deactivates the account: sessions end, password and addresses are forgotten, Synapse deactivates the user and with `erase` hides its
/// messages from people who join later. The username stays taken. Says how many sessions ended.
///
/// # Errors
/// [`AccountError`]
pub async fn deactivate(
    storage: &Storage,
    user: &UserId,
    erase: bool,
    now: Timestamp,
) -> Result<usize, AccountError> {
    let (mut tx, user) = held(storage, user).await?;
    if user.deactivated_at.is_none() {
        storage::user::set_deactivated(&mut tx, &user.id, Some(now)).await?;
    }
    let ended = finish_all(&mut tx, &user.id, &user.username, now).await?;
    storage::user::forget_credentials(&mut tx, &user.id).await?;
    outbox::enqueue(&mut tx, &Job::DeleteUser { user: user.id, erase }, now).await?;
    tx.commit().await?;
    Ok(ended.len())
}

/// Undoes a deactivation; a new password has to be set.
///
/// # Errors
/// [`AccountError`]
pub async fn reactivate(storage: &Storage, user: &UserId, now: Timestamp) -> Result<(), AccountError> {
    let (mut tx, user) = held(storage, user).await?;
    storage::user::set_deactivated(&mut tx, &user.id, None).await?;
    outbox::enqueue(&mut tx, &Job::ReactivateUser { user: user.id }, now).await?;
    Ok(tx.commit().await?)
}

/// Ends all sessions of the user. Says how many.
///
/// # Errors
/// [`AccountError`]
pub async fn end_sessions(storage: &Storage, user: &UserId, now: Timestamp) -> Result<usize, AccountError> {
    let (mut tx, user) = held(storage, user).await?;
    let ended = finish_all(&mut tx, &user.id, &user.username, now).await?;
    tx.commit().await?;
    Ok(ended.len())
}

/// Ends one session of the user. `false`: it is not live.
///
/// # Errors
/// [`AccountError`]
pub async fn end_session(
    storage: &Storage,
    user: &UserId,
    session: &SessionId,
    now: Timestamp,
) -> Result<bool, AccountError> {
    let (mut tx, user) = held(storage, user).await?;
    let live = storage::session::of_user(&mut tx, &user.id, true).await?;
    let Some(session) = live.into_iter().find(|live| live.id == *session) else {
        return Ok(false);
    };
    storage::session::finish(&mut tx, &session.id, now).await?;
    let job = Job::DeleteDevice { user: user.id, localpart: user.username, device_id: session.device_id };
    outbox::enqueue(&mut tx, &job, now).await?;
    tx.commit().await?;
    Ok(true)
}

/// A transaction in which nobody else changes the user.
async fn held(storage: &Storage, user: &UserId) -> Result<(Tx, User), AccountError> {
    let mut tx = storage.begin(Durability::Full).await?;
    storage::user::hold(&mut tx, user).await?;
    let user = storage::user::by_id(&mut tx, user).await?.ok_or(AccountError::NotFound)?;
    Ok((tx, user))
}
