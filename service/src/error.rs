//! Errors as callers see them: of the service as a whole, and as Matrix answers.

mod chain;

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

use crate::domain::login::LoginError;
use crate::domain::logout::LogoutError;
use crate::domain::refresh::RefreshError;
use crate::http::matrix::MatrixError;
use crate::password::PasswordError;
use crate::storage::StorageError;
use crate::synapse;

pub use chain::Chain;

/// Why the service cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The database.
    #[error("database")]
    Storage(#[from] StorageError),
    /// Synapse's endpoint cannot be used.
    #[error("matrix.endpoint")]
    Synapse(#[from] synapse::Error),
    /// Passwords cannot be hashed as configured.
    #[error("passwords.schemes")]
    Passwords(#[from] PasswordError),
    /// A secret file can neither be read nor made.
    #[error("cannot use the secret file {}", path.display())]
    SecretFile {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A secret file does not hold what it should.
    #[error("the secret file {} is empty or damaged: it should hold 64 hexadecimal digits", path.display())]
    SecretForm {
        /// Which one.
        path: PathBuf,
    },
    /// A socket cannot be bound.
    #[error("listener `{listener}`")]
    Bind {
        /// Which listener.
        listener: String,
        /// Why.
        source: accept::BindError,
    },
    /// A bound socket cannot be used.
    #[error("listener `{listener}`: the socket cannot be used")]
    Socket {
        /// Which listener.
        listener: String,
        /// Why.
        source: std::io::Error,
    },
    /// The folder given for `assets` cannot be served.
    #[error("listener `{listener}`: resource assets")]
    Assets {
        /// Which listener.
        listener: String,
        /// Why.
        source: crate::http::assets::FolderError,
    },
    /// A part of the service ended although nobody asked it to; the log says why.
    #[error("{what} crashed")]
    Crashed {
        /// Which part.
        what: &'static str,
    },
    /// The embedded files cannot be compressed.
    #[error("cannot compress the embedded files")]
    Compress(#[source] std::io::Error),
}

impl From<LoginError> for MatrixError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Forbidden => {
                Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", "Invalid username, password or token")
            }
            LoginError::Locked => Self::user_locked(),
            LoginError::Limited(wait) => limited(wait),
            LoginError::Password(PasswordError::Busy) => limited(WHEN_BUSY),
            LoginError::Password(PasswordError::Hash(error)) => {
                tracing::error!(error = %Chain(&error), "a password could not be checked");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The password could not be checked")
            }
            LoginError::Homeserver(error) => {
                tracing::error!(
                    error = %Chain(&error),
                    "a login failed: Synapse could not be told"
                );
                Self::new(
                    StatusCode::BAD_GATEWAY,
                    "M_UNKNOWN",
                    "The homeserver could not be told of the login",
                )
            }
            LoginError::Storage(error) => error.into(),
            LoginError::Aborted => {
                tracing::error!("a login did not come to an end");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The login did not come to an end")
            }
        }
    }
}

impl From<RefreshError> for MatrixError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Unknown => Self::unknown_token(false),
            RefreshError::Locked => Self::user_locked(),
            RefreshError::Storage(error) => error.into(),
        }
    }
}

impl From<LogoutError> for MatrixError {
    fn from(error: LogoutError) -> Self {
        match error {
            LogoutError::Unknown => Self::unknown_token(false),
            LogoutError::Expired => Self::unknown_token(true),
            LogoutError::Storage(error) => error.into(),
        }
    }
}

impl From<StorageError> for MatrixError {
    fn from(error: StorageError) -> Self {
        tracing::error!(error = %Chain(&error), "a request failed in the database");
        if error.is_temporary() {
            return Self::unavailable("The database cannot be used now");
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The database failed")
    }
}

fn limited(wait: Duration) -> MatrixError {
    MatrixError::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "Too many attempts").retry_after(wait)
}

/// When more passwords wait to be checked than can be in good time.
const WHEN_BUSY: Duration = Duration::from_secs(2);
