//! Passwords: hashing and verifying off the async threads, a bounded number at a time.
//!
//! A known and an unknown user cost the same: without a stored hash a made-up one is verified. Which hash functions there are is in
//! `password/scheme.rs`; rate limits are elsewhere.

use std::sync::Arc;
use std::time::Duration;

use conf::Hasher;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Rng;

mod scheme;

pub use scheme::HashError;

/// Hashes and verifies. Clones compute in the same slots.
#[derive(Debug, Clone)]
pub struct Passwords {
    schemes: Arc<[Hasher]>,
    minimum_complexity: u8,
    /// What is verified when there is nothing to verify against.
    decoy: Stored,
    slots: Slots,
    rng: Rng,
}

/// The bound on hashes that are computed at a time. There is one for the whole process, whatever is configured meanwhile: clones share it.
#[derive(Debug, Clone)]
pub struct Slots {
    /// One permit per hash being computed.
    computing: Arc<Semaphore>,
    /// One permit per hash being computed or waiting for its turn.
    admitted: Arc<Semaphore>,
    patience: Duration,
}

/// A hash as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// The scheme it was made with.
    pub version: u16,
    /// PHC or modular crypt text.
    pub hash: String,
}

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The right password; with the hash to store instead when the stored one is of an older scheme or other parameters.
    Right(Option<Stored>),
    /// Wrong, or there is none.
    Wrong,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many are waiting: come again in a moment.
    #[error("too many passwords wait to be checked")]
    Busy,
    /// The worker failed.
    #[error("the password could not be hashed")]
    Hash(#[from] HashError),
}

/// Why a new password is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WeakPassword {
    /// Longer than the bound.
    #[error("the password is longer than {LONGEST_BYTES} bytes")]
    TooLong,
    /// Too easily guessed.
    #[error("the password is too easily guessed{}", hint.as_deref().map(|hint| format!(": {hint}")).unwrap_or_default())]
    Guessable {
        /// What would help.
        hint: Option<String>,
    },
}

impl Passwords {
    /// With the schemes of the configuration. Computes one hash, on this thread.
    ///
    /// # Errors
    /// When the current scheme cannot hash (parameters out of range).
    pub fn new(config: &conf::Passwords, slots: Slots, rng: Rng) -> Result<Self, PasswordError> {
        let schemes: Arc<[Hasher]> = config.schemes.clone().into();
        let decoy = scheme::hash(current(&schemes)?, "decoy", rng.bytes())?;
        Ok(Self { schemes, minimum_complexity: config.minimum_complexity, decoy, slots, rng })
    }

    /// The slots it computes in.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Whether `password` is the one that `stored` was made of. Takes as long for `None` as for a hash of the current scheme.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when too many wait already.
    pub async fn verify(&self, password: String, stored: Option<Stored>) -> Result<Verdict, PasswordError> {
        let schemes = self.schemes.clone();
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.decoy.clone());
        let salt = self.rng.bytes();
        let verdict = self.compute(move || verdict(&schemes, &password, &stored, salt)).await?;
        Ok(if known { verdict } else { Verdict::Wrong })
    }

    /// Hashes a new password with the current scheme. Whether it is good enough is [`Passwords::check_new`]'s word.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when too many wait already; bcrypt's refusal of more than 72 bytes.
    pub async fn hash(&self, password: String) -> Result<Stored, PasswordError> {
        let schemes = self.schemes.clone();
        let salt = self.rng.bytes();
        self.compute(move || Ok(scheme::hash(current(&schemes)?, &password, salt)?)).await
    }

    /// Whether a new password is long and strange enough; `about` are words that it must not be made of (name, address).
    ///
    /// # Errors
    /// [`WeakPassword`] says what is wrong.
    pub fn check_new(&self, password: &str, about: &[&str]) -> Result<(), WeakPassword> {
        if password.len() > LONGEST_BYTES {
            return Err(WeakPassword::TooLong);
        }
        // What follows the first hundred characters cannot make a password worse, and the estimate takes its time.
        let beginning: String = password.chars().take(100).collect();
        let estimate = zxcvbn::zxcvbn(&beginning, about);
        if u8::from(estimate.score()) >= self.minimum_complexity {
            return Ok(());
        }
        let hint =
            estimate.feedback().and_then(|feedback| feedback.warning()).map(|warning| warning.to_string());
        Err(WeakPassword::Guessable { hint })
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let Slots { computing, admitted, patience } = self.slots.clone();
        let admitted = admitted.try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let turn = tokio::time::timeout(patience, computing.acquire_owned()).await;
        let turn = turn.map_err(|_| PasswordError::Busy)?.map_err(|_| PasswordError::Busy)?;
        // The permits go with the work: a caller who leaves does not make room for one more.
        let run = move |_permits: [OwnedSemaphorePermit; 2]| work();
        match tokio::task::spawn_blocking(move || run([turn, admitted])).await {
            Ok(result) => result,
            Err(_) => Err(HashError::Worker.into()),
        }
    }
}

impl Slots {
    /// `workers` hashes at a time, and some that wait.
    pub fn new(workers: usize) -> Self {
        let workers = workers.max(1);
        Self {
            computing: Arc::new(Semaphore::new(workers)),
            admitted: Arc::new(Semaphore::new(workers.saturating_mul(1 + WAITING_PER_WORKER))),
            patience: PATIENCE,
        }
    }
}

#[cfg(test)]
impl Slots {
    /// Whether both are bounded together.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.computing, &other.computing) && Arc::ptr_eq(&self.admitted, &other.admitted)
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored {{ version: {}, hash: <redacted> }}", self.version)
    }
}

/// Longest password that is looked at. Longer ones are wrong without being hashed in full.
pub const LONGEST_BYTES: usize = 1024;

fn verdict(
    schemes: &[Hasher],
    password: &str,
    stored: &Stored,
    salt: [u8; 16],
) -> Result<Verdict, PasswordError> {
    let Some(hasher) = schemes.iter().find(|hasher| hasher.version == stored.version) else {
        tracing::warn!(
            version = stored.version,
            "a stored password is of a scheme that passwords.schemes does not list"
        );
        return Ok(Verdict::Wrong);
    };
    let password = if password.len() > LONGEST_BYTES { "" } else { password };
    match scheme::verify(hasher, password, &stored.hash) {
        Ok(true) if !password.is_empty() => {}
        Ok(_) => return Ok(Verdict::Wrong),
        Err(error) => {
            tracing::warn!(%error, "a password could not be verified");
            return Ok(Verdict::Wrong);
        }
    }
    let current = current(schemes)?;
    if current.version == stored.version && scheme::is_current(current, &stored.hash) {
        return Ok(Verdict::Right(None));
    }
    // A password that the current scheme cannot take (bcrypt's 72 bytes) keeps its old hash.
    Ok(Verdict::Right(scheme::hash(current, password, salt).ok()))
}

fn current(schemes: &[Hasher]) -> Result<&Hasher, HashError> {
    schemes.first().ok_or(HashError::Parameters)
}

/// At 30 ms each, those who wait are done within the patience.
const WAITING_PER_WORKER: usize = 200;
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
