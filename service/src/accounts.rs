//! Accounts as an administrator sees them: what `gatehouse user …` does, on the database directly, also while the service runs.
//!
//! Synapse hears of it through the outbox, from the running service within about a second, or when the service is next started.
//! Nothing here talks to Synapse or to a terminal.

mod time;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::clock::{Clock, Rng};
use crate::domain::account::{self, AccountError};
use crate::domain::user::{UsernameError, user_id, username_of};
use crate::domain::{self, UserId};
use crate::password::{PasswordError, Passwords, Slots, WeakPassword};
use crate::storage::{Storage, StorageError, session, user};

/// The accounts in one database.
#[derive(Debug)]
pub struct Accounts {
    storage: Storage,
    passwords: Passwords,
    homeserver: String,
    clock: Clock,
    rng: Rng,
}

/// An account to be made.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// Localpart, or the whole user id.
    pub name: String,
    /// Without one nobody can log in with a password.
    pub password: Option<String>,
    /// May be used to sign in instead of the name.
    pub email: Option<String>,
    /// Shown to others; the user may change it with any Matrix client.
    pub display_name: Option<String>,
    /// May ask for the homeserver's admin API.
    pub admin: bool,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// `@alice:example.com`
    pub user_id: String,
    /// `alice`
    pub name: String,
    /// The name that the account was made with.
    pub display_name: Option<String>,
    /// In the order they were added.
    pub emails: Vec<String>,
    /// May ask for the homeserver's admin API.
    pub admin: bool,
    /// Whether it can be used.
    pub status: Status,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// Whether an account can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Yes.
    Active,
    /// Not until it is unlocked.
    Locked,
    /// Never again.
    Deactivated,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Locked => "locked",
            Self::Deactivated => "deactivated",
        })
    }
}

/// A login that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Names it for ever.
    pub id: String,
    /// `compat`: made by `/_matrix/client/*/login`.
    pub kind: &'static str,
    /// The Matrix device.
    pub device_id: String,
    /// What the client called itself.
    pub display_name: Option<String>,
    /// As sent at login.
    pub user_agent: Option<String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC; `None`: not used since it was made.
    pub last_active_at: Option<String>,
    /// Where it was last used from.
    pub last_active_ip: Option<String>,
}

