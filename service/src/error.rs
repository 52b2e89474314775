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
}
