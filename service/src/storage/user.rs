//! Users, their e-mail addresses and passwords.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Backend, StorageError, Tx, optional_time};
use crate::clock::Timestamp;
use crate::domain::UserId;
use crate::domain::user::User;
use crate::password::Stored;

/// How a login names its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The localpart of the Matrix id.
    Username(String),
    /// An e-mail address of the user, as it is compared: see [`crate::domain::user::email_key`].
    Email(String),
}

/// Keeps everyone else from changing anything of this user until the transaction ends. First in every transaction that decides
/// by what it read; free on SQLite, where the transaction is alone anyway.
///
/// # Errors
/// Faults of the database.
pub async fn hold(tx: &mut Tx, user: &UserId) -> Result<(), StorageError> {
    if tx.backend() == Backend::Postgres {
        sqlx::query("SELECT id FROM users WHERE id = $1 FOR UPDATE")
            .bind(user.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Writes a new user down.
///
/// # Errors
/// [`StorageError::Exists`] when the username is taken.
pub async fn insert(tx: &mut Tx, user: &User) -> Result<(), StorageError> {
    sqlx::query(concat!(
        "INSERT INTO users (id, username, display_name, can_request_admin, created_at, locked_at, deactivated_at, ",
        "provisioned_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    ))
    .bind(user.id.as_str())
    .bind(&user.username)
    .bind(&user.display_name)
    .bind(i64::from(user.can_request_admin))
    .bind(user.created_at.millis())
    .bind(user.locked_at.map(Timestamp::millis))
    .bind(user.deactivated_at.map(Timestamp::millis))
    .bind(user.provisioned_at.map(Timestamp::millis))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The user of that name, exactly as written.
///
/// # Errors
/// Faults of the database.
pub async fn by_username(
    connection: &mut AnyConnection,
    username: &str,
) -> Result<Option<User>, StorageError> {
    let row = sqlx::query(concat!(
        "SELECT id, username, display_name, can_request_admin, created_at, locked_at, deactivated_at, provisioned_at ",
        "FROM users WHERE username = $1"
    ))
    .bind(username)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(read).transpose()
}

/// The user with that identifier.
///
/// # Errors
/// Faults of the database.
pub async fn by_id(connection: &mut AnyConnection, id: &UserId) -> Result<Option<User>, StorageError> {
    let row = sqlx::query(concat!(
        "SELECT id, username, display_name, can_request_admin, created_at, locked_at, deactivated_at, provisioned_at ",
        "FROM users WHERE id = $1"
    ))
    .bind(id.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(read).transpose()
}

/// At most `limit` users whose username follows `after`, by username.
///
/// # Errors
/// Faults of the database.
pub async fn list(
    connection: &mut AnyConnection,
    after: &str,
    limit: u32,
) -> Result<Vec<User>, StorageError> {
    let rows = sqlx::query(concat!(
        "SELECT id, username, display_name, can_request_admin, created_at, locked_at, deactivated_at, provisioned_at ",
        "FROM users WHERE username > $1 ORDER BY username LIMIT $2"
    ))
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

/// The user of that name with the stored password, if there is one. A username that nobody has exactly as written is tried in
/// lower case. One query whoever is asked for, so that the time tells nothing.
///
/// # Errors
/// Faults of the database.
pub async fn with_password(
    connection: &mut AnyConnection,
    name: &Name,
) -> Result<Option<(User, Option<Stored>)>, StorageError> {
    let (sql, exact, lower) = match name {
        Name::Username(username) => (
            concat!(
                "SELECT u.id, u.username, u.display_name, u.can_request_admin, u.created_at, u.locked_at, ",
                "u.deactivated_at, u.provisioned_at, p.version, p.hash ",
                "FROM users u LEFT JOIN user_passwords p ON p.user_id = u.id ",
                "WHERE u.username IN ($1, $2) ORDER BY CASE WHEN u.username = $1 THEN 0 ELSE 1 END LIMIT 1"
            ),
            username.clone(),
            username.to_lowercase(),
        ),
        Name::Email(key) => (
            concat!(
                "SELECT u.id, u.username, u.display_name, u.can_request_admin, u.created_at, u.locked_at, ",
                "u.deactivated_at, u.provisioned_at, p.version, p.hash ",
                "FROM user_emails e JOIN users u ON u.id = e.user_id LEFT JOIN user_passwords p ON p.user_id = u.id ",
                "WHERE e.email_key IN ($1, $2) LIMIT 1"
            ),
            key.clone(),
            key.clone(),
        ),
    };
    let row = sqlx::query(sql).bind(exact).bind(lower).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let stored = match row.try_get::<Option<String>, _>("hash")? {
        Some(hash) => {
            let version = u16::try_from(row.try_get::<i64, _>("version")?)
                .map_err(|_| StorageError::Corrupt("password version"))?;
            Some(Stored { version, hash })
        }
        None => None,
    };
    Ok(Some((read(&row)?, stored)))
}

/// Stores a password in place of the earlier one.
///
/// # Errors
/// Faults of the database.
pub async fn set_password(
    tx: &mut Tx,
    user: &UserId,
    password: &Stored,
    now: Timestamp,
) -> Result<(), StorageError> {
    sqlx::query(concat!(
        "INSERT INTO user_passwords (user_id, version, hash, created_at) VALUES ($1, $2, $3, $4) ",
        "ON CONFLICT (user_id) DO UPDATE SET version = $2, hash = $3, created_at = $4"
    ))
    .bind(user.as_str())
    .bind(i64::from(password.version))
    .bind(&password.hash)
    .bind(now.millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Stores a better hash of the same password, unless the password has been changed meanwhile.
///
/// # Errors
/// Faults of the database.
pub async fn upgrade_password(
    tx: &mut Tx,
    user: &UserId,
    old: &Stored,
    new: &Stored,
) -> Result<(), StorageError> {
    sqlx::query("UPDATE user_passwords SET version = $3, hash = $4 WHERE user_id = $1 AND hash = $2")
        .bind(user.as_str())
        .bind(&old.hash)
        .bind(i64::from(new.version))
        .bind(&new.hash)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Forgets password and e-mail addresses.
///
/// # Errors
/// Faults of the database.
pub async fn forget_credentials(tx: &mut Tx, user: &UserId) -> Result<(), StorageError> {
    for sql in [
        "DELETE FROM user_passwords WHERE user_id = $1",
        "DELETE FROM user_emails WHERE user_id = $1",
        "DELETE FROM login_tokens WHERE user_id = $1",
    ] {
        sqlx::query(sql).bind(user.as_str()).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Adds an e-mail address; `key` is what it is compared by.
///
/// # Errors
/// [`StorageError::Exists`] when somebody has it.
pub async fn add_email(
    tx: &mut Tx,
    user: &UserId,
    key: &str,
    email: &str,
    now: Timestamp,
) -> Result<(), StorageError> {
    sqlx::query("INSERT INTO user_emails (email_key, user_id, email, created_at) VALUES ($1, $2, $3, $4)")
        .bind(key)
        .bind(user.as_str())
        .bind(email)
        .bind(now.millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The e-mail addresses of a user, oldest first.
///
/// # Errors
/// Faults of the database.
pub async fn emails(connection: &mut AnyConnection, user: &UserId) -> Result<Vec<String>, StorageError> {
    let rows = sqlx::query("SELECT email FROM user_emails WHERE user_id = $1 ORDER BY created_at, email_key")
        .bind(user.as_str())
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Sets or lifts the lock.
///
/// # Errors
/// Faults of the database.
pub async fn set_locked(tx: &mut Tx, user: &UserId, at: Option<Timestamp>) -> Result<(), StorageError> {
    set_time(tx, "UPDATE users SET locked_at = $2 WHERE id = $1", user, at).await
}

/// Marks as deactivated, or as back.
///
/// # Errors
/// Faults of the database.
pub async fn set_deactivated(tx: &mut Tx, user: &UserId, at: Option<Timestamp>) -> Result<(), StorageError> {
    set_time(tx, "UPDATE users SET deactivated_at = $2 WHERE id = $1", user, at).await
}

/// Remembers that Synapse knows the user.
///
/// # Errors
/// Faults of the database.
pub async fn set_provisioned(tx: &mut Tx, user: &UserId, at: Timestamp) -> Result<(), StorageError> {
    set_time(tx, "UPDATE users SET provisioned_at = $2 WHERE id = $1", user, Some(at)).await
}

/// Sets or removes the display name.
///
/// # Errors
/// Faults of the database.
pub async fn set_display_name(tx: &mut Tx, user: &UserId, name: Option<&str>) -> Result<(), StorageError> {
    sqlx::query("UPDATE users SET display_name = $2 WHERE id = $1")
        .bind(user.as_str())
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn set_time(
    tx: &mut Tx,
    sql: &'static str,
    user: &UserId,
    at: Option<Timestamp>,
) -> Result<(), StorageError> {
    sqlx::query(sql).bind(user.as_str()).bind(at.map(Timestamp::millis)).execute(&mut **tx).await?;
    Ok(())
}

pub(super) fn read(row: &AnyRow) -> Result<User, StorageError> {
    Ok(User {
        id: UserId::from_stored(row.try_get("id")?),
        username: row.try_get("username")?,
        display_name: row.try_get("display_name")?,
        can_request_admin: row.try_get::<i64, _>("can_request_admin")? != 0,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        locked_at: optional_time(row, "locked_at")?,
        deactivated_at: optional_time(row, "deactivated_at")?,
        provisioned_at: optional_time(row, "provisioned_at")?,
    })
}
