//! `/oauth2/*`: so far what Synapse asks.

use axum::Router;

use crate::state::SharedState;

/// The routes of the `oauth` resource.
pub fn routes() -> Router<SharedState> {
    Router::new()
}
