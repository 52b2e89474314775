//! One accepted connection → HTTP → the listener's router.
//!
//! What the sockets are and who sends PROXY headers is `accept`'s business; which URL is what, `router`'s. Here is what lies in between:
//! the sockets that are served, and with what (`lines`), and one connection from its first request to its end (`connection`).

mod activity;
mod answer;
mod connection;
pub(crate) mod lines;
mod request;
mod upload;
mod wire;

use std::sync::Arc;

use accept::{Acceptor, BoundAddress, Change, HeaderBounds, Listener, ProxyPolicy, Terms, Tickets};
use conf::AuthListener;

use crate::error::ServiceError;
use crate::router::{self, Shared};
use request::Context;

/// A socket and what its connections are to be served with: ready, but nobody knows of it yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    address: BoundAddress,
    sockets: Vec<Listener>,
    terms: Terms,
    context: Arc<Context>,
}

/// Makes what the requests of all listeners of a configuration are served with, and binds their sockets in `change`.
///
/// # Errors
/// The first listener that cannot be bound, or whose folder of assets cannot be read. Nothing has happened then.
pub(crate) async fn prepare(
    shared: &Shared,
    tickets: &Tickets,
    change: &mut Change,
) -> Result<Vec<Prepared>, ServiceError> {
    let http = &shared.state.config.http;
    let mut prepared = Vec::new();
    for listener in &http.listeners {
        let name = || listener.name.clone();
        let router = router::build(listener, shared)
            .await
            .map_err(|source| ServiceError::Assets { listener: name(), source })?;
        let acceptor = Arc::new(acceptor(listener, http, tickets));
        let context = Arc::new(Context {
            router,
            acceptor: acceptor.clone(),
            trusted: http.trusted_proxies.clone().into(),
            prefix: listener.prefix.clone(),
            pages: shared.pages.clone(),
            traffic: shared.traffic.clone(),
            limits: http.limits,
            timeouts: http.timeouts,
        });
        for bind in &listener.binds {
            let bound = change.bind(&format!("auth {}", listener.name), bind, 1).await;
            let bound = bound.map_err(|source| ServiceError::Bind { listener: name(), source })?;
            let sockets: std::io::Result<Vec<_>> =
                bound.sockets.into_iter().map(accept::BoundSocket::into_listener).collect();
            prepared.push(Prepared {
                address: bound.address,
                sockets: sockets.map_err(|source| ServiceError::Socket { listener: name(), source })?,
                terms: Terms { acceptor: acceptor.clone(), drain: http.timeouts.drain },
                context: context.clone(),
            });
        }
    }
    Ok(prepared)
}

fn acceptor(listener: &AuthListener, http: &conf::Http, tickets: &Tickets) -> Acceptor {
    Acceptor {
        listener: listener.name.as_str().into(),
        proxy: if listener.proxy_protocol {
            ProxyPolicy::Always(http.trusted_proxies.clone())
        } else {
            ProxyPolicy::Off
        },
        tls: listener.tls.as_ref().map(|certificate| {
            accept::server_config_for(certificate, &[b"h2", b"http/1.1", b"http/1.0"], tickets)
        }),
        header: HeaderBounds { deadline: http.timeouts.proxy_header, ..HeaderBounds::default() },
        handshake: http.timeouts.handshake,
    }
}

impl Prepared {
    /// Name of the listener and actual address.
    pub(crate) fn name(&self) -> (String, BoundAddress) {
        (self.context.acceptor.listener.to_string(), self.address.clone())
    }
}

#[cfg(test)]
mod tests;
