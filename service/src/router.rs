//! Resources → every URL we serve, on one page.
//!
//! A path of a resource that the listener does not carry, and of one whose place is still empty, is 404 in the manner of its caller.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::extract::{OriginalUri, Path};
use axum::response::Response;
use axum::routing::get;
use conf::{AuthListener, Resource};
use http::{HeaderMap, StatusCode};

use crate::http::assets::{Assets, FolderError};
use crate::http::metrics::Traffic;
use crate::http::refusal::{Manner, Pages};
use crate::http::{compat, connection_info, discovery, health, oauth};
use crate::state::SharedState;

/// What all listeners share besides the state.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) state: SharedState,
    pub(crate) pages: Arc<Pages>,
    pub(crate) embedded: Arc<Assets>,
    pub(crate) traffic: Arc<Traffic>,
    /// Whether the service takes no new work.
    pub(crate) draining: Arc<AtomicBool>,
}

/// The URLs of one listener: those of its resources, under its prefix.
///
/// # Errors
/// When a folder given for `assets` cannot be served.
pub(crate) async fn build(listener: &AuthListener, shared: &Shared) -> Result<Router, FolderError> {
    let mut urls = Router::new();
    for (position, resource) in listener.resources.iter().enumerate() {
        let same = |other: &Resource| std::mem::discriminant(other) == std::mem::discriminant(resource);
        if !listener.resources[..position].iter().any(same) {
            urls = urls.merge(urls_of(resource, shared).await?);
        }
    }
    let wrong_method = refusing(shared, &listener.prefix, StatusCode::METHOD_NOT_ALLOWED);
    let unknown = refusing(shared, &listener.prefix, StatusCode::NOT_FOUND);
    let urls = urls.method_not_allowed_fallback(wrong_method);
    let under_prefix =
        if listener.prefix.is_empty() { urls } else { Router::new().nest(&listener.prefix, urls) };
    Ok(under_prefix.fallback(unknown).with_state(shared.state.clone()))
}

/// Every URL of a resource.
async fn urls_of(resource: &Resource, shared: &Shared) -> Result<Router<SharedState>, FolderError> {
    Ok(match resource {
        Resource::Discovery => Router::new()
            .route("/.well-known/openid-configuration", get(discovery::metadata))
            .route("/.well-known/oauth-authorization-server", get(discovery::metadata))
            .route("/.well-known/webfinger", get(discovery::webfinger)),
        // POST /oauth2/introspect
        // Still to come: /oauth2/{token,revoke,registration,device,userinfo,par,keys.json}
        Resource::Oauth => oauth::routes(),
        // GET, POST /_matrix/client/{r0,v1,v3,api/v1,unstable}/login, POST …/logout, …/logout/all, …/refresh,
        // GET …/login/sso/redirect, …/login/sso/redirect/{idp}
        Resource::Compat => compat::routes(),
        // Still to come: /, /login, /logout, /register, /recover, /authorize, /consent/{id}, /link, /device/{id},
        // /complete-compat-sso/{id}, /account/, /upstream/, /.well-known/change-password
        Resource::Human => Router::new(),
        // Still to come: /graphql, /graphql/playground
        Resource::Graphql => Router::new(),
        // Still to come: /api/admin/v1/, /api/spec.json
        Resource::AdminApi => Router::new(),
        Resource::Assets { path } => {
            let assets = match path {
                Some(folder) => Arc::new(Assets::from_folder(folder).await?),
                None => shared.embedded.clone(),
            };
            let pages = shared.pages.clone();
            let answer = move |Path(path): Path<String>, headers: HeaderMap| {
                let found = assets.answer(&path, &headers);
                ready(found.unwrap_or_else(|| pages.refuse(Manner::Page, StatusCode::NOT_FOUND)))
            };
            Router::new().route("/assets/{*path}", get(answer))
        }
        Resource::Health => {
            let draining = shared.draining.clone();
            let ready = move |state| health::ready(state, draining.clone());
            Router::new().route("/health", get(health::health)).route("/ready", get(ready))
        }
        Resource::Prometheus => {
            let Shared { state, traffic, .. } = shared.clone();
            let answer = move || {
                let (state, traffic) = (state.clone(), traffic.clone());
                async move { traffic.answer(&state).await }
            };
            Router::new().route("/metrics", get(answer))
        }
        Resource::ConnectionInfo => {
            Router::new().route("/connection-info", get(connection_info::connection_info))
        }
    })
}

/// A handler that refuses in the manner of whoever asks for the path below `prefix`.
fn refusing(
    shared: &Shared,
    prefix: &str,
    status: StatusCode,
) -> impl Fn(OriginalUri) -> Ready<Response> + Clone + Send + Sync + 'static {
    let (pages, prefix) = (shared.pages.clone(), prefix.to_owned());
    move |OriginalUri(uri)| ready(pages.refuse(manner(uri.path(), &prefix), status))
}

/// The manner of whoever asks for `path`, which may lie below `prefix`.
pub(crate) fn manner(path: &str, prefix: &str) -> Manner {
    Manner::of(path.strip_prefix(prefix).unwrap_or(path))
}
