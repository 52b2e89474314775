//! What every endpoint and background task shares.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::activity::Activity;
use crate::clock::{Clock, Rng};
use crate::domain::attempts::Attempts;
use crate::error::ServiceError;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::password::{Passwords, Slots};
use crate::secrets::Secrets;
use crate::storage::Storage;
use crate::synapse;
use crate::token::UserTags;

/// Shared by all endpoints; axum's state is [`SharedState`]. One generation of it belongs to one configuration: a request takes one and
/// keeps it. What has to outlive a configuration is shared by all of them.
#[derive(Debug, Clone)]
pub struct State {
    /// The checked configuration.
    pub config: Arc<conf::Auth>,
    /// The database.
    pub storage: Storage,
    /// Synapse's side.
    pub synapse: synapse::Client,
    /// Wakes the outbox worker of this database.
    pub outbox: Outbox,
    /// Hashes and verifies passwords, in slots that all generations share.
    pub passwords: Passwords,
    /// Logins under way, of all generations.
    pub attempts: Arc<Attempts>,
    /// Makes the tags that tokens carry.
    pub tags: UserTags,
    /// Which sessions of this database were active, until it is written down.
    pub activity: Arc<Activity>,
    /// What has happened since the start, in numbers.
    pub metrics: Arc<Metrics>,
    /// Shared with Synapse: it introspects with it, and we call it with it.
    pub secret: conf::Secret,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub rng: Rng,
    /// Whoever holds the other end learns when nobody uses this generation any more.
    _in_use: Option<watch::Receiver<()>>,
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
        let secrets = Secrets::load(&config, data_dir, &rng)?;
        let synapse = synapse::Client::new(&config.matrix.endpoint, &secrets.matrix)?;
        // One processor is left for everything else.
        let workers = std::thread::available_parallelism().map_or(1, |all| all.get().saturating_sub(1));
        let passwords = passwords(&config, &Slots::new(workers), &rng).await?;
        let database = &config.database;
        let (uri, wait) = (database.uri.expose(), database.connect_timeout);
        let storage = Storage::open(uri, database.max_connections, wait, clock.now()).await?;
        Ok(Arc::new(Self {
            storage,
            synapse,
            outbox: Outbox::default(),
            passwords,
            attempts: Arc::default(),
            tags: UserTags::new(&secrets.encryption),
            activity: Arc::default(),
            metrics: Arc::default(),
            secret: secrets.matrix,
            clock,
            rng,
            config,
            _in_use: None,
        }))
    }

    /// The next generation, for another configuration. What has not changed is kept: the connections to the database and to Synapse.
    /// Nothing of this generation changes.
    ///
    /// # Errors
    /// As [`State::open`].
    pub async fn next(&self, config: Arc<conf::Auth>, data_dir: &Path) -> Result<SharedState, ServiceError> {
        let secrets = Secrets::load(&config, data_dir, &self.rng)?;
        let synapse =
            if config.matrix.endpoint == self.config.matrix.endpoint && secrets.matrix == self.secret {
                self.synapse.clone()
            } else {
                synapse::Client::new(&config.matrix.endpoint, &secrets.matrix)?
            };
        let passwords = if config.passwords == self.config.passwords {
            self.passwords.clone()
        } else {
            passwords(&config, self.passwords.slots(), &self.rng).await?
        };
        let database = &config.database;
        let storage = if *database == self.config.database {
            self.storage.clone()
        } else {
            let (uri, wait) = (database.uri.expose(), database.connect_timeout);
            self.storage.reopen(uri, database.max_connections, wait, self.clock.now()).await?
        };
        // What waits to be done or written down belongs to the database.
        let (outbox, activity) = if storage.is_same_database(&self.storage) {
            (self.outbox.clone(), self.activity.clone())
        } else {
            (Outbox::default(), Arc::default())
        };
        Ok(Arc::new(Self {
            storage,
            synapse,
            outbox,
            passwords,
            attempts: self.attempts.clone(),
            tags: UserTags::new(&secrets.encryption),
            activity,
            metrics: self.metrics.clone(),
            secret: secrets.matrix,
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            config,
            _in_use: None,
        }))
    }

    /// The same, used as long as it lives: who holds the other end of `in_use` learns when the last user is gone.
    pub(crate) fn used_by(&self, in_use: watch::Receiver<()>) -> Self {
        Self { _in_use: Some(in_use), ..self.clone() }
    }
}

/// Off the async threads: it computes a hash.
async fn passwords(config: &Arc<conf::Auth>, slots: &Slots, rng: &Rng) -> Result<Passwords, ServiceError> {
    let (config, slots, rng) = (config.clone(), slots.clone(), rng.clone());
    let made = tokio::task::spawn_blocking(move || Passwords::new(&config.passwords, slots, rng)).await;
    Ok(made.map_err(|_| ServiceError::Crashed { what: "hashing passwords" })??)
}
