//! `POST /_matrix/client/*/refresh`.

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::refresh;
use crate::http::matrix::{MatrixError, client_ip, read_json};
use crate::state::SharedState;

#[derive(Deserialize)]
struct Body {
    refresh_token: String,
}

/// Exchanges a refresh token for a new pair.
pub(super) async fn refresh(
    State(state): State<SharedState>,
    request: Request,
) -> Result<Json<Value>, MatrixError> {
    let (parts, body) = request.into_parts();
    let body: Body = read_json(&parts.headers, body).await?;
    let result = refresh::refresh(&state, &body.refresh_token, client_ip(&parts)).await;
    let counter = if result.is_ok() { &state.metrics.refreshes } else { &state.metrics.refreshes_refused };
    counter.count();
    let tokens = result?;
    let mut answer = json!({"access_token": tokens.access.expose()});
    if let Some(refresh) = tokens.refresh {
        answer["refresh_token"] = json!(refresh.expose());
    }
    if let Some(life) = tokens.expires_in {
        answer["expires_in_ms"] = json!(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    }
    Ok(Json(answer))
}
