//! `POST /oauth2/introspect` (RFC 7662): what Synapse asks about every token it sees. The hot path: one query, no write but for the
//! first use of a token that can be refreshed.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::clock::Timestamp;
use crate::domain::scope;
use crate::error::Chain;
use crate::http::matrix::{bearer, read_body};
use crate::state::{SharedState, State as Service};
use crate::storage::session::{self, Introspected};
use crate::storage::{Durability, StorageError};
use crate::token::TokenHash;

/// Why a question is not answered: RFC 7662 §2.3, RFC 6749 §5.2.
#[derive(Debug)]
pub(super) enum IntrospectionError {
    /// Not a form with a `token`.
    InvalidRequest,
    /// Neither the homeserver's secret nor a client we know.
    InvalidClient,
    /// The body was not read.
    Body(StatusCode),
    /// The database failed: Synapse answers its client with 503.
    Storage(StorageError),
}

/// Says whether a token is good, and whose it is.
pub(super) async fn introspect(
    State(state): State<SharedState>,
    request: Request,
) -> Result<Json<Value>, IntrospectionError> {
    let (parts, body) = request.into_parts();
    if !is_homeserver(&parts.headers, &state.secret) {
        return Err(IntrospectionError::InvalidClient);
    }
    let body = read_body(body).await.map_err(|error| IntrospectionError::Body(error.status()))?;
    let token = form_urlencoded::parse(&body).find(|(name, _)| name == "token").map(|(_, value)| value);
    let token = token.ok_or(IntrospectionError::InvalidRequest)?;

    let now = state.clock.now();
    match look_up(&state, &token, now).await? {
        Some(found) => {
            state.metrics.introspections_active.count();
            state.activity.note(&found.session_id, found.last_active_at, now);
            Ok(Json(active(&found, now)))
        }
        None => {
            state.metrics.introspections_inactive.count();
            Ok(Json(json!({"active": false})))
        }
    }
}

/// The answer to a method that introspection does not know.
pub(super) async fn wrong_method() -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "introspection is asked by POST")
}

async fn look_up(state: &Service, token: &str, now: Timestamp) -> Result<Option<Introspected>, StorageError> {
    let Some(hash) = TokenHash::of_presented(token) else { return Ok(None) };
    let found = session::by_access_token(&mut *state.storage.read().await?, &hash).await?;
    let Some(found) = found.filter(|found| found.is_active(now)) else { return Ok(None) };
    if found.expires_at.is_some()
        && found.first_used_at.is_none()
        && let Err(error) = mark_used(state, &hash, now).await
    {
        // A full disk shall not log everybody out. Until it is written down, an old refresh token counts as a lost response.
        tracing::warn!(
            error = %Chain(&error),
            "the first use of a token could not be written down"
        );
    }
    Ok(Some(found))
}

async fn mark_used(state: &Service, hash: &TokenHash, now: Timestamp) -> Result<(), StorageError> {
    let mut tx = state.storage.begin(Durability::Relaxed).await?;
    session::mark_used(&mut tx, hash, now).await?;
    tx.commit().await
}

/// RFC 7662 §2.2, with what Synapse reads: types strict, `expires_in` a whole number of seconds, `device_id` explicit.
fn active(found: &Introspected, now: Timestamp) -> Value {
    let mut answer = json!({
        "active": true,
        "scope": scope::of_compat_session(&found.device_id),
        "client_id": "legacy",
        "username": found.username,
        "token_type": "access_token",
        "iat": found.created_at.secs(),
        "nbf": found.created_at.secs(),
        "sub": found.user_id.as_str(),
        "jti": found.session_id.as_str(),
        "device_id": found.device_id,
    });
    if let Some(end) = found.expires_at {
        answer["exp"] = json!(end.secs());
        // Active now, so for another second at least.
        answer["expires_in"] = json!(end.since(now).as_secs().max(1));
    }
    answer
}

/// Whether the request carries the secret shared with Synapse; as quick for a wrong one as for the right one.
fn is_homeserver(headers: &HeaderMap, secret: &conf::Secret) -> bool {
    let presented = headers.get(header::AUTHORIZATION).and_then(bearer).unwrap_or_default();
    // Hashed, so that not even the length shows.
    let [presented, secret] = [presented, secret.expose()].map(|text| Sha256::digest(text.as_bytes()));
    presented.ct_eq(&secret).into()
}

fn refusal(status: StatusCode, error: &str, description: &str) -> Response {
    let mut response =
        (status, Json(json!({"error": error, "error_description": description}))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_client\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

impl From<StorageError> for IntrospectionError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl IntoResponse for IntrospectionError {
    fn into_response(self) -> Response {
        match self {
            Self::InvalidRequest => refusal(StatusCode::BAD_REQUEST, "invalid_request", "token is missing"),
            Self::InvalidClient => refusal(
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "the secret is not the one shared with the homeserver",
            ),
            Self::Body(status) => refusal(status, "invalid_request", "the body could not be read"),
            Self::Storage(error) => {
                tracing::error!(error = %Chain(&error), "introspection failed");
                refusal(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the database failed")
            }
        }
    }
}
