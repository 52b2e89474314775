//! What every Matrix endpoint has in common: error answers, CORS, JSON bodies, and who asks.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use accept::ClientAddress;
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An error answer: Matrix client-server API, "Standard error response".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixError {
    status: StatusCode,
    errcode: &'static str,
    message: Cow<'static, str>,
    soft_logout: Option<bool>,
    retry_after: Option<Duration>,
}

impl MatrixError {
    /// With a code and a text for people.
    pub fn new(status: StatusCode, errcode: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, errcode, message: message.into(), soft_logout: None, retry_after: None }
    }

    /// Says whether the client may keep its data and get a new token for the same device.
    pub fn soft_logout(self, soft_logout: bool) -> Self {
        Self { soft_logout: Some(soft_logout), ..self }
    }

    /// Says when to come again: `Retry-After` in whole seconds and, for `M_LIMIT_EXCEEDED`, `retry_after_ms`.
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// 401 `M_UNKNOWN_TOKEN`.
    pub fn unknown_token(soft_logout: bool) -> Self {
        let message = if soft_logout { "The access token has expired" } else { "Unknown token" };
        Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", message).soft_logout(soft_logout)
    }

    /// 401 `M_USER_LOCKED`, as the specification has it ("Account locking"): the client keeps its data.
    pub fn user_locked() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", "This account has been locked").soft_logout(true)
    }

    /// 404 `M_UNRECOGNIZED`.
    pub fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "Unrecognized request")
    }

    /// 503 `M_UNKNOWN`: something here does not work now, and may in a moment.
    pub fn unavailable(message: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", message).retry_after(Duration::from_secs(5))
    }

    /// Its HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for MatrixError {
    fn into_response(self) -> Response {
        let mut body = json!({"errcode": self.errcode, "error": self.message});
        if let Some(soft_logout) = self.soft_logout {
            body["soft_logout"] = Value::Bool(soft_logout);
        }
        if let (StatusCode::TOO_MANY_REQUESTS, Some(wait)) = (self.status, self.retry_after) {
            body["retry_after_ms"] = json!(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        let mut response = (self.status, Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            // Rounded up: who comes a moment too early is turned away again.
            let secs = wait.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::try_from(secs.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

/// Around every Matrix route: answers preflights, adds the CORS headers that the specification asks for ("Web browser clients"),
/// and forbids to store answers that hold tokens.
pub async fn envelope(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in CORS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The answer to a method that an endpoint does not know: 405 `M_UNRECOGNIZED`.
pub async fn wrong_method() -> MatrixError {
    MatrixError::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "Unrecognized request")
}

/// Reads a JSON object.
///
/// # Errors
/// 413 `M_TOO_LARGE`, 400 `M_NOT_JSON` for what is no JSON or says that it is something else, 400 `M_BAD_JSON` for JSON that does
/// not fit.
pub async fn read_json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, MatrixError> {
    if !says_json(headers) {
        return Err(not_json("The body has to be application/json"));
    }
    let bytes = read_body(body).await?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| not_json("The body is not JSON"))?;
    serde_json::from_value(value).map_err(|error| {
        MatrixError::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", format!("The body does not fit: {error}"))
    })
}

/// Reads a whole body within a bound of size. How slow it may come is the listener's business.
///
/// # Errors
/// 413 `M_TOO_LARGE`, 400 `M_UNKNOWN` for one that is cut off.
pub async fn read_body(body: Body) -> Result<bytes::Bytes, MatrixError> {
    match Limited::new(body, LARGEST_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(MatrixError::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", "The body is too large"))
        }
        Err(_) => Err(MatrixError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "The body is incomplete")),
    }
}

/// The access token of a request: `Authorization: Bearer …`, else `?access_token=…`.
///
/// # Errors
/// 401 `M_MISSING_TOKEN`.
pub fn access_token(parts: &Parts) -> Result<String, MatrixError> {
    let in_header = parts.headers.get(header::AUTHORIZATION).and_then(bearer);
    let in_query = || {
        let query = parts.uri.query().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "access_token")
            .map(|(_, value)| value.into_owned())
    };
    in_header
        .map(str::to_owned)
        .or_else(in_query)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| MatrixError::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "Missing access token"))
}

/// The token of a `Bearer` authorization (RFC 6750 §2.1); the scheme in any case.
pub fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Who asks, as the listener found out.
pub fn client_ip(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ClientAddress>().and_then(ClientAddress::ip)
}

/// The client's `User-Agent`.
pub fn user_agent(headers: &HeaderMap) -> Option<String> {
    headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn not_json(message: &'static str) -> MatrixError {
    MatrixError::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", message)
}

/// A body without a word about its kind is taken for JSON, as Matrix clients have always done it.
fn says_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A login is a few hundred bytes.
const LARGEST_BODY_BYTES: usize = 64 * 1024;

const CORS: [(header::HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization"),
    (header::ACCESS_CONTROL_MAX_AGE, "3600"),
];
