//! Where everything is kept: one code path for SQLite and PostgreSQL over sqlx's `Any`.
//!
//! Reads take any connection. Writes go through [`Storage::begin`]: on SQLite one writer at a time, waiting in turn, whose
//! transaction begins `IMMEDIATE`, so that nothing ever fails with "database is locked" half-way; on PostgreSQL ordinary
//! transactions, and whoever decides by what it read first takes [`user::hold`]. Statements live in the submodules, one per noun;
//! rules do not live here.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{Any, AnyPoolOptions, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{AnyConnection, AnyPool, Connection, Executor, Row, SqlSafeStr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use error::StorageError;
pub use identity::Identity;

use crate::clock::Timestamp;

pub mod cleanup;
mod error;
mod identity;
pub mod limit;
pub mod login_token;
mod migrate;
pub mod outbox;
pub mod session;
pub mod user;

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    pool: AnyPool,
    backend: Backend,
    /// SQLite allows one writer; waiting here is fair and has a deadline.
    writer: Arc<Semaphore>,
    deadline: Duration,
    identity: Arc<Identity>,
}

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// One file on this machine.
    Sqlite,
    /// A server, shared by several machines perhaps.
    Postgres,
}

/// What must survive what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A committed change survives a power cut: tokens, passwords, locks, jobs.
    Full,
    /// The last moments may be lost in a power cut (not in a crash of this process): activity, rate limits, clean-up.
    Relaxed,
}

/// One transaction that may write; undone when dropped before [`Tx::commit`].
#[derive(Debug)]
pub struct Tx {
    transaction: sqlx::Transaction<'static, Any>,
    backend: Backend,
    durability: Durability,
    _turn: Option<OwnedSemaphorePermit>,
}

/// A connection for reading.
pub type Reader = PoolConnection<Any>;

impl Storage {
    /// Opens `uri` (`sqlite:///path` or `postgresql://…`), makes the file (mode 0600) and its folder when missing, and brings the
    /// schema up to date in one transaction.
    ///
    /// `deadline` bounds the wait for a connection and for one's turn to write.
    ///
    /// # Errors
    /// [`StorageError::NewerSchema`] when a later version of the program has used this database; everything that keeps it from
    /// being opened.
    pub async fn open(
        uri: &str,
        max_connections: u32,
        deadline: Duration,
        now: Timestamp,
    ) -> Result<Self, StorageError> {
        sqlx::any::install_default_drivers();
        let backend = backend(uri)?;
        if let Some(path) = sqlite_path(uri) {
            prepare_file(&path).map_err(|source| StorageError::File { path, source })?;
        }
        let pool = AnyPoolOptions::new()
            .max_connections(max_connections.max(2))
            .acquire_timeout(deadline)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    // SQLite undoes a transaction by itself when the disk is full, which sqlx does not notice: such a connection could
                    // never begin another one.
                    if connection.is_in_transaction() {
                        return Ok(false);
                    }
                    // A server may have closed a connection that lay idle; a busy one is not asked each time.
                    if meta.idle_for > IDLE_BEFORE_PING {
                        return Ok(connection.ping().await.is_ok());
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| Box::pin(prepare_connection(connection, backend)))
            .connect(uri)
            .await;
        let pool = match pool {
            Ok(pool) => pool,
            // The pool has tried again and again, and does not say what was wrong.
            Err(sqlx::Error::PoolTimedOut) => {
                let connected = tokio::time::timeout(deadline, AnyConnection::connect(uri)).await;
                return Err(connected.map_or(StorageError::Busy, |tried| match tried {
                    Ok(_) => StorageError::Busy,
                    Err(error) => error.into(),
                }));
            }
            Err(error) => return Err(error.into()),
        };
        let writer = Arc::new(Semaphore::new(1));
        let mut storage =
            Self { pool, backend, writer, deadline, identity: Arc::new(Identity::Uri(uri.to_owned())) };
        migrate::run(&storage, now).await?;
        storage.identity = Arc::new(identity::of(&storage, uri).await?);
        Ok(storage)
    }

