//! `/.well-known/*` of the `discovery` resource: what this service offers and where (RFC 8414, OpenID Connect Discovery 1.0, RFC 7033).
//!
//! Only what exists is named. Synapse needs `issuer` and `account_management_uri`, passes everything else on to clients, and keeps
//! the document until it is restarted.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use url::Url;

use super::refusal::{self, Manner};
use crate::state::SharedState;

/// The link relation of an issuer (OpenID Connect Discovery 1.0 §2).
const ISSUER_RELATION: &str = "http://openid.net/specs/connect/1.0/issuer";

/// Authorization server metadata (RFC 8414 §2).
#[derive(Debug, Serialize)]
struct Metadata<'a> {
    issuer: &'a Url,
    introspection_endpoint: Option<Url>,
    /// The token type is a registered value there (RFC 8414 §2): the homeserver shows its secret as a Bearer token.
    introspection_endpoint_auth_methods_supported: [&'static str; 1],
    /// Required by the RFC; empty until there is an authorization endpoint.
    response_types_supported: [&'static str; 0],
    account_management_uri: Option<Url>,
}

/// `GET /.well-known/openid-configuration` and `/.well-known/oauth-authorization-server`.
pub async fn metadata(State(state): State<SharedState>) -> Response {
    let http = &state.config.http;
    let link = |path| http.public_base.join(path).ok();
    let metadata = Metadata {
        issuer: &http.issuer,
        introspection_endpoint: link("oauth2/introspect"),
        introspection_endpoint_auth_methods_supported: ["Bearer"],
        response_types_supported: [],
        account_management_uri: link("account/"),
    };
    axum::Json(metadata).into_response()
}

/// `GET /.well-known/webfinger?resource=…&rel=…`: every resource has this issuer.
pub async fn webfinger(State(state): State<SharedState>, RawQuery(query): RawQuery) -> Response {
    #[derive(Serialize)]
    struct Descriptor<'a> {
        subject: &'a str,
        links: Vec<Link<'a>>,
    }
    #[derive(Serialize)]
    struct Link<'a> {
        rel: &'static str,
        href: &'a Url,
    }
    let query = query.unwrap_or_default();
    let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let Some((_, resource)) = parameters.iter().find(|(name, _)| name == "resource") else {
        return refusal::json(Manner::Api, StatusCode::BAD_REQUEST);
    };
    let mut relations = parameters.iter().filter(|(name, _)| name == "rel").peekable();
    // Without `rel` all links are wanted (RFC 7033 §4.3).
    let wanted = relations.peek().is_none() || relations.any(|(_, relation)| relation == ISSUER_RELATION);
    let links = if wanted {
        vec![Link { rel: ISSUER_RELATION, href: &state.config.http.issuer }]
    } else {
        Vec::new()
    };
    let body = axum::Json(Descriptor { subject: resource, links });
    ([(header::CONTENT_TYPE, "application/jrd+json")], body).into_response()
}
