//! Introspection as Synapse asks for it.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::clock::Timestamp;
use crate::domain::login::{Credential, LoggedIn, Request as Login, issue_token, login};
use crate::domain::{UserId, account};
use crate::fixture::Fixture;
use crate::storage;
use crate::synapse::stand_in::{SECRET, StandIn};

async fn logged_in(refreshable: bool, device_id: &str) -> (Fixture, UserId, LoggedIn) {
    let synapse = StandIn::tcp().await;
    let fixture = Fixture::new(&synapse.endpoint, SECRET).await;
    let user = fixture.user("alice").await;
    let token = issue_token(&fixture.state, &user).await.unwrap();
    let request = Login {
        credential: Credential::Token(token.expose().to_owned()),
        device_id: Some(device_id.into()),
        display_name: None,
        refreshable,
        ip: None,
        user_agent: None,
    };
    let logged_in = login(&fixture.state, request).await.unwrap();
    (fixture, user, logged_in)
}

async fn ask(
    fixture: &Fixture,
    method: Method,
    authorization: Option<&str>,
    body: &str,
) -> (StatusCode, Value) {
    let mut request = Request::new(Body::from(body.to_owned()));
    *request.method_mut() = method;
    *request.uri_mut() = "/oauth2/introspect".parse().unwrap();
    if let Some(authorization) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, authorization.parse().unwrap());
    }
    let router = crate::http::oauth::routes().with_state(fixture.state.clone());
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn introspect(fixture: &Fixture, token: &str) -> Value {
    let body = format!("token={token}&token_type_hint=access_token");
    let (status, answer) = ask(fixture, Method::POST, Some(&format!("Bearer {SECRET}")), &body).await;
    assert_eq!(status, 200);
    answer
}

#[tokio::test]
async fn the_answer_has_exactly_what_synapse_reads() {
    let (fixture, user, logged_in) = logged_in(true, "DEVICE").await;
    let mut answer = introspect(&fixture, logged_in.tokens.access.expose()).await;
    assert!(answer["jti"].is_string());
    answer.as_object_mut().unwrap().remove("jti");
    assert_eq!(
        answer,
        json!({
            "active": true,
            "scope": "urn:matrix:client:api:* urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:client:device:DEVICE \
                      urn:matrix:org.matrix.msc2967.client:device:DEVICE",
            "client_id": "legacy",
            "username": "alice",
            "token_type": "access_token",
            "iat": 1_700_000_000,
            "nbf": 1_700_000_000,
            "exp": 1_700_000_300,
            "expires_in": 300,
            "sub": user.as_str(),
            "device_id": "DEVICE",
        })
    );
}

#[tokio::test]
async fn whoever_is_not_the_homeserver_learns_nothing() {
    let (fixture, _, logged_in) = logged_in(false, "D").await;
    let body = format!("token={}", logged_in.tokens.access.expose());
    for authorization in [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic YTpi"), Some(SECRET)] {
        let (status, answer) = ask(&fixture, Method::POST, authorization, &body).await;
        assert_eq!((status.as_u16(), &answer["error"]), (401, &json!("invalid_client")), "{authorization:?}");
    }
    let right = format!("Bearer {SECRET}");
    let (status, answer) = ask(&fixture, Method::POST, Some(&right), "token_type_hint=access_token").await;
    assert_eq!((status.as_u16(), &answer["error"]), (400, &json!("invalid_request")));
    let (status, _) = ask(&fixture, Method::GET, Some(&right), "").await;
    assert_eq!(status, 405);
}

#[tokio::test]
async fn what_is_not_good_is_inactive_and_nothing_else_is_said() {
    let inactive = json!({"active": false});
    let (fixture, user, logged_in) = logged_in(true, "D").await;
    let refresh = logged_in.tokens.refresh.unwrap();
    for token in ["", "x", "%00", "mct_%C3%A4", refresh.expose(), &"x".repeat(2000)] {
        assert_eq!(introspect(&fixture, token).await, inactive);
    }
    let state = &fixture.state;
    let access = logged_in.tokens.access.expose();
    fixture.execute("UPDATE users SET locked_at = 1").await;
    assert_eq!(introspect(&fixture, access).await, inactive);
    fixture.execute("UPDATE users SET locked_at = NULL, deactivated_at = 1").await;
    assert_eq!(introspect(&fixture, access).await, inactive);
    fixture.execute("UPDATE users SET deactivated_at = NULL").await;
    assert_eq!(introspect(&fixture, access).await["active"], true);
    account::end_sessions(&state.storage, &user, state.clock.now()).await.unwrap();
    assert_eq!(introspect(&fixture, access).await, inactive);
}

#[tokio::test]
async fn a_device_that_no_scope_can_hold_is_still_named() {
    let (fixture, _, logged_in) = logged_in(false, "my phone ☎").await;
    let answer = introspect(&fixture, logged_in.tokens.access.expose()).await;
    assert_eq!(answer["device_id"], "my phone ☎");
    assert_eq!(answer["scope"], "urn:matrix:client:api:* urn:matrix:org.matrix.msc2967.client:api:*");
    assert_eq!(answer.get("expires_in"), None);
}

#[tokio::test]
async fn activity_is_written_down_later() {
    let (fixture, user, logged_in) = logged_in(false, "D").await;
    let state = &fixture.state;
    state.clock.advance(Duration::from_secs(120));
    introspect(&fixture, logged_in.tokens.access.expose()).await;
    let last_active = async || -> Option<Timestamp> {
        let mut connection = state.storage.read().await.unwrap();
        storage::session::of_user(&mut connection, &user, true).await.unwrap()[0].last_active_at
    };
    assert_eq!(last_active().await, Some(Timestamp::from_millis(1_700_000_000_000)));
    assert_eq!(state.activity.flush(&state.storage).await.unwrap(), 1);
    assert_eq!(last_active().await, Some(Timestamp::from_millis(1_700_000_120_000)));
    assert_eq!(state.activity.flush(&state.storage).await.unwrap(), 0);
}
