//! `/_matrix/client/*/{login,logout,refresh}`: what older clients use.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

use super::matrix::{MatrixError, envelope, wrong_method};
use crate::state::SharedState;

mod login;
mod logout;
mod refresh;
mod sso;
#[cfg(test)]
mod tests;

/// The routes of the `compat` resource.
pub fn routes() -> Router<SharedState> {
    let mut router = Router::new();
    for version in ["{version}", "api/{version}"] {
        let mut route = |path: &str, endpoint: MethodRouter<SharedState>| {
            let path = format!("/_matrix/client/{version}/{path}");
            router = std::mem::take(&mut router).route(&path, endpoint.fallback(wrong_method));
        };
        route("login", get(login::flows).post(login::login));
        route("login/", get(login::flows).post(login::login));
        route("login/sso/redirect", get(sso::redirect));
        route("login/sso/redirect/", get(sso::redirect));
        route("login/sso/redirect/{idp}", get(sso::redirect));
        route("logout", post(logout::one));
        route("logout/", post(logout::one));
        route("logout/all", post(logout::all));
        route("refresh", post(refresh::refresh));
        route("refresh/", post(refresh::refresh));
    }
    router.layer(middleware::from_fn(known_version)).layer(middleware::from_fn(envelope))
}

/// Lets requests of the versions pass that clients know: `r0`, `v1`, `v3`, `unstable`, `api/v1`.
async fn known_version(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let rest = path.split_once("/_matrix/client/").map_or("", |(_, rest)| rest);
    let known = ["r0/", "v1/", "v3/", "unstable/", "api/v1/"].iter().any(|version| rest.starts_with(version));
    if known { next.run(request).await } else { MatrixError::unrecognized().into_response() }
}
