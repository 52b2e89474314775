//! The compat endpoints as clients see them, with a stand-in for Synapse: every line of the table of errors, refresh with lost
//! responses, logout, limits.

use std::net::IpAddr;
use std::time::Duration;

use accept::ClientAddress;
use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::domain::account::{self, NewUser};
use crate::domain::user::User;
use crate::domain::{UserId, login};
use crate::fixture::Fixture;
use crate::storage;
use crate::synapse::stand_in::{SECRET, StandIn};

mod flows;
mod logins;
mod refreshes;
mod stress;

/// The service with a stand-in for Synapse and one user, `alice`, whose password is `secret`.
struct Server {
    fixture: Fixture,
    synapse: StandIn,
    alice: User,
}

/// An answer, read.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

impl Server {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut conf::Auth)) -> Self {
        let synapse = StandIn::tcp().await;
        let fixture = Fixture::with(&synapse.endpoint, SECRET, change).await;
        let alice = Self::add(&fixture, "alice", Some("Alice@Example.com")).await;
        Self { fixture, synapse, alice }
    }

    async fn add(fixture: &Fixture, username: &str, email: Option<&str>) -> User {
        let state = &fixture.state;
        let new = NewUser {
            username: username.into(),
            email: email.map(str::to_owned),
            password: Some(state.passwords.hash("secret".into()).await.unwrap()),
            ..NewUser::default()
        };
        account::create(&state.storage, "example.com", &new, state.clock.now(), &state.rng).await.unwrap()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let router = axum::Router::new()
            .merge(crate::http::compat::routes())
            .merge(crate::http::oauth::routes())
            .with_state(self.fixture.state.clone());
        let response = router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(request(Method::POST, path, &body.to_string())).await
    }

    async fn post_with_token(&self, path: &str, token: &str) -> Answer {
        let mut request = request(Method::POST, path, "{}");
        request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        self.send(request).await
    }

    async fn login(&self, more: Value) -> Answer {
        let mut body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": "secret",
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.post("/_matrix/client/v3/login", body).await
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post("/_matrix/client/v3/refresh", json!({"refresh_token": token})).await
    }

    async fn introspect(&self, token: &str) -> Value {
        let mut request = request(Method::POST, "/oauth2/introspect", "");
        *request.body_mut() = Body::from(format!("token={token}&token_type_hint=access_token"));
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, format!("Bearer {SECRET}").parse().unwrap());
        headers.insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        let answer = self.send(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    async fn is_active(&self, token: &str) -> bool {
        self.introspect(token).await["active"] == true
    }

    fn advance(&self, by: Duration) {
        self.fixture.state.clock.advance(by);
    }

    async fn live_sessions(&self, user: &UserId) -> usize {
        let mut connection = self.fixture.state.storage.read().await.unwrap();
        storage::session::of_user(&mut connection, user, true).await.unwrap().len()
    }

    fn calls(&self) -> Vec<String> {
        self.synapse.take_calls().into_iter().map(|call| format!("{} {}", call.endpoint, call.body)).collect()
    }
}

impl Answer {
    fn token(&self) -> &str {
        self.text("access_token")
    }

    fn refresh_token(&self) -> &str {
        self.text("refresh_token")
    }

    fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    #[track_caller]
    fn is(&self, status: u16, errcode: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        if errcode.is_empty() {
            assert_eq!(self.body.get("errcode"), None, "{self:?}");
        } else {
            assert_eq!(self.body["errcode"], errcode, "{self:?}");
            assert!(self.body["error"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        assert_eq!(self.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "{self:?}");
    }
}

fn request(method: Method, path: &str, body: &str) -> Request<Body> {
    let mut request = Request::new(Body::from(body.to_owned()));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert(header::USER_AGENT, "test/1".parse().unwrap());
    from(request, "203.0.113.7")
}

fn from(mut request: Request<Body>, ip: &str) -> Request<Body> {
    let ip: IpAddr = ip.parse().unwrap();
    request.extensions_mut().insert(ClientAddress::from(ip));
    request
}
