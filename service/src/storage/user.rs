//! Users, their e-mail addresses and passwords.

use sqlx::AnyConnection;

use super::{Backend, StorageError, Tx};
use crate::clock::Timestamp;
use crate::domain::UserId;
use crate::domain::user::User;

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

pub(super) fn read(row: &sqlx::any::AnyRow) -> Result<User, StorageError> {
    use sqlx::Row;
    let time = |column: &str| -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
    };
    Ok(User {
        id: UserId::from_stored(row.try_get("id")?),
        username: row.try_get("username")?,
        display_name: row.try_get("display_name")?,
        can_request_admin: row.try_get::<i64, _>("can_request_admin")? != 0,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        locked_at: time("locked_at")?,
        deactivated_at: time("deactivated_at")?,
        provisioned_at: time("provisioned_at")?,
    })
}
