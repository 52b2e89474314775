//! Logging in: from a credential to a session whose tokens may leave the house.
//!
//! The order is the point. Whether another failure is allowed is settled before the password is looked at; the session is committed
//! before Synapse hears of the device; Synapse has said yes before the caller gets the tokens.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::attempts::Refused;
use crate::domain::device::{self, LONGEST_NAME_CHARS, LONGEST_USER_AGENT_CHARS};
use crate::domain::limit::Bucket;
use crate::domain::session::Session;
use crate::domain::user::User;
use crate::domain::{SessionId, UserId};
use crate::error::Chain;
use crate::outbox::{self, Job};
use crate::password::{PasswordError, Stored, Verdict};
use crate::state::SharedState;
use crate::storage::user::Name;
use crate::storage::{self, Durability, StorageError, Tx};
use crate::synapse::{self, Profile};
use crate::token::{Kind, Token, TokenHash};

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who it says it is, with proof.
    pub credential: Credential,
    /// The device to be; `None`: a new one. Checked by [`device::check_id`].
    pub device_id: Option<String>,
    /// What a new device is called.
    pub display_name: Option<String>,
    /// Whether the access token shall expire and be refreshed.
    pub refreshable: bool,
    /// Where the request comes from.
    pub ip: Option<IpAddr>,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
}

/// Proof of who somebody is.
#[derive(Clone)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// Who; `None` when nobody here can be meant.
        name: Option<Name>,
        /// The name as typed, for the limit of names that nobody has.
        typed: String,
        /// The password.
        password: String,
    },
    /// A login token.
    Token(String),
}

/// A session that has begun.
#[derive(Debug)]
pub struct LoggedIn {
    /// Whose.
    pub user: User,
    /// On which device.
    pub device_id: String,
    /// To hand out.
    pub tokens: Tokens,
}

/// A pair of tokens, or one that does not expire.
#[derive(Debug)]
pub struct Tokens {
    /// The access token.
    pub access: Token,
    /// The refresh token.
    pub refresh: Option<Token>,
    /// How long the access token lives; `None`: until logout.
    pub expires_in: Option<Duration>,
}

/// Why a login does not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Wrong password, unknown or deactivated user, used or expired login token: nobody learns which.
    #[error("wrong credentials")]
    Forbidden,
    /// The credential was right, but the account is locked.
    #[error("the account is locked")]
    Locked,
    /// Too many failures.
    #[error("too many failed logins")]
    Limited(Duration),
    /// The password could not be checked.
    #[error("the password could not be checked")]
    Password(#[from] PasswordError),
    /// Synapse could not be told.
    #[error("the homeserver could not be told")]
    Homeserver(#[from] synapse::Error),
    /// The database failed.
    #[error("the database failed")]
    Storage(#[from] StorageError),
    /// The task that logs in has failed.
    #[error("the login did not come to an end")]
    Aborted,
}

impl From<Refused> for LoginError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Limited(wait) => Self::Limited(wait),
            Refused::Storage(error) => Self::Storage(error),
        }
    }
}

/// A credential that was right, and what is settled together with the new session.
struct Proven {
    user: User,
    /// An old hash and the better one.
    upgrade: Option<(Stored, Stored)>,
    /// Used up by this login.
    login_token: Option<TokenHash>,
}

/// Checks the credential and begins a session.
///
/// # Errors
/// [`LoginError`]; no session is left behind then.
pub async fn login(state: &SharedState, request: Request) -> Result<LoggedIn, LoginError> {
    // A client that hangs up must neither take its failure back nor leave a session that Synapse has not heard of.
    let state = Arc::clone(state);
    let task = tokio::spawn(async move {
        let proven = match &request.credential {
            Credential::Password { name, typed, password } => {
                check_password(&state, name.as_ref(), typed, password, request.ip).await?
            }
            Credential::Token(token) => check_token(&state, token, request.ip).await?,
        };
        establish(&state, proven, &request).await
    });
    task.await.unwrap_or(Err(LoginError::Aborted))
}

/// Makes a login token for somebody who has proven otherwise who they are. Valid for a minute, once.
///
/// # Errors
/// Faults of the database.
pub async fn issue_token(state: &SharedState, user: &UserId) -> Result<Token, StorageError> {
    let now = state.clock.now();
    let token = Token::make(Kind::Login, &state.tags.tag(user), &state.rng);
    let mut tx = state.storage.begin(Durability::Full).await?;
    storage::login_token::insert(&mut tx, &token.hash(), user, now, now.plus(LOGIN_TOKEN_LIFE)).await?;
    tx.commit().await?;
    Ok(token)
}

