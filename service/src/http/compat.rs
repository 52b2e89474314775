//! `/_matrix/client/*/{login,logout,refresh}`: what older clients use.

use axum::Router;

use crate::state::SharedState;

/// The routes of the `compat` resource.
pub fn routes() -> Router<SharedState> {
    Router::new()
}
