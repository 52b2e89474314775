//! Brings the schema up to date at start.
//!
//! All missing migrations run in one transaction, under a lock that other starting processes wait for; a schema from a later
//! version is refused. Migrations are only ever added, never edited.

use sqlx::{Executor, Row};

use super::{Backend, Durability, Storage, StorageError};
use crate::clock::Timestamp;

/// Runs what is missing.
pub(super) async fn run(storage: &Storage, now: Timestamp) -> Result<(), StorageError> {
    let mut tx = storage.begin(Durability::Full).await?;
    if tx.backend() == Backend::Postgres {
        tx.execute(ADVISORY_LOCK).await?;
    }
    tx.execute(VERSION_TABLE).await?;
    let row = tx.fetch_one("SELECT COALESCE(MAX(version), 0) FROM schema_version").await?;
    let found: i64 = row.try_get(0)?;
    let known = MIGRATIONS.last().map_or(0, |(version, _)| *version);
    if found > known {
        return Err(StorageError::NewerSchema { found, known });
    }
    for (version, sql) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        sqlx::raw_sql(*sql).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO schema_version (version, applied_at) VALUES ($1, $2)")
            .bind(*version)
            .bind(now.millis())
            .execute(&mut *tx)
            .await?;
        tracing::info!(version, "database schema updated");
    }
    tx.commit().await
}

const MIGRATIONS: [(i64, &str); 1] = [(1, include_str!("migrations/0001_accounts.sql"))];

const VERSION_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)";

/// Any number will do as long as it stays the same; held until the transaction ends.
const ADVISORY_LOCK: &str = "SELECT CAST(pg_advisory_xact_lock(7146310942) AS TEXT)";
