//! The outbox table: jobs that are due, who is at them, what became of them. What a job does is in `outbox`.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Backend, StorageError, Tx};
use crate::clock::Timestamp;
use crate::domain::UserId;

/// Due, free, and the oldest of its user.
macro_rules! due {
    () => {
        concat!(
            "SELECT job_key, payload, attempts, revision FROM outbox AS job ",
            "WHERE next_attempt_at <= $1 AND leased_until <= $1 AND NOT EXISTS (SELECT earlier.job_key FROM outbox AS earlier ",
            "WHERE earlier.user_id = job.user_id AND earlier.position < job.position) ORDER BY next_attempt_at"
        )
    };
}

/// A job that is ours until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// What names it.
    pub key: String,
    /// The job as JSON.
    pub payload: String,
    /// How often it was tried before.
    pub attempts: u32,
    revision: i64,
}

/// Writes a job down, due at once. One that is there already is asked for again: it keeps its place, and is done once more if
/// somebody is at it.
///
/// # Errors
/// Faults of the database.
pub async fn insert(
    tx: &mut Tx,
    key: &str,
    user: &UserId,
    payload: &str,
    now: Timestamp,
) -> Result<(), StorageError> {
    sqlx::query(INSERT)
        .bind(key)
        .bind(user.as_str())
        .bind(payload)
        .bind(now.millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Whether there is anything to claim; cheap, and takes no lock.
///
/// # Errors
/// Faults of the database.
pub async fn is_any_due(connection: &mut AnyConnection, now: Timestamp) -> Result<bool, StorageError> {
    let row =
        sqlx::query("SELECT job_key FROM outbox WHERE next_attempt_at <= $1 AND leased_until <= $1 LIMIT 1")
            .bind(now.millis())
            .fetch_optional(connection)
            .await?;
    Ok(row.is_some())
}

/// How many jobs are waiting or being done.
///
/// # Errors
/// Faults of the database.
pub async fn count(connection: &mut AnyConnection) -> Result<u64, StorageError> {
    let row = sqlx::query("SELECT COUNT(*) FROM outbox").fetch_one(connection).await?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
}

/// Takes up to `most` due jobs until `lease`: at most one of each user, and always the user's oldest.
///
/// # Errors
/// Faults of the database.
pub async fn claim_due(
    tx: &mut Tx,
    now: Timestamp,
    lease: Timestamp,
    most: usize,
) -> Result<Vec<Claimed>, StorageError> {
    let statement = match tx.backend() {
        Backend::Sqlite => sqlx::query(concat!(due!(), " LIMIT $2")),
        // Another process that claims at this moment passes over these.
        Backend::Postgres => sqlx::query(concat!(due!(), " LIMIT $2 FOR UPDATE SKIP LOCKED")),
    };
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = statement.bind(now.millis()).bind(most).fetch_all(&mut **tx).await?;
    let mut claimed = Vec::with_capacity(rows.len());
    for row in &rows {
        claimed.extend(take(tx, read(row)?, now, lease).await?);
    }
    Ok(claimed)
}

/// Takes one job until `lease`, due or not, the oldest of its user or not; `None` when it is done or somebody is at it.
///
/// # Errors
/// Faults of the database.
pub async fn claim_one(
    tx: &mut Tx,
    key: &str,
    now: Timestamp,
    lease: Timestamp,
) -> Result<Option<Claimed>, StorageError> {
    let found = sqlx::query("SELECT job_key, payload, attempts, revision FROM outbox WHERE job_key = $1")
        .bind(key)
        .fetch_optional(&mut **tx)
        .await?;
    match found {
        Some(row) => take(tx, read(&row)?, now, lease).await,
        None => Ok(None),
    }
}

/// Whether a job is still there, waiting or being done.
///
/// # Errors
/// Faults of the database.
pub async fn exists(connection: &mut AnyConnection, key: &str) -> Result<bool, StorageError> {
    let row = sqlx::query("SELECT job_key FROM outbox WHERE job_key = $1")
        .bind(key)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// The job is done: it goes, unless it was asked for again meanwhile; then it is due at once.
///
/// # Errors
/// Faults of the database.
pub async fn finish(tx: &mut Tx, job: &Claimed, now: Timestamp) -> Result<(), StorageError> {
    let removed = sqlx::query("DELETE FROM outbox WHERE job_key = $1 AND revision = $2")
        .bind(&job.key)
        .bind(job.revision)
        .execute(&mut **tx)
        .await?;
    if removed.rows_affected() == 0 {
        sqlx::query("UPDATE outbox SET leased_until = 0, next_attempt_at = $2 WHERE job_key = $1")
            .bind(&job.key)
            .bind(now.millis())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// The job failed: it is tried again from `next` on.
///
/// # Errors
/// Faults of the database.
pub async fn postpone(tx: &mut Tx, job: &Claimed, next: Timestamp, fault: &str) -> Result<(), StorageError> {
    sqlx::query(concat!(
        "UPDATE outbox SET leased_until = 0, last_error = $4, ",
        "next_attempt_at = CASE WHEN revision = $2 THEN $3 ELSE next_attempt_at END WHERE job_key = $1"
    ))
    .bind(&job.key)
    .bind(job.revision)
    .bind(next.millis())
    .bind(fault)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn take(
    tx: &mut Tx,
    job: Claimed,
    now: Timestamp,
    lease: Timestamp,
) -> Result<Option<Claimed>, StorageError> {
    let taken = sqlx::query(
        "UPDATE outbox SET leased_until = $2, attempts = attempts + 1 WHERE job_key = $1 AND leased_until <= $3",
    )
    .bind(&job.key)
    .bind(lease.millis())
    .bind(now.millis())
    .execute(&mut **tx)
    .await?;
    Ok((taken.rows_affected() == 1).then_some(job))
}

fn read(row: &AnyRow) -> Result<Claimed, StorageError> {
    Ok(Claimed {
        key: row.try_get("job_key")?,
        payload: row.try_get("payload")?,
        attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
        revision: row.try_get("revision")?,
    })
}

const INSERT: &str = concat!(
    "INSERT INTO outbox ",
    "(job_key, user_id, payload, position, revision, attempts, created_at, next_attempt_at, leased_until) ",
    "VALUES ($1, $2, $3, (SELECT COALESCE(MAX(position), 0) + 1 FROM outbox WHERE user_id = $2), 0, 0, $4, $4, 0) ",
    "ON CONFLICT (job_key) DO UPDATE SET payload = excluded.payload, revision = outbox.revision + 1, ",
    "attempts = 0, next_attempt_at = excluded.next_attempt_at"
);
