//! For tests: an HTTP server that answers like Synapse, or wrongly on purpose, and remembers what it was asked.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use conf::Secret;
use http::{HeaderMap, StatusCode, Uri, header};
use serde_json::Value;
use url::Url;

use super::Client;

/// The secret that it accepts.
pub(crate) const SECRET: &str = "a secret shared with the stand-in";

/// One request that arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// `provision_user`, or `query_user?localpart=alice`.
    pub(crate) endpoint: String,
    pub(crate) body: Value,
}

/// A running stand-in; ends with its runtime.
#[derive(Debug, Clone)]
pub(crate) struct StandIn {
    pub(crate) endpoint: Url,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    answers: Mutex<VecDeque<(u16, String)>>,
}

impl StandIn {
    /// On a TCP port of its own.
    pub(crate) async fn tcp() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}/", listener.local_addr().expect("an address"));
        let (this, router) = Self::new(&endpoint);
        tokio::spawn(async move { axum::serve(listener, router).await });
        this
    }

    /// On a Unix socket.
    pub(crate) async fn unix(path: &Path) -> Self {
        let listener = tokio::net::UnixListener::bind(path).expect("a socket");
        let (this, router) = Self::new(&format!("unix://{}", path.display()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        this
    }

    fn new(endpoint: &str) -> (Self, Router) {
        let shared = Arc::new(Shared::default());
        let this = Self { endpoint: endpoint.parse().expect("a URL"), shared: shared.clone() };
        let router = Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let shared = shared.clone();
            async move { shared.answer(&uri, &headers, &body) }
        });
        (this, router)
    }

    /// A client that knows the secret.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.endpoint, &Secret::new(SECRET)).expect("a client")
    }

    /// What the next call is answered; more of them queue up.
    pub(crate) fn will_answer(&self, status: u16, body: impl Into<String>) {
        self.shared.answers.lock().expect("no poison").push_back((status, body.into()));
    }

    /// The calls since the last time, oldest first.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.shared.calls.lock().expect("no poison"))
    }
}

impl Shared {
    fn answer(&self, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response {
        let told = uri.path_and_query().map_or("", |all| all.as_str());
        let Some(endpoint) = told.strip_prefix("/_synapse/mas/") else {
            return (StatusCode::NOT_FOUND, "<html>No Such Resource</html>").into_response();
        };
        if headers.get(header::AUTHORIZATION).is_none_or(|value| value != &format!("Bearer {SECRET}")) {
            return (StatusCode::FORBIDDEN, r#"{"errcode":"M_FORBIDDEN","error":"no"}"#).into_response();
        }
        let body = serde_json::from_slice(body).unwrap_or(Value::Null);
        self.calls.lock().expect("no poison").push(Call { endpoint: endpoint.to_owned(), body });
        let planned = self.answers.lock().expect("no poison").pop_front();
        match planned {
            Some((status, body)) => (StatusCode::from_u16(status).expect("a status"), body).into_response(),
            None if endpoint == "delete_device" => StatusCode::NO_CONTENT.into_response(),
            None => (StatusCode::OK, "{}").into_response(),
        }
    }
}
