//! The buckets of the rate limits.

use sqlx::{AnyConnection, Row};

use super::{StorageError, Tx};
use crate::clock::Timestamp;
use crate::domain::limit::{Bucket, micros};

/// Takes a token, even one that is not there: an empty bucket stays empty, so no row is ever further away than its capacity.
///
/// # Errors
/// Faults of the database.
pub async fn take(tx: &mut Tx, bucket: &Bucket, now: Timestamp) -> Result<(), StorageError> {
    // One statement, so that two takers never take the same token.
    sqlx::query(concat!(
        "INSERT INTO rate_limits (bucket, full_at) VALUES ($1, $2 + $3) ",
        "ON CONFLICT (bucket) DO UPDATE SET full_at = CASE ",
        "WHEN rate_limits.full_at > $5 THEN $2 + $3 ",
        "WHEN rate_limits.full_at > $2 + $4 - $3 THEN $2 + $4 ",
        "WHEN rate_limits.full_at > $2 THEN rate_limits.full_at + $3 ELSE $2 + $3 END"
    ))
    .bind(&bucket.name)
    .bind(micros(now))
    .bind(bucket.interval_micros)
    .bind(bucket.capacity_micros)
    .bind(bucket.latest_believable(now))
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
