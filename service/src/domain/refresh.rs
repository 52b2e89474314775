//! Exchanging a refresh token for a new pair.

use crate::domain::login::{Tokens, issue};
use crate::domain::session::Exchange;
use crate::outbox::{self, Job};
use crate::state::SharedState;
use crate::storage::{self, Durability, StorageError};
use crate::token::TokenHash;

/// Why there is no new pair.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// No such token, or its session has ended.
    #[error("unknown refresh token")]
    Unknown,
    /// The account is locked.
    #[error("the account is locked")]
    Locked,
    /// The database failed.
    #[error("the database failed")]
    Storage(#[from] StorageError),
}

/// Exchanges `token`. What an old token may still do is [`crate::domain::session::Presented::exchange`]'s decision.
///
/// # Errors
/// [`RefreshError`]; a stolen token is unknown, and its session has ended.
pub async fn refresh(
    state: &SharedState,
    token: &str,
    ip: Option<std::net::IpAddr>,
) -> Result<Tokens, RefreshError> {
    let hash = TokenHash::of_presented(token).ok_or(RefreshError::Unknown)?;
    let owner = storage::session::owner_of_refresh_token(&mut *state.storage.read().await?, &hash).await?;
    let owner = owner.ok_or(RefreshError::Unknown)?;

    let now = state.clock.now();
    let mut tx = state.storage.begin(Durability::Full).await?;
    storage::user::hold(&mut tx, &owner).await?;
    let user = storage::user::by_id(&mut tx, &owner).await?.ok_or(RefreshError::Unknown)?;
    if user.deactivated_at.is_some() {
        return Err(RefreshError::Unknown);
    }
    if user.locked_at.is_some() {
        return Err(RefreshError::Locked);
    }
    let found = storage::session::by_refresh_token(&mut tx, &hash).await?;
    let (session, presented) = found.ok_or(RefreshError::Unknown)?;
    if session.finished_at.is_some() {
        return Err(RefreshError::Unknown);
    }
    match presented.exchange() {
        Exchange::NewPair(generation) => {
            storage::session::retire_tokens(&mut tx, &session.id, now).await?;
            let tokens = issue(state, &mut tx, &user.id, &session.id, Some(generation), now).await?;
            storage::session::touch(&mut tx, &session.id, now, ip).await?;
            tx.commit().await?;
            Ok(tokens)
        }
        Exchange::Stolen => {
            storage::session::finish(&mut tx, &session.id, now).await?;
            let device_id = session.device_id;
            let job = Job::DeleteDevice { user: user.id, localpart: user.username, device_id };
            outbox::enqueue(&mut tx, &job, now).await?;
            tx.commit().await?;
            state.outbox.kick();
            tracing::warn!(session = %session.id, "an old refresh token was used again: the session is ended");
            Err(RefreshError::Unknown)
        }
    }
}
