//! The auth half: MAS's key names.
//!
//! The types are here, their reading in `auth/*.rs`, one section of the file each.

mod database;
mod http;
mod limits;
mod mas;
mod passwords;
mod read;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::{Bind, Certificate, Secret};

pub use limits::{HttpLimits, HttpTimeouts};
pub(crate) use mas::unused_sections;
pub(crate) use read::{read, take_unserved};

/// The bundled authentication service.
#[derive(Clone)]
pub struct Auth {
    /// `http`
    pub http: Http,
    /// `database`
    pub database: Database,
    /// `matrix`
    pub matrix: Matrix,
    /// `secrets.encryption`: 32 bytes. `None`: made at first start and kept under `data_dir`.
    pub encryption: Option<[u8; 32]>,
    /// `passwords`
    pub passwords: Passwords,
    /// `account`
    pub account: Account,
    /// `rate_limiting`
    pub rate_limiting: RateLimiting,
    /// `experimental.compat_token_ttl`: life of a refreshable compat access token. Default 5 minutes.
    pub compat_token_ttl: Duration,
}

/// Leaves out the encryption secret.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("http", &self.http)
            .field("database", &self.database)
            .field("matrix", &self.matrix)
            .field("encryption", &self.encryption.map(|_| "<redacted>"))
            .field("passwords", &self.passwords)
            .field("account", &self.account)
            .field("rate_limiting", &self.rate_limiting)
            .field("compat_token_ttl", &self.compat_token_ttl)
            .finish()
    }
}

/// `http`: what is served where.
#[derive(Debug, Clone)]
pub struct Http {
    /// Base of every link; ends with `/`.
    pub public_base: Url,
    /// `iss`; default `public_base`.
    pub issuer: Url,
    /// Whose `X-Forwarded-For` and PROXY headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// `http.limits`
    pub limits: HttpLimits,
    /// `http.timeouts`
    pub timeouts: HttpTimeouts,
}

/// One entry of `http.listeners`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Label in logs and metrics; `http[<index>]` when not given.
    pub name: String,
    /// At least one.
    pub resources: Vec<Resource>,
    /// Path under which all resources are found, without trailing slash; empty for none.
    pub prefix: String,
    /// Sockets, at least one.
    pub binds: Vec<Bind>,
    /// A PROXY header (v1 or v2) is then mandatory.
    pub proxy_protocol: bool,
    /// TLS on this listener.
    pub tls: Option<Certificate>,
}

/// One entry of a listener's `resources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// `/.well-known/openid-configuration` and friends.
    Discovery,
    /// Pages for people.
    Human,
    /// `/oauth2/*`
    Oauth,
    /// `/_matrix/client/*/{login,logout,refresh}`
    Compat,
    /// `/graphql`
    Graphql,
    /// `/assets/*`; from a folder instead of the embedded files when `path` is given.
    Assets {
        /// Folder that replaces the embedded files.
        path: Option<PathBuf>,
    },
    /// `/api/admin/v1/*`
    AdminApi,
    /// `/health`
    Health,
    /// `/metrics`
    Prometheus,
    /// `/connection-info`
    ConnectionInfo,
}

/// `database`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// `sqlite:///path` (default `<data_dir>/auth.db`) or `postgresql://…`; may hold a password.
    pub uri: Secret,
    /// Connections kept at most. Default 10.
    pub max_connections: u32,
    /// Deadline of taking a connection. Default 30 s.
    pub connect_timeout: Duration,
}

/// `matrix`: the homeserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Server name, the part after the colon of user ids.
    pub homeserver: String,
    /// Where Synapse listens, ends with `/`; `unix:/path` is written as the URL `unix:///path`.
    pub endpoint: Url,
    /// Shared with Synapse. `None`: made at first start and kept in `<data_dir>/matrix-secret`.
    pub secret: Option<Secret>,
}

/// `passwords`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwords {
    /// Default true.
    pub enabled: bool,
    /// zxcvbn score a new password needs, 0 to 4. Default 3.
    pub minimum_complexity: u8,
    /// At least one; the first has the highest version and hashes new passwords.
    pub schemes: Vec<Hasher>,
}

/// One entry of `passwords.schemes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hasher {
    /// Written beside the hash.
    pub version: u16,
    /// How to hash.
    pub algorithm: HashAlgorithm,
    /// NFKC before hashing, as Synapse does. Default false.
    pub unicode_normalization: bool,
    /// Pepper.
    pub secret: Option<Secret>,
}

/// A password hash function with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// Default 19 MiB, 2 passes, 1 lane (OWASP).
    Argon2id {
        /// KiB.
        memory_kib: u32,
        /// Passes.
        iterations: u32,
        /// Lanes.
        parallelism: u32,
    },
    /// Verified and used with this cost.
    Bcrypt {
        /// Default 12.
        cost: u32,
    },
    /// PBKDF2 with SHA-256 or SHA-512, verified and upgraded.
    Pbkdf2 {
        /// Default 600000.
        iterations: u32,
    },
}

/// `account`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// E-mail addresses may be used to sign in. Default true here (MAS: false).
    pub login_with_email_allowed: bool,
}

/// `rate_limiting`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimiting {
    /// Failed logins of one address (IPv6: one /64).
    pub login_per_ip: RateLimit,
    /// Failed logins of one account.
    pub login_per_account: RateLimit,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Capacity.
    pub burst: u32,
    /// Refill.
    pub per_second: f64,
}
