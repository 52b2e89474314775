//! `GET /health`: 200 while this process and its database work. `GET /ready`: 200 while it takes new work, too. Synapse's health is not
//! asked for: it would take us down with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use tracing::warn;

use crate::error::Chain;
use crate::state::SharedState;
use crate::storage::StorageError;

/// A database that takes longer is no help to anybody.
const DEADLINE: Duration = Duration::from_secs(5);

/// 503 as soon as the service is about to end: new work should go elsewhere. Else as [`health`].
pub async fn ready(state: State<SharedState>, draining: Arc<AtomicBool>) -> Response {
    if draining.load(Ordering::Relaxed) {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    health(state).await
}

/// Asks the database a trifle.
pub async fn health(State(state): State<SharedState>) -> Response {
    let asked = async {
        let mut connection = state.storage.read().await?;
        sqlx::query("SELECT 1").fetch_one(&mut *connection).await.map_err(StorageError::from)
    };
    let (status, text) = match tokio::time::timeout(DEADLINE, asked).await {
        Ok(Ok(_)) => (StatusCode::OK, "ok\n"),
        Ok(Err(fault)) => {
            warn!(error = %Chain(&fault), "not healthy: the database cannot be asked");
            (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be asked\n")
        }
        Err(_) => {
            warn!("not healthy: the database does not answer in time");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer in time\n")
        }
    };
    answer(status, text)
}

fn answer(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
}
