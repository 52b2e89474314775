//! Errors as callers see them: of the service as a whole, and as Matrix answers.

use std::path::PathBuf;

use crate::password::PasswordError;
use crate::storage::StorageError;
use crate::synapse;

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
    /// The embedded files cannot be compressed.
    #[error("cannot compress the embedded files")]
    Compress(#[source] std::io::Error),
}