/// Why something was not done; its text is for whoever typed the command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a name that a new account can have.
    #[error("`{0}` cannot be a username")]
    Name(String, #[source] UsernameError),
    /// A user id of another server.
    #[error("`{0}` is a user of another server")]
    OtherServer(String),
    /// Not an address.
    #[error("`{0}` is not an e-mail address")]
    Email(String),
    /// Too easily guessed.
    #[error("the password is not taken (passwords.minimum_complexity says how strong it has to be)")]
    Weak(#[source] WeakPassword),
    /// The name is taken.
    #[error("there is an account `{0}` already")]
    NameTaken(String),
    /// The address belongs to another account.
    #[error("the e-mail address `{0}` belongs to another account")]
    EmailTaken(String),
    /// No such account.
    #[error("there is no account `{0}`")]
    Unknown(String),
    /// Gone.
    #[error("the account `{0}` is deactivated")]
    Deactivated(String),
    /// The configured hash function failed.
    #[error("the password cannot be hashed")]
    Password(#[from] PasswordError),
    /// The database failed.
    #[error("the database failed")]
    Storage(#[from] StorageError),
}

impl Accounts {
    /// Opens the database of `config`, bringing its schema up to date. Nothing below `data_dir` is needed so far.
    ///
    /// # Errors
    /// When the database cannot be opened, or the configured hash function fails.
    pub async fn open(config: Arc<conf::Auth>, _data_dir: &Path) -> Result<Self, Error> {
        let (clock, rng) = (Clock::system(), Rng::system());
        let database = &config.database;
        let uri = database.uri.expose();
        let storage =
            Storage::open(uri, database.max_connections, database.connect_timeout, clock.now()).await?;
        Self::over(storage, &config, clock, rng)
    }

    fn over(storage: Storage, config: &conf::Auth, clock: Clock, rng: Rng) -> Result<Self, Error> {
        let passwords = Passwords::new(&config.passwords, Slots::new(1), rng.clone())?;
        Ok(Self { storage, passwords, homeserver: config.matrix.homeserver.clone(), clock, rng })
    }

    /// Makes an account. Synapse is told of it by the outbox, at the latest at its first login.
    ///
    /// # Errors
    /// [`Error`]: a bad or taken name or address, a weak password, the database.
    pub async fn add(&self, new: NewUser) -> Result<User, Error> {
        let username = self.username(&new.name)?.to_owned();
        let password = match &new.password {
            Some(password) => {
                let mut about = vec![username.as_str(), self.homeserver.as_str()];
                about.extend(new.email.as_deref());
                about.extend(new.display_name.as_deref());
                self.passwords.check_new(password, &about).map_err(Error::Weak)?;
                Some(self.passwords.hash(password.clone()).await?)
            }
            None => None,
        };
        let row = account::NewUser {
            username,
            display_name: new.display_name,
            email: new.email,
            can_request_admin: new.admin,
            password,
        };
        let now = self.clock.now();
        match account::create(&self.storage, &self.homeserver, &row, now, &self.rng).await {
            Ok(made) => {
                Ok(self.shown(&made, row.email.map(|email| email.trim().to_owned()).into_iter().collect()))
            }
            Err(error) => Err(named(error, &row.username, row.email.as_deref().unwrap_or_default())),
        }
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// Faults of the database.
    pub async fn list(&self) -> Result<Vec<User>, Error> {
        let mut connection = self.storage.read().await?;
        let mut all: Vec<User> = Vec::new();
        loop {
            let after = all.last().map_or("", |last| last.name.as_str()).to_owned();
            let page = user::list(&mut connection, &after, PAGE).await?;
            if page.is_empty() {
                return Ok(all);
            }
            for user in page {
                let emails = user::emails(&mut connection, &user.id).await?;
                all.push(self.shown(&user, emails));
            }
        }
    }

    /// Replaces the password; sessions go on.
    ///
    /// # Errors
    /// [`Error`]: no such account, a deactivated one, a weak password, the database.
    pub async fn set_password(&self, name: &str, password: &str) -> Result<(), Error> {
        let user = self.find(name).await?;
        self.passwords.check_new(password, &[&user.username, &self.homeserver]).map_err(Error::Weak)?;
        let hash = self.passwords.hash(password.to_owned()).await?;
        let done = account::set_password(&self.storage, &user.id, &hash, false, self.clock.now()).await;
        done.map(drop).map_err(|error| named(error, name, ""))
    }

    /// Refuses logins until the account is unlocked, and ends its sessions: only that ends what Synapse remembers of their tokens.
    ///
    /// # Errors
    /// [`Error`]: no such account, the database.
    pub async fn lock(&self, name: &str) -> Result<(), Error> {
        let user = self.id(name).await?;
        account::lock(&self.storage, &user, self.clock.now())
            .await
            .map(drop)
            .map_err(|error| named(error, name, ""))
    }

    /// Ends a lock.
    ///
    /// # Errors
    /// [`Error`]: no such account, the database.
    pub async fn unlock(&self, name: &str) -> Result<(), Error> {
        let user = self.id(name).await?;
        account::unlock(&self.storage, &user, self.clock.now()).await.map_err(|error| named(error, name, ""))
    }

    /// Ends the account and all its sessions for good, on Synapse too; its messages stay, and so does the name. Twice is no error.
    ///
    /// # Errors
    /// [`Error`]: no such account, the database.
    pub async fn deactivate(&self, name: &str) -> Result<(), Error> {
        let user = self.id(name).await?;
        let done = account::deactivate(&self.storage, &user, false, self.clock.now()).await;
        done.map(drop).map_err(|error| named(error, name, ""))
    }

    /// The logins that have not ended, oldest first.
    ///
    /// # Errors
    /// [`Error`]: no such account, the database.
    pub async fn sessions(&self, name: &str) -> Result<Vec<Session>, Error> {
        let user = self.id(name).await?;
        let live = session::of_user(&mut *self.storage.read().await?, &user, true).await?;
        let shown = live.into_iter().map(|session| Session {
            id: session.id.to_string(),
            kind: "compat",
            device_id: session.device_id,
            display_name: session.display_name,
            user_agent: session.user_agent,
            created_at: time::rfc3339(session.created_at),
            last_active_at: session.last_active_at.map(time::rfc3339),
            last_active_ip: session.last_active_ip,
        });
        Ok(shown.collect())
    }

    async fn id(&self, name: &str) -> Result<UserId, Error> {
        Ok(self.find(name).await?.id)
    }

    async fn find(&self, name: &str) -> Result<domain::user::User, Error> {
        let username = self.username(name)?;
        let found = user::by_username(&mut *self.storage.read().await?, username).await?;
        found.ok_or_else(|| Error::Unknown(username.to_owned()))
    }

    /// The localpart of what may be a whole user id.
    fn username<'a>(&self, name: &'a str) -> Result<&'a str, Error> {
        if name.is_empty() {
            return Ok(name);
        }
        username_of(name, &self.homeserver).ok_or_else(|| Error::OtherServer(name.to_owned()))
    }

    fn shown(&self, user: &domain::user::User, emails: Vec<String>) -> User {
        User {
            user_id: user_id(&user.username, &self.homeserver),
            name: user.username.clone(),
            display_name: user.display_name.clone(),
            emails,
            admin: user.can_request_admin,
            status: match (user.deactivated_at, user.locked_at) {
                (Some(_), _) => Status::Deactivated,
                (None, Some(_)) => Status::Locked,
                (None, None) => Status::Active,
            },
            created_at: time::rfc3339(user.created_at),
        }
    }
}

/// The same error with the name or address that it is about.
fn named(error: AccountError, name: &str, email: &str) -> Error {
    match error {
        AccountError::NotFound => Error::Unknown(name.to_owned()),
        AccountError::Username(fault) => Error::Name(name.to_owned(), fault),
        AccountError::Email => Error::Email(email.to_owned()),
        AccountError::UsernameTaken => Error::NameTaken(name.to_owned()),
        AccountError::EmailTaken => Error::EmailTaken(email.to_owned()),
        AccountError::Deactivated => Error::Deactivated(name.to_owned()),
        AccountError::Storage(fault) => Error::Storage(fault),
    }
}

/// Accounts read at a time.
const PAGE: u32 = 500;

#[cfg(test)]
mod tests;
