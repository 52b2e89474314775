//! `POST /_matrix/client/*/logout` and `/logout/all`.

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use crate::domain::logout::{Extent, logout};
use crate::http::matrix::{MatrixError, access_token, read_body};
use crate::state::SharedState;

/// Ends the session of the token.
pub(super) async fn one(state: State<SharedState>, request: Request) -> Result<Json<Value>, MatrixError> {
    end(state, request, Extent::One).await
}

/// Ends all sessions of the token's user.
pub(super) async fn all(state: State<SharedState>, request: Request) -> Result<Json<Value>, MatrixError> {
    end(state, request, Extent::All).await
}

async fn end(
    State(state): State<SharedState>,
    request: Request,
    extent: Extent,
) -> Result<Json<Value>, MatrixError> {
    let (parts, body) = request.into_parts();
    let token = access_token(&parts)?;
    // Whatever is in it (clients send `{}`, nothing, or `null`), only that the connection can be used again.
    read_body(body).await?;
    // Goes on when the client hangs up: Synapse hears of it sooner.
    let task = tokio::spawn({
        let state = state.clone();
        async move { logout(&state, &token, extent).await }
    });
    match task.await {
        Ok(result) => result?,
        Err(_) => return Err(MatrixError::unavailable("The logout did not come to an end")),
    }
    state.metrics.logouts.count();
    Ok(Json(json!({})))
}
