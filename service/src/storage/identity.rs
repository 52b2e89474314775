//! Which database it is, whatever it is reached by: two URIs may lead to the same one.

use std::fmt;
use std::os::unix::fs::MetadataExt;

use sqlx::Row;

use super::{Backend, Storage, StorageError, sqlite_path};

/// Equal for two connections to the same database.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// SQLite's file.
    File {
        /// The file system it is on.
        device: u64,
        /// Which file.
        inode: u64,
    },
    /// A schema of a database of a PostgreSQL cluster.
    Schema {
        /// PostgreSQL's own identifier of the cluster, database and schema.
        text: String,
    },
    /// Nothing better is known than how it is reached. May hold a password.
    Uri(String),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { device, inode } => write!(f, "file {device}:{inode}"),
            Self::Schema { text } => write!(f, "schema {text}"),
            Self::Uri(_) => f.write_str("<redacted>"),
        }
    }
}

/// Asks the database, or its file.
///
/// # Errors
/// Faults of the database; a server that does not tell its identifier is none.
pub(super) async fn of(storage: &Storage, uri: &str) -> Result<Identity, StorageError> {
    let found = match storage.backend {
        Backend::Sqlite => match sqlite_path(uri).map(|path| path.metadata()) {
            Some(Ok(file)) => Some(Identity::File { device: file.dev(), inode: file.ino() }),
            Some(Err(_)) | None => None,
        },
        Backend::Postgres => {
            let row = sqlx::query(CLUSTER).fetch_one(&mut *storage.read().await?).await;
            let text = row.and_then(|row| row.try_get("identity"));
            if let Err(error) = &text {
                tracing::debug!(%error, "the database server does not say which one it is");
            }
            text.ok().map(|text| Identity::Schema { text })
        }
    };
    Ok(found.unwrap_or_else(|| Identity::Uri(uri.to_owned())))
}

const CLUSTER: &str = concat!(
    "SELECT CAST(system_identifier AS TEXT) || ' ' || current_database() || ' ' || COALESCE(current_schema(), '') AS identity ",
    "FROM pg_control_system()"
);
