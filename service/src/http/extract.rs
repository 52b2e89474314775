//! What handlers are told about a request besides its own bytes. The listener puts it there; no handler reads a forwarding header.

use std::convert::Infallible;
use std::sync::Arc;

use accept::{ClientAddress, Connection};
use axum::extract::FromRequestParts;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;

use super::refusal::{self, Manner};

/// Who asked, after all trust rules. Unknown when nobody could tell.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub ClientAddress);

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get().copied().unwrap_or(ClientAddress::UNKNOWN)))
    }
}

/// The connection that a request came over.
#[derive(Debug, Clone)]
pub struct Over(pub Arc<Connection>);

impl<S: Sync> FromRequestParts<S> for Over {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        match parts.extensions.get::<Arc<Connection>>() {
            Some(connection) => Ok(Self(connection.clone())),
            None => Err(refusal::json(Manner::Api, StatusCode::INTERNAL_SERVER_ERROR)),
        }
    }
}