    /// Opens the same or another database in the place of this one, which goes on until its last user is gone. Where it is the same,
    /// both wait for one another's turn to write.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub async fn reopen(
        &self,
        uri: &str,
        max_connections: u32,
        deadline: Duration,
        now: Timestamp,
    ) -> Result<Self, StorageError> {
        let mut next = Self::open(uri, max_connections, deadline, now).await?;
        if next.is_same_database(self) {
            next.writer = self.writer.clone();
        }
        Ok(next)
    }

    /// Whether both are the same database, perhaps by different ways.
    pub fn is_same_database(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Which database it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// A connection for reading. Never hold one while beginning a transaction.
    ///
    /// # Errors
    /// When none is free within the deadline, or the database cannot be reached.
    pub async fn read(&self) -> Result<Reader, StorageError> {
        Ok(self.pool.acquire().await?)
    }

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// When it is not our turn within the deadline, or the database cannot be reached.
    pub async fn begin(&self, durability: Durability) -> Result<Tx, StorageError> {
        match self.backend {
            Backend::Sqlite => {
                let turn = self.within_deadline(self.writer.clone().acquire_owned()).await?;
                let turn = Some(turn.map_err(|_| StorageError::Busy)?);
                let mut connection = self.pool.acquire().await?;
                // Not possible inside a transaction, and remembered by the connection: so it is set each time.
                let pragma = match durability {
                    Durability::Full => "PRAGMA synchronous = FULL",
                    Durability::Relaxed => "PRAGMA synchronous = NORMAL",
                };
                connection.execute(pragma).await?;
                let transaction =
                    sqlx::Transaction::begin(connection, Some(BEGIN_IMMEDIATE.into_sql_str())).await?;
                Ok(Tx { transaction, backend: self.backend, durability, _turn: turn })
            }
            Backend::Postgres => {
                let mut transaction = self.pool.begin().await?;
                if durability == Durability::Relaxed {
                    transaction.execute("SET LOCAL synchronous_commit = off").await?;
                }
                Ok(Tx { transaction, backend: self.backend, durability, _turn: None })
            }
        }
    }

    /// Closes all connections; SQLite then folds its write-ahead log into the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Whether both are the same pool of connections.
    #[cfg(test)]
    pub(crate) fn shares_connections_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.identity, &other.identity)
    }

    /// Whether it was closed.
    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    async fn within_deadline<T>(&self, wait: impl Future<Output = T>) -> Result<T, StorageError> {
        tokio::time::timeout(self.deadline, wait).await.map_err(|_| StorageError::Busy)
    }
}

impl Tx {
    /// Makes the changes last.
    ///
    /// # Errors
    /// Nothing was changed then, unless the connection broke in this very moment.
    pub async fn commit(self) -> Result<(), StorageError> {
        Ok(self.transaction.commit().await?)
    }

    /// Undoes the changes, and returns once that is done.
    ///
    /// # Errors
    /// When the connection broke; the database undoes the changes by itself then.
    pub async fn rollback(self) -> Result<(), StorageError> {
        Ok(self.transaction.rollback().await?)
    }

    /// Which database it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// What it was begun with.
    pub fn durability(&self) -> Durability {
        self.durability
    }
}

impl Deref for Tx {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.transaction
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }
}

async fn prepare_connection(connection: &mut AnyConnection, backend: Backend) -> Result<(), sqlx::Error> {
    match backend {
        Backend::Sqlite => {
            // Another process (`gatehouse user …`) may hold the write lock for a moment.
            connection.execute("PRAGMA busy_timeout = 10000").await?;
            connection.execute("PRAGMA journal_mode = WAL").await?;
            connection.execute("PRAGMA foreign_keys = ON").await?;
            connection.execute("PRAGMA synchronous = FULL").await?;
            // After a burst the write-ahead log gives the room back.
            connection.execute("PRAGMA journal_size_limit = 67108864").await?;
        }
        Backend::Postgres => {
            // A statement that hangs must not hold a connection for ever.
            connection.execute("SET statement_timeout = '30s'").await?;
            connection.execute("SET lock_timeout = '20s'").await?;
            connection.execute("SET idle_in_transaction_session_timeout = '60s'").await?;
        }
    }
    Ok(())
}

/// A time that may not be set.
fn optional_time(row: &AnyRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
}

fn backend(uri: &str) -> Result<Backend, StorageError> {
    match uri.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => Ok(Backend::Sqlite),
        Some("postgres" | "postgresql") => Ok(Backend::Postgres),
        _ => Err(StorageError::Scheme),
    }
}

/// The file of a `sqlite:` URI, percent-decoded; `None` for other databases and for those in memory.
fn sqlite_path(uri: &str) -> Option<PathBuf> {
    let rest = uri.strip_prefix("sqlite:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let path = rest.split('?').next().unwrap_or_default();
    if path.is_empty() || path == ":memory:" {
        return None;
    }
    Some(PathBuf::from(percent_decode(path)))
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let decoded = match (first, tail) {
            (b'%', [high, low, ..]) => hex::decode([*high, *low]).ok(),
            _ => None,
        };
        match decoded {
            Some(byte) => {
                bytes.extend(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn prepare_file(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    Ok(())
}

const BEGIN_IMMEDIATE: &str = "BEGIN IMMEDIATE";

/// A connection that was used this recently is not pinged before use: introspection is the hot path.
const IDLE_BEFORE_PING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
