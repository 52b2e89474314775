//! `/oauth2/*`: so far what Synapse asks. `/oauth2/{registration,token,revoke,device,userinfo,keys.json,par}` come later.

use axum::Router;
use axum::middleware;
use axum::routing::post;

use crate::state::SharedState;

mod introspection;
#[cfg(test)]
mod tests;

/// The routes of the `oauth` resource.
pub fn routes() -> Router<SharedState> {
    Router::new()
        .route("/oauth2/introspect", post(introspection::introspect).fallback(introspection::wrong_method))
        .layer(middleware::from_fn(super::matrix::envelope))
}