async fn check_password(
    state: &SharedState,
    name: Option<&Name>,
    typed: &str,
    password: &str,
    ip: Option<IpAddr>,
) -> Result<Proven, LoginError> {
    // Asked in any case, so that a name that cannot exist takes as long as one that does not.
    let nobody = Name::Username(String::new());
    let found =
        storage::user::with_password(&mut *state.storage.read().await?, name.unwrap_or(&nobody)).await?;
    let (user, stored) = found.unzip();
    let stored = stored.flatten();
    let account = match &user {
        Some(user) => user.id.as_str().to_owned(),
        None => format!("nobody {}", typed.to_lowercase()),
    };
    let limits = &state.config.rate_limiting;
    let buckets = vec![Bucket::login_of_address(limits, ip), Bucket::login_of_account(limits, &account)];
    let attempt = state.attempts.begin(&state.storage, &state.clock, buckets).await?;

    let deactivated = user.as_ref().is_none_or(|user| user.deactivated_at.is_some());
    let checked = if deactivated { None } else { stored.clone() };
    match (user, state.passwords.verify(password.to_owned(), checked).await?) {
        (Some(user), Verdict::Right(_)) if user.locked_at.is_some() => Err(LoginError::Locked),
        (Some(user), Verdict::Right(better)) => {
            Ok(Proven { user, upgrade: stored.zip(better), login_token: None })
        }
        (None, _) | (_, Verdict::Wrong) => {
            attempt.failed(&state.storage, &state.clock).await?;
            Err(LoginError::Forbidden)
        }
    }
}

async fn check_token(state: &SharedState, token: &str, ip: Option<IpAddr>) -> Result<Proven, LoginError> {
    let buckets = vec![Bucket::login_of_address(&state.config.rate_limiting, ip)];
    let attempt = state.attempts.begin(&state.storage, &state.clock, buckets).await?;
    match owner_of(state, token).await? {
        Some((hash, user)) => Ok(Proven { user, upgrade: None, login_token: Some(hash) }),
        None => {
            attempt.failed(&state.storage, &state.clock).await?;
            Err(LoginError::Forbidden)
        }
    }
}

async fn owner_of(state: &SharedState, token: &str) -> Result<Option<(TokenHash, User)>, StorageError> {
    let Some(hash) = TokenHash::of_presented(token) else { return Ok(None) };
    let mut connection = state.storage.read().await?;
    let owner = storage::login_token::owner(&mut connection, &hash, state.clock.now()).await?;
    let Some(owner) = owner else { return Ok(None) };
    Ok(storage::user::by_id(&mut connection, &owner).await?.map(|user| (hash, user)))
}

async fn establish(state: &SharedState, proven: Proven, request: &Request) -> Result<LoggedIn, LoginError> {
    let first_time = proven.user.provisioned_at.is_none();
    if first_time {
        provision(state, &proven.user).await?;
    }
    let mut tx = state.storage.begin(Durability::Full).await?;
    let begun = begin(state, &mut tx, &proven, request).await?;
    tx.commit().await?;

    if let Err(error) = tell_synapse(state, &begun).await {
        abandon(state, &begun).await;
        return Err(error);
    }
    Ok(LoggedIn { user: begun.user, device_id: begun.session.device_id, tokens: begun.tokens })
}

struct Begun {
    user: User,
    session: Session,
    tokens: Tokens,
    /// What Synapse is to call the device: `None` when it knows it.
    device_name: Option<String>,
}

