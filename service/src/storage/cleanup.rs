//! Deletes what nobody needs any more, a bounded number of rows at a time.

use sqlx::{Executor, Row};

use super::{Backend, Durability, Storage, StorageError, Tx};
use crate::clock::Timestamp;
use crate::domain::limit::micros;

/// How many rows of a table one transaction deletes: the writer is never held for long.
const BATCH: i64 = 500;

/// What is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// Access tokens that ended before a moment, but not those of a session's current pair: whether it was used still counts.
    AccessTokens,
    /// Refresh tokens that were exchanged before a moment, but not the last one: its client may not have heard of the next.
    RefreshTokens,
    /// Login tokens that ended before a moment.
    LoginTokens,
    /// Buckets that were full before a moment: they say nothing.
    RateLimits,
    /// Sessions that ended before a moment, with their tokens.
    Sessions,
}

impl Expired {
    /// All kinds, in an order that deletes tokens before their sessions.
    pub const ALL: [Self; 5] =
        [Self::AccessTokens, Self::RefreshTokens, Self::LoginTokens, Self::RateLimits, Self::Sessions];

    /// The word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::AccessTokens => "access_tokens",
            Self::RefreshTokens => "refresh_tokens",
            Self::LoginTokens => "login_tokens",
            Self::RateLimits => "rate_limits",
            Self::Sessions => "sessions",
        }
    }

    fn statements(self, backend: Backend) -> &'static [&'static str] {
        match self {
            // A login holds two of these rows at a time: whoever waits for the one while holding the other would deadlock.
            Self::RateLimits if backend == Backend::Postgres => &[concat!(
                "DELETE FROM rate_limits WHERE bucket IN ",
                "(SELECT bucket FROM rate_limits WHERE full_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"
            )],
            Self::AccessTokens => &[concat!(
                "DELETE FROM compat_access_tokens WHERE hash IN ",
                "(SELECT t.hash FROM compat_access_tokens t WHERE t.expires_at < $1 AND NOT EXISTS ",
                "(SELECT r.hash FROM compat_refresh_tokens r WHERE r.session_id = t.session_id ",
                "AND r.access_token_hash = t.hash AND r.retired_at IS NULL) LIMIT $2)"
            )],
            Self::RefreshTokens => &[concat!(
                "DELETE FROM compat_refresh_tokens WHERE hash IN ",
                "(SELECT r.hash FROM compat_refresh_tokens r JOIN compat_refresh_tokens c ",
                "ON c.session_id = r.session_id AND c.retired_at IS NULL ",
                "WHERE r.retired_at < $1 AND r.generation + 1 < c.generation LIMIT $2)"
            )],
            Self::LoginTokens => &[concat!(
                "DELETE FROM login_tokens WHERE hash IN ",
                "(SELECT hash FROM login_tokens WHERE expires_at < $1 LIMIT $2)"
            )],
            Self::RateLimits => &[concat!(
                "DELETE FROM rate_limits WHERE bucket IN ",
                "(SELECT bucket FROM rate_limits WHERE full_at < $1 LIMIT $2)"
            )],
            Self::Sessions => &[
                concat!(
                    "DELETE FROM compat_access_tokens WHERE session_id IN ",
                    "(SELECT id FROM compat_sessions WHERE finished_at < $1 ORDER BY finished_at, id LIMIT $2)"
                ),
                concat!(
                    "DELETE FROM compat_refresh_tokens WHERE session_id IN ",
                    "(SELECT id FROM compat_sessions WHERE finished_at < $1 ORDER BY finished_at, id LIMIT $2)"
                ),
                concat!(
                    "DELETE FROM compat_sessions WHERE id IN ",
                    "(SELECT id FROM compat_sessions WHERE finished_at < $1 ORDER BY finished_at, id LIMIT $2)"
                ),
            ],
        }
    }
}

/// One process at a time cleans up, until the end of its transaction: two would wait for one another's rows, and delete sessions whose
/// tokens the other is at. On SQLite a writer is alone anyway.
async fn is_ours(tx: &mut Tx) -> Result<bool, StorageError> {
    let row = tx.fetch_one(TRY_LOCK).await?;
    Ok(row.try_get::<String, _>(0)? == "true")
}

/// Deletes one batch of rows that expired before `before`; says how many, and whether there may be more. None while another process is
/// at it.
///
/// # Errors
/// Faults of the database.
pub async fn delete_batch(
    storage: &Storage,
    what: Expired,
    before: Timestamp,
) -> Result<(u64, bool), StorageError> {
    let before = match what {
        Expired::RateLimits => micros(before),
        Expired::AccessTokens | Expired::RefreshTokens | Expired::LoginTokens | Expired::Sessions => {
            before.millis()
        }
    };
    let mut tx = storage.begin(Durability::Relaxed).await?;
    if storage.backend() == Backend::Postgres && !is_ours(&mut tx).await? {
        return Ok((0, false));
    }
    let mut deleted = 0;
    for sql in what.statements(storage.backend()) {
        // The last statement deletes the rows that count.
        deleted = sqlx::query(*sql).bind(before).bind(BATCH).execute(&mut *tx).await?.rows_affected();
    }
    tx.commit().await?;
    Ok((deleted, i64::try_from(deleted).unwrap_or(BATCH) >= BATCH))
}

/// Any number will do as long as it stays the same; two services may live in two schemas of one database.
const TRY_LOCK: &str =
    "SELECT CAST(pg_try_advisory_xact_lock(714631094, hashtext(current_schema())) AS TEXT)";
