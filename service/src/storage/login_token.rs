//! Login tokens (`m.login.token`): single use, short-lived.

use sqlx::{AnyConnection, Row};

use super::{StorageError, Tx};
use crate::clock::Timestamp;
use crate::domain::UserId;
use crate::token::TokenHash;

/// Writes one down.
///
/// # Errors
/// Faults of the database.
pub async fn insert(
    tx: &mut Tx,
    hash: &TokenHash,
    user: &UserId,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), StorageError> {
    sqlx::query("INSERT INTO login_tokens (hash, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)")
        .bind(hash.as_str())
        .bind(user.as_str())
        .bind(now.millis())
        .bind(expires_at.millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Whose it is, if it is still good.
///
/// # Errors
/// Faults of the database.
pub async fn owner(
    connection: &mut AnyConnection,
    hash: &TokenHash,
    now: Timestamp,
) -> Result<Option<UserId>, StorageError> {
    let row = sqlx::query("SELECT user_id FROM login_tokens WHERE hash = $1 AND expires_at > $2")
        .bind(hash.as_str())
        .bind(now.millis())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0).map(UserId::from_stored)).transpose()?)
}

/// Uses it up. `false`: somebody was faster.
///
/// # Errors
/// Faults of the database.
pub async fn consume(tx: &mut Tx, hash: &TokenHash) -> Result<bool, StorageError> {
    let gone = sqlx::query("DELETE FROM login_tokens WHERE hash = $1")
        .bind(hash.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(gone.rows_affected() > 0)
}