/// Everything that the database has to know, in one transaction.
async fn begin(
    state: &SharedState,
    tx: &mut Tx,
    proven: &Proven,
    request: &Request,
) -> Result<Begun, LoginError> {
    let now = state.clock.now();
    storage::user::hold(tx, &proven.user.id).await?;
    let user = storage::user::by_id(tx, &proven.user.id).await?.ok_or(LoginError::Forbidden)?;
    if user.deactivated_at.is_some() {
        return Err(LoginError::Forbidden);
    }
    if user.locked_at.is_some() {
        return Err(LoginError::Locked);
    }
    if let Some(token) = &proven.login_token
        && !storage::login_token::consume(tx, token).await?
    {
        return Err(LoginError::Forbidden);
    }
    if let Some((old, new)) = &proven.upgrade {
        storage::user::upgrade_password(tx, &user.id, old, new).await?;
    }
    if user.provisioned_at.is_none() {
        storage::user::set_provisioned(tx, &user.id, now).await?;
    }

    let given_name = request.display_name.as_deref().and_then(|name| device::tidy(name, LONGEST_NAME_CHARS));
    let (device_id, known_name) = match &request.device_id {
        Some(id) => (id.clone(), storage::session::last_name_on_device(tx, &user.id, id).await?),
        None => (device::new_id(&state.rng), None),
    };
    storage::session::finish_on_device(tx, &user.id, &device_id, now).await?;
    let ip = request.ip.map(|ip| ip.to_string());
    let session = Session {
        id: SessionId::new(now, &state.rng),
        user_id: user.id.clone(),
        device_id,
        // Client-server API, `POST /login`: ignored when the device is known.
        display_name: known_name.clone().unwrap_or_else(|| given_name.clone()),
        user_agent: request
            .user_agent
            .as_deref()
            .and_then(|text| device::tidy(text, LONGEST_USER_AGENT_CHARS)),
        created_at: now,
        created_ip: ip.clone(),
        last_active_at: Some(now),
        last_active_ip: ip,
        finished_at: None,
    };
    storage::session::insert(tx, &session).await?;
    let generation = request.refreshable.then_some(0);
    let tokens = issue(state, tx, &user.id, &session.id, generation, now).await?;
    let device_name = if known_name.is_some() { None } else { given_name };
    Ok(Begun { user, session, tokens, device_name })
}

/// Writes new tokens down: a pair of that generation, or an access token that does not expire.
pub(super) async fn issue(
    state: &SharedState,
    tx: &mut Tx,
    user: &UserId,
    session: &SessionId,
    generation: Option<i64>,
    now: Timestamp,
) -> Result<Tokens, StorageError> {
    let tag = state.tags.tag(user);
    let access = Token::make(Kind::CompatAccess, &tag, &state.rng);
    let expires_in = generation.is_some().then_some(state.config.compat_token_ttl);
    let expires_at = expires_in.map(|life| now.plus(life));
    storage::session::insert_access_token(tx, session, &access.hash(), now, expires_at).await?;
    let refresh = match generation {
        Some(generation) => {
            let refresh = Token::make(Kind::CompatRefresh, &tag, &state.rng);
            let hashes = (refresh.hash(), access.hash());
            storage::session::insert_refresh_token(tx, session, &hashes.0, &hashes.1, generation, now)
                .await?;
            Some(refresh)
        }
        None => None,
    };
    Ok(Tokens { access, refresh, expires_in })
}

async fn provision(state: &SharedState, user: &User) -> Result<(), LoginError> {
    let emails = storage::user::emails(&mut *state.storage.read().await?, &user.id).await?;
    let profile = Profile {
        display_name: user.display_name.clone().map(Some),
        emails: Some(emails),
        locked: Some(user.locked_at.is_some()),
    };
    state.synapse.hurried().provision_user(&user.username, &profile).await?;
    Ok(())
}

async fn tell_synapse(state: &SharedState, begun: &Begun) -> Result<(), LoginError> {
    let synapse = state.synapse.hurried();
    let (username, device_id) = (&begun.user.username, &begun.session.device_id);
    let name = begun.device_name.as_deref();
    match synapse.upsert_device(username, device_id, name).await {
        // Synapse's database is younger than ours (restored, or made anew).
        Err(synapse::Error::NotFound) => {
            provision(state, &begun.user).await?;
            synapse.upsert_device(username, device_id, name).await?;
        }
        told => {
            told?;
        }
    }
    Ok(())
}

/// Nobody will get the tokens: the session ends, and Synapse forgets the device in case it has heard of it.
async fn abandon(state: &SharedState, begun: &Begun) {
    let ended = async {
        let now = state.clock.now();
        let mut tx = state.storage.begin(Durability::Full).await?;
        storage::session::finish(&mut tx, &begun.session.id, now).await?;
        let job = Job::DeleteDevice {
            user: begun.user.id.clone(),
            localpart: begun.user.username.clone(),
            device_id: begun.session.device_id.clone(),
        };
        outbox::enqueue(&mut tx, &job, now).await?;
        tx.commit().await
    };
    match ended.await {
        Ok(()) => state.outbox.kick(),
        Err(error) => tracing::error!(
            session = %begun.session.id,
            error = %Chain(&error),
            "a session that Synapse has not heard of could not be ended"
        ),
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { name, .. } => write!(f, "Password {{ name: {name:?} }}"),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}

/// From the redirect to the client's own request: seconds, and a minute for slow phones.
const LOGIN_TOKEN_LIFE: Duration = Duration::from_secs(60);
