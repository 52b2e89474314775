//! The buckets of the rate limits.

use sqlx::{AnyConnection, Row};

use super::{StorageError, Tx};
use crate::clock::Timestamp;
use crate::domain::limit::{Bucket, micros};

/// Takes a token, even one that is not there.
///
/// # Errors
/// Faults of the database.
pub async fn take(tx: &mut Tx, bucket: &Bucket, now: Timestamp) -> Result<(), StorageError> {
    // One statement, so that two takers never take the same token.
    sqlx::query(concat!(
        "INSERT INTO rate_limits (bucket, full_at) VALUES ($1, $2 + $3) ",
        "ON CONFLICT (bucket) DO UPDATE SET full_at = ",
        "(CASE WHEN rate_limits.full_at > $2 THEN rate_limits.full_at ELSE $2 END) + $3"
    ))
    .bind(&bucket.name)
    .bind(micros(now))
    .bind(bucket.interval_micros)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The moment at which the bucket is full again, in microseconds.
///
/// # Errors
/// Faults of the database.
pub async fn full_at(connection: &mut AnyConnection, bucket: &Bucket) -> Result<Option<i64>, StorageError> {
    let row = sqlx::query("SELECT full_at FROM rate_limits WHERE bucket = $1")
        .bind(&bucket.name)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}
