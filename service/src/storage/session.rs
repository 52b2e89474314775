//! Compat sessions and their tokens.

use std::net::IpAddr;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{StorageError, Tx, optional_time};
use crate::clock::Timestamp;
use crate::domain::session::{Presented, Session};
use crate::domain::{SessionId, UserId};
use crate::token::TokenHash;

/// An access token that somebody asks about, and what is known of its session and user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspected {
    /// The session it belongs to.
    pub session_id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The user's localpart.
    pub username: String,
    /// The session's device.
    pub device_id: String,
    /// When the token was issued.
    pub created_at: Timestamp,
    /// When the token ends; `None`: with its session.
    pub expires_at: Option<Timestamp>,
    /// When it was first asked about.
    pub first_used_at: Option<Timestamp>,
    /// When the session was last active, as far as written down.
    pub last_active_at: Option<Timestamp>,
    /// When the session ended.
    pub finished_at: Option<Timestamp>,
    /// Since when the user is locked.
    pub locked_at: Option<Timestamp>,
    /// Since when the user is deactivated.
    pub deactivated_at: Option<Timestamp>,
}

impl Introspected {
    /// Whether the token is good at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.finished_at.is_none()
            && self.locked_at.is_none()
            && self.deactivated_at.is_none()
            && self.expires_at.is_none_or(|end| end > now)
    }
}

