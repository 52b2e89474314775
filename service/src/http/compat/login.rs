//! `GET` and `POST /_matrix/client/*/login` (client-server API, "Login").

use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::device;
use crate::domain::login::{self, Credential, LoginError};
use crate::domain::user::{email_key, user_id, username_of};
use crate::http::matrix::{MatrixError, client_ip, read_json, user_agent};
use crate::password::PasswordError;
use crate::state::SharedState;
use crate::storage::user::Name;

/// Which ways to log in there are. `m.login.sso` joins them when there are pages for people.
pub(super) async fn flows(State(state): State<SharedState>) -> Json<Value> {
    let mut flows = Vec::new();
    if state.config.passwords.enabled {
        flows.push(json!({"type": "m.login.password"}));
    }
    flows.push(json!({"type": "m.login.token"}));
    Json(json!({"flows": flows}))
}

/// Logs in.
pub(super) async fn login(
    State(state): State<SharedState>,
    request: Request,
) -> Result<Json<Value>, MatrixError> {
    let (parts, body) = request.into_parts();
    let body: Body = read_json(&parts.headers, body).await?;
    if let Some(id) = &body.device_id {
        device::check_id(id).map_err(|error| bad_request("M_INVALID_PARAM", error.to_string()))?;
    }
    let request = login::Request {
        credential: credential(&state.config, &body)?,
        device_id: body.device_id,
        display_name: body.initial_device_display_name,
        refreshable: body.refresh_token.unwrap_or(false),
        ip: client_ip(&parts),
        user_agent: user_agent(&parts.headers),
    };
    let result = login::login(&state, request).await;
    count(&state, &result);
    let logged_in = result?;

    let tokens = logged_in.tokens;
    let mut answer = json!({
        "access_token": tokens.access.expose(),
        "device_id": logged_in.device_id,
        "user_id": user_id(&logged_in.user.username, &state.config.matrix.homeserver),
    });
    if let Some(refresh) = tokens.refresh {
        answer["refresh_token"] = json!(refresh.expose());
    }
    if let Some(life) = tokens.expires_in {
        answer["expires_in_ms"] = json!(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
struct Body {
    r#type: String,
    identifier: Option<Value>,
    user: Option<String>,
    medium: Option<String>,
    address: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    refresh_token: Option<bool>,
}

#[derive(Deserialize)]
struct IdentifierType {
    r#type: String,
}

#[derive(Deserialize)]
struct UserIdentifier {
    user: String,
}

#[derive(Deserialize)]
struct ThirdPartyIdentifier {
    medium: String,
    address: String,
}

fn credential(config: &conf::Auth, body: &Body) -> Result<Credential, MatrixError> {
    match body.r#type.as_str() {
        "m.login.password" if config.passwords.enabled => {
            let password = body.password.clone().ok_or_else(|| bad_json("password is missing"))?;
            let (name, typed) = named(config, body)?;
            Ok(Credential::Password { name, typed, password })
        }
        "m.login.password" => Err(bad_request("M_UNKNOWN", "Login with a password is switched off here")),
        "m.login.token" => {
            let token = body.token.clone().ok_or_else(|| bad_json("token is missing"))?;
            Ok(Credential::Token(token))
        }
        "m.login.application_service" => Err(bad_request(
            "M_APPSERVICE_LOGIN_UNSUPPORTED",
            "Application services do not log in here: they make their devices with PUT /devices (MSC4190)",
        )),
        _ => Err(bad_request("M_UNKNOWN", "Unknown login type")),
    }
}

/// Whom the client means, in all the ways that clients say it: `user` at the top, `identifier`, or an address at the top.
fn named(config: &conf::Auth, body: &Body) -> Result<(Option<Name>, String), MatrixError> {
    let by_user = |user: &str| {
        let name = match username_of(user, &config.matrix.homeserver) {
            // No localpart holds an @, so this can only be an address.
            Some(text) if text.contains('@') && config.account.login_with_email_allowed => {
                email_key(text).map(Name::Email)
            }
            found => found.map(|username| Name::Username(username.to_owned())),
        };
        (name, user.to_owned())
    };
    if let Some(user) = &body.user {
        return Ok(by_user(user));
    }
    if let Some(identifier) = &body.identifier {
        let kind: IdentifierType = part(identifier)?;
        return match kind.r#type.as_str() {
            "m.id.user" => Ok(by_user(&part::<UserIdentifier>(identifier)?.user)),
            "m.id.thirdparty" => {
                let ThirdPartyIdentifier { medium, address } = part(identifier)?;
                by_address(config, &medium, address)
            }
            _ => Err(bad_request("M_UNKNOWN", "Unsupported identifier type")),
        };
    }
    match (&body.medium, &body.address) {
        (Some(medium), Some(address)) => by_address(config, medium, address.clone()),
        _ => Err(bad_json("identifier is missing")),
    }
}

fn by_address(
    config: &conf::Auth,
    medium: &str,
    address: String,
) -> Result<(Option<Name>, String), MatrixError> {
    if medium != "email" || !config.account.login_with_email_allowed {
        return Err(bad_request("M_UNKNOWN", "Login with this kind of address is not supported"));
    }
    Ok((email_key(&address).map(Name::Email), address))
}

fn part<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, MatrixError> {
    T::deserialize(value).map_err(|error| bad_json(format!("The identifier does not fit: {error}")))
}

fn bad_json(message: impl Into<std::borrow::Cow<'static, str>>) -> MatrixError {
    bad_request("M_BAD_JSON", message)
}

fn bad_request(errcode: &'static str, message: impl Into<std::borrow::Cow<'static, str>>) -> MatrixError {
    MatrixError::new(StatusCode::BAD_REQUEST, errcode, message)
}

fn count(state: &SharedState, result: &Result<login::LoggedIn, LoginError>) {
    let metrics = &state.metrics;
    let counter = match result {
        Ok(_) => &metrics.logins,
        Err(LoginError::Forbidden | LoginError::Locked) => &metrics.logins_refused,
        Err(LoginError::Limited(_) | LoginError::Password(PasswordError::Busy)) => &metrics.logins_limited,
        Err(
            LoginError::Password(PasswordError::Hash(_))
            | LoginError::Homeserver(_)
            | LoginError::Storage(_)
            | LoginError::Aborted,
        ) => &metrics.logins_failed,
    };
    counter.count();
}
