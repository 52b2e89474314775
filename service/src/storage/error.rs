//! What can go wrong in the database, as far as callers tell it apart.

use std::path::PathBuf;

/// A fault of the storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// `database.uri` names neither SQLite nor PostgreSQL.
    #[error("the database URI must begin with sqlite: or postgresql:")]
    Scheme,
    /// The database file or its folder cannot be made.
    #[error("cannot make the database file {}", path.display())]
    File {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A later version of the program has used the database.
    #[error(
        "the database has schema version {found}, this program knows {known}: it was used by a later version, which has to be \
         installed again"
    )]
    NewerSchema {
        /// In the database.
        found: i64,
        /// The latest that this program knows.
        known: i64,
    },
    /// A unique name is taken.
    #[error("it exists already")]
    Exists(#[source] sqlx::Error),
    /// No room on the disk: nothing was changed.
    #[error("no room left on the disk of the database")]
    Full(#[source] sqlx::Error),
    /// Too much to do: the deadline for a connection, a lock or one's turn has passed.
    #[error("the database is too busy")]
    Busy,
    /// The database cannot be reached.
    #[error("the database cannot be reached")]
    Unreachable(#[source] sqlx::Error),
    /// Something is stored that nobody can have written.
    #[error("the database holds a value that cannot be right: {0}")]
    Corrupt(&'static str),
    /// Any other fault.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
}

impl StorageError {
    /// Whether trying again in a moment may help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Full(_) | Self::Busy | Self::Unreachable(_) => true,
            Self::Scheme
            | Self::File { .. }
            | Self::NewerSchema { .. }
            | Self::Exists(_)
            | Self::Corrupt(_)
            | Self::Database(_) => false,
        }
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable(error),
            sqlx::Error::Database(fault) if fault.is_unique_violation() => Self::Exists(error),
            sqlx::Error::Database(fault) => match fault.code().as_deref() {
                Some(code) if FULL.contains(&code) => Self::Full(error),
                Some(code) if BUSY.contains(&code) => Self::Busy,
                Some(code) if UNREACHABLE.contains(&code) => Self::Unreachable(error),
                _ => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

/// SQLite 13 `SQLITE_FULL`, 778 `SQLITE_IOERR_WRITE` and 4874 `SQLITE_IOERR_SHMSIZE` (how a full disk shows in the write-ahead
/// log and its index); PostgreSQL 53100 `disk_full`.
const FULL: [&str; 4] = ["13", "778", "4874", "53100"];

/// SQLite's `SQLITE_BUSY` family and `SQLITE_LOCKED`; PostgreSQL's serialization failure, deadlock, lock and statement timeout.
const BUSY: [&str; 9] = ["5", "261", "517", "773", "6", "40001", "40P01", "55P03", "57014"];

/// PostgreSQL: connection faults, too many connections, shutting down, starting up.
const UNREACHABLE: [&str; 8] = ["08000", "08003", "08006", "08001", "53300", "57P01", "57P02", "57P03"];