/// Writes a new session down.
///
/// # Errors
/// [`StorageError::Exists`] when the user has a live session on that device.
pub async fn insert(tx: &mut Tx, session: &Session) -> Result<(), StorageError> {
    sqlx::query(concat!(
        "INSERT INTO compat_sessions (id, user_id, device_id, display_name, user_agent, created_at, created_ip, ",
        "last_active_at, last_active_ip) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
    ))
    .bind(session.id.as_str())
    .bind(session.user_id.as_str())
    .bind(&session.device_id)
    .bind(&session.display_name)
    .bind(&session.user_agent)
    .bind(session.created_at.millis())
    .bind(&session.created_ip)
    .bind(session.last_active_at.map(Timestamp::millis))
    .bind(&session.last_active_ip)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Writes an access token down.
///
/// # Errors
/// Faults of the database.
pub async fn insert_access_token(
    tx: &mut Tx,
    session: &SessionId,
    hash: &TokenHash,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO compat_access_tokens (hash, session_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(hash.as_str())
    .bind(session.as_str())
    .bind(now.millis())
    .bind(expires_at.map(Timestamp::millis))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Writes a refresh token down: the current one of its session.
///
/// # Errors
/// Faults of the database.
pub async fn insert_refresh_token(
    tx: &mut Tx,
    session: &SessionId,
    hash: &TokenHash,
    access_token: &TokenHash,
    generation: i64,
    now: Timestamp,
) -> Result<(), StorageError> {
    sqlx::query(concat!(
        "INSERT INTO compat_refresh_tokens (hash, session_id, access_token_hash, generation, created_at) ",
        "VALUES ($1, $2, $3, $4, $5)"
    ))
    .bind(hash.as_str())
    .bind(session.as_str())
    .bind(access_token.as_str())
    .bind(generation)
    .bind(now.millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Retires whatever refresh token of the session is current, and ends its access tokens that end at all.
///
/// # Errors
/// Faults of the database.
pub async fn retire_tokens(tx: &mut Tx, session: &SessionId, now: Timestamp) -> Result<(), StorageError> {
    sqlx::query(
        "UPDATE compat_refresh_tokens SET retired_at = $2 WHERE session_id = $1 AND retired_at IS NULL",
    )
    .bind(session.as_str())
    .bind(now.millis())
    .execute(&mut **tx)
    .await?;
    sqlx::query("UPDATE compat_access_tokens SET expires_at = $2 WHERE session_id = $1 AND expires_at > $2")
        .bind(session.as_str())
        .bind(now.millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The access token with its session and its user: the one query of the hot path.
///
/// # Errors
/// Faults of the database.
pub async fn by_access_token(
    connection: &mut AnyConnection,
    hash: &TokenHash,
) -> Result<Option<Introspected>, StorageError> {
    let row = sqlx::query(concat!(
        "SELECT t.created_at, t.expires_at, t.first_used_at, ",
        "s.id, s.user_id, s.device_id, s.last_active_at, s.finished_at, ",
        "u.username, u.locked_at, u.deactivated_at ",
        "FROM compat_access_tokens t ",
        "JOIN compat_sessions s ON s.id = t.session_id ",
        "JOIN users u ON u.id = s.user_id ",
        "WHERE t.hash = $1"
    ))
    .bind(hash.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Introspected {
        session_id: SessionId::from_stored(row.try_get("id")?),
        user_id: UserId::from_stored(row.try_get("user_id")?),
        username: row.try_get("username")?,
        device_id: row.try_get("device_id")?,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        expires_at: optional_time(&row, "expires_at")?,
        first_used_at: optional_time(&row, "first_used_at")?,
        last_active_at: optional_time(&row, "last_active_at")?,
        finished_at: optional_time(&row, "finished_at")?,
        locked_at: optional_time(&row, "locked_at")?,
        deactivated_at: optional_time(&row, "deactivated_at")?,
    }))
}

/// Remembers that an access token has been used.
///
/// # Errors
/// Faults of the database.
pub async fn mark_used(tx: &mut Tx, hash: &TokenHash, now: Timestamp) -> Result<(), StorageError> {
    sqlx::query(
        "UPDATE compat_access_tokens SET first_used_at = $2 WHERE hash = $1 AND first_used_at IS NULL",
    )
    .bind(hash.as_str())
    .bind(now.millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Whose a refresh token is.
///
/// # Errors
/// Faults of the database.
pub async fn owner_of_refresh_token(
    connection: &mut AnyConnection,
    hash: &TokenHash,
) -> Result<Option<UserId>, StorageError> {
    let row = sqlx::query(concat!(
        "SELECT s.user_id FROM compat_refresh_tokens r JOIN compat_sessions s ON s.id = r.session_id ",
        "WHERE r.hash = $1"
    ))
    .bind(hash.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.try_get(0).map(UserId::from_stored)).transpose()?)
}

/// A refresh token with its session, and what became of the session's current pair. After [`super::user::hold`].
///
/// # Errors
/// Faults of the database.
pub async fn by_refresh_token(
    tx: &mut Tx,
    hash: &TokenHash,
) -> Result<Option<(Session, Presented)>, StorageError> {
    let row = sqlx::query(concat!(
        "SELECT r.generation, r.retired_at, ",
        "c.generation AS current_generation, a.hash AS current_access, a.first_used_at AS current_first_used_at, ",
        "s.id, s.user_id, s.device_id, s.display_name, s.user_agent, s.created_at, s.created_ip, ",
        "s.last_active_at, s.last_active_ip, s.finished_at ",
        "FROM compat_refresh_tokens r ",
        "JOIN compat_sessions s ON s.id = r.session_id ",
        "LEFT JOIN compat_refresh_tokens c ON c.session_id = r.session_id AND c.retired_at IS NULL ",
        "LEFT JOIN compat_access_tokens a ON a.hash = c.access_token_hash ",
        "WHERE r.hash = $1"
    ))
    .bind(hash.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let generation = row.try_get("generation")?;
    let presented = Presented {
        generation,
        is_current: optional_time(&row, "retired_at")?.is_none(),
        current_generation: row.try_get::<Option<i64>, _>("current_generation")?.unwrap_or(i64::MAX),
        current_was_used: row.try_get::<Option<String>, _>("current_access")?.is_none()
            || optional_time(&row, "current_first_used_at")?.is_some(),
    };
    Ok(Some((read(&row)?, presented)))
}

/// Ends a session. `false`: it had ended before.
///
/// # Errors
/// Faults of the database.
pub async fn finish(tx: &mut Tx, session: &SessionId, now: Timestamp) -> Result<bool, StorageError> {
    let done =
        sqlx::query("UPDATE compat_sessions SET finished_at = $2 WHERE id = $1 AND finished_at IS NULL")
            .bind(session.as_str())
            .bind(now.millis())
            .execute(&mut **tx)
            .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends the user's live session on a device, if there is one.
///
/// # Errors
/// Faults of the database.
pub async fn finish_on_device(
    tx: &mut Tx,
    user: &UserId,
    device_id: &str,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let done = sqlx::query(concat!(
        "UPDATE compat_sessions SET finished_at = $3 ",
        "WHERE user_id = $1 AND device_id = $2 AND finished_at IS NULL"
    ))
    .bind(user.as_str())
    .bind(device_id)
    .bind(now.millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The user's sessions, oldest first; the live ones only, or all.
///
/// # Errors
/// Faults of the database.
pub async fn of_user(
    connection: &mut AnyConnection,
    user: &UserId,
    live_only: bool,
) -> Result<Vec<Session>, StorageError> {
    let rows = sqlx::query(concat!(
        "SELECT id, user_id, device_id, display_name, user_agent, created_at, created_ip, last_active_at, ",
        "last_active_ip, finished_at FROM compat_sessions ",
        "WHERE user_id = $1 AND (finished_at IS NULL OR $2 = 0) ORDER BY id"
    ))
    .bind(user.as_str())
    .bind(i64::from(live_only))
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

/// Whether a live session of the user has this device: then it must not be deleted at Synapse.
///
/// # Errors
/// Faults of the database.
pub async fn has_device(
    connection: &mut AnyConnection,
    user: &UserId,
    device_id: &str,
) -> Result<bool, StorageError> {
    let row = sqlx::query(concat!(
        "SELECT id FROM compat_sessions ",
        "WHERE user_id = $1 AND device_id = $2 AND finished_at IS NULL"
    ))
    .bind(user.as_str())
    .bind(device_id)
    .fetch_optional(connection)
    .await?;
    Ok(row.is_some())
}

/// What a device of the user was called in its last session; `None` when it never had one.
///
/// # Errors
/// Faults of the database.
pub async fn last_name_on_device(
    connection: &mut AnyConnection,
    user: &UserId,
    device_id: &str,
) -> Result<Option<Option<String>>, StorageError> {
    let row = sqlx::query(concat!(
        "SELECT display_name FROM compat_sessions WHERE user_id = $1 AND device_id = $2 ",
        "ORDER BY finished_at IS NULL DESC, id DESC LIMIT 1"
    ))
    .bind(user.as_str())
    .bind(device_id)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Writes down when a session was last active, and from where if that is known.
///
/// # Errors
/// Faults of the database.
pub async fn touch(
    tx: &mut Tx,
    session: &SessionId,
    at: Timestamp,
    ip: Option<IpAddr>,
) -> Result<(), StorageError> {
    sqlx::query(concat!(
        "UPDATE compat_sessions SET last_active_at = $2, last_active_ip = COALESCE($3, last_active_ip) ",
        "WHERE id = $1 AND (last_active_at IS NULL OR last_active_at < $2)"
    ))
    .bind(session.as_str())
    .bind(at.millis())
    .bind(ip.map(|ip| ip.to_string()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<Session, StorageError> {
    Ok(Session {
        id: SessionId::from_stored(row.try_get("id")?),
        user_id: UserId::from_stored(row.try_get("user_id")?),
        device_id: row.try_get("device_id")?,
        display_name: row.try_get("display_name")?,
        user_agent: row.try_get("user_agent")?,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        created_ip: row.try_get("created_ip")?,
        last_active_at: optional_time(row, "last_active_at")?,
        last_active_ip: row.try_get("last_active_ip")?,
        finished_at: optional_time(row, "finished_at")?,
    })
}
