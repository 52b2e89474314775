//! What every endpoint and background task shares.

use std::path::Path;
use std::sync::Arc;

use crate::activity::Activity;
use crate::clock::{Clock, Rng};
use crate::domain::attempts::Attempts;
use crate::error::ServiceError;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::password::Passwords;
use crate::storage::Storage;
use crate::synapse;
use crate::token::UserTags;

/// Shared by all endpoints; axum's state is [`SharedState`].
#[derive(Debug)]
pub struct State {
    /// The checked configuration.
    pub config: Arc<conf::Auth>,
    /// The database.
    pub storage: Storage,
    /// Synapse's side.
    pub synapse: synapse::Client,
    /// Wakes the outbox worker.
    pub outbox: Outbox,
    /// Hashes and verifies passwords.
    pub passwords: Passwords,
    /// Logins under way.
    pub attempts: Attempts,
    /// Makes the tags that tokens carry.
    pub tags: UserTags,
    /// Which sessions were active, until it is written down.
    pub activity: Activity,
    /// What has happened, in numbers.
    pub metrics: Metrics,
    /// Shared with Synapse: it introspects with it, and we call it with it.
    pub secret: conf::Secret,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub rng: Rng,
}

/// What handlers take: `axum::extract::State(state): axum::extract::State<SharedState>`.
pub type SharedState = Arc<State>;

impl State {
    /// Opens the storage, runs its migrations, and reads or makes the secrets that the configuration leaves to us
    /// (`<data_dir>/matrix-secret`, `<data_dir>/encryption-secret`, mode 0600).
    ///
    /// # Errors
    /// [`ServiceError`]: the database, a secret file, or an endpoint that cannot be used.
    pub async fn open(
        config: Arc<conf::Auth>,
        data_dir: &Path,
        clock: Clock,
        rng: Rng,
    ) -> Result<SharedState, ServiceError> {
        let storage = Storage::open(
            config.database.uri.expose(),
            config.database.max_connections,
            config.database.connect_timeout,
            clock.now(),
        )
        .await?;
        let secrets = crate::secrets::Secrets::load(&config, data_dir, &rng)?;
        let synapse = synapse::Client::new(&config.matrix.endpoint, &secrets.matrix)?;
        // One processor is left for everything else.
        let workers = std::thread::available_parallelism().map_or(1, |all| all.get().saturating_sub(1));
        Ok(Arc::new(Self {
            storage,
            synapse,
            outbox: Outbox::default(),
            passwords: Passwords::new(&config.passwords, workers, rng.clone())?,
            attempts: Attempts::default(),
            tags: UserTags::new(&secrets.encryption),
            activity: Activity::default(),
            metrics: Metrics::default(),
            secret: secrets.matrix,
            clock,
            rng,
            config,
        }))
    }
}
