//! For tests: a whole [`State`] over a fresh database, a clock that stands still and a seeded generator.
//!
//! The database is a new SQLite file, or a new schema of the PostgreSQL that `GATEHOUSE_TEST_POSTGRES` names (`tests/postgres` starts
//! one): the same tests run on both.

use std::sync::Arc;
use std::time::Duration;

use conf::{
    Account, Auth, Database, HashAlgorithm, Hasher, Http, Matrix, Passwords, RateLimit, RateLimiting, Secret,
};
use sqlx::Connection;
use url::Url;

use crate::clock::{Clock, Rng, Timestamp};
use crate::domain::UserId;
use crate::state::{SharedState, State};
use crate::storage::Durability;

/// A state and the folder that holds its database; the folder goes with it.
pub(crate) struct Fixture {
    pub(crate) state: SharedState,
    folder: Arc<tempfile::TempDir>,
}

/// The URI of a database that nobody has used.
pub(crate) async fn database(folder: &std::path::Path) -> String {
    let Ok(postgres) = std::env::var("GATEHOUSE_TEST_POSTGRES") else {
        return format!("sqlite://{}/auth.db", folder.display());
    };
    sqlx::any::install_default_drivers();
    let schema = format!("test_{}", hex::encode(Rng::system().bytes::<8>()));
    let mut connection = sqlx::AnyConnection::connect(&postgres).await.expect("a connection");
    let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    sqlx::query(create).execute(&mut connection).await.expect("a schema");
    connection.close().await.expect("a goodbye");
    let separator = if postgres.contains('?') { '&' } else { '?' };
    format!("{postgres}{separator}options[search_path]={schema}")
}

/// A configuration as loading would give it, without listeners; passwords are hashed with the least effort.
pub(crate) fn config(database: &str, synapse: &Url, secret: &str) -> Auth {
    let limit = RateLimit { burst: 1000, per_second: 1000.0 };
    let algorithm = HashAlgorithm::Argon2id { memory_kib: 8, iterations: 1, parallelism: 1 };
    let base: Url = "https://auth.example.com/".parse().expect("a URL");
    Auth {
        http: Http {
            limits: conf::HttpLimits::default(),
            timeouts: conf::HttpTimeouts::default(),
            public_base: base.clone(),
            issuer: base,
            trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
            listeners: Vec::new(),
        },
        database: Database {
            uri: Secret::new(database),
            max_connections: 5,
            connect_timeout: Duration::from_secs(10),
        },
        matrix: Matrix {
            homeserver: "example.com".into(),
            endpoint: synapse.clone(),
            secret: Some(Secret::new(secret)),
        },
        encryption: Some([7; 32]),
        passwords: Passwords {
            enabled: true,
            minimum_complexity: 0,
            schemes: vec![Hasher { version: 1, algorithm, unicode_normalization: false, secret: None }],
        },
        account: Account { login_with_email_allowed: true },
        rate_limiting: RateLimiting { login_per_ip: limit, login_per_account: limit },
        compat_token_ttl: Duration::from_secs(300),
    }
}

impl Fixture {
    /// A fresh database, and Synapse at `synapse`, which takes `secret`.
    pub(crate) async fn new(synapse: &Url, secret: &str) -> Self {
        Self::with(synapse, secret, |_| ()).await
    }

    /// The same with a changed configuration.
    pub(crate) async fn with(synapse: &Url, secret: &str, change: impl FnOnce(&mut Auth)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = database(folder.path()).await;
        let mut config = config(&database, synapse, secret);
        change(&mut config);
        let config = Arc::new(config);
        let clock = Clock::fixed(Timestamp::from_millis(1_700_000_000_000));
        let state = State::open(config, folder.path(), clock, Rng::seeded(1)).await.expect("a state");
        Self { state, folder: Arc::new(folder) }
    }

    /// Another state over the same folder.
    pub(crate) fn beside(other: &Self, state: SharedState) -> Self {
        Self { state, folder: other.folder.clone() }
    }

    /// Where the service keeps what it makes itself.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Stores a user that Synapse has not heard of, without a password.
    pub(crate) async fn user(&self, username: &str) -> UserId {
        let id = UserId::new(self.state.clock.now(), &self.state.rng);
        self.execute(&format!(
            "INSERT INTO users (id, username, created_at) VALUES ('{id}', '{username}', {})",
            self.state.clock.now()
        ))
        .await;
        id
    }

    /// Runs one statement of a test.
    pub(crate) async fn execute(&self, statement: &str) {
        let mut tx = self.state.storage.begin(Durability::Relaxed).await.expect("a transaction");
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement).execute(&mut *tx).await.expect("a statement");
        tx.commit().await.expect("a commit");
    }
}
