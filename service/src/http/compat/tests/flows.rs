//! What is around the endpoints: flows, versions, methods, CORS, bodies, logout.

use super::*;

#[tokio::test]
async fn flows_offer_what_works() {
    let server = Server::new().await;
    for path in
        ["r0", "v1", "v3", "unstable", "api/v1"].map(|version| format!("/_matrix/client/{version}/login"))
    {
        let answer = server.send(request(Method::GET, &path, "")).await;
        answer.is(200, "");
        assert_eq!(answer.body, json!({"flows": [{"type": "m.login.password"}, {"type": "m.login.token"}]}));
    }
    let server = Server::with(|config| config.passwords.enabled = false).await;
    let answer = server.send(request(Method::GET, "/_matrix/client/v3/login/", "")).await;
    assert_eq!(answer.body, json!({"flows": [{"type": "m.login.token"}]}));
    server.login(json!({})).await.is(400, "M_UNKNOWN");
}

#[tokio::test]
async fn unknown_versions_and_wrong_methods_are_unrecognized() {
    let server = Server::new().await;
    for path in ["/_matrix/client/v2/login", "/_matrix/client/api/v3/login", "/_matrix/client/api/r0/refresh"]
    {
        server.send(request(Method::GET, path, "")).await.is(404, "M_UNRECOGNIZED");
    }
    for (method, path) in [
        (Method::PUT, "/_matrix/client/v3/login"),
        (Method::DELETE, "/_matrix/client/v3/login"),
        (Method::GET, "/_matrix/client/v3/logout"),
        (Method::GET, "/_matrix/client/v3/logout/all"),
        (Method::GET, "/_matrix/client/v3/refresh"),
        (Method::POST, "/_matrix/client/v3/login/sso/redirect"),
    ] {
        server.send(request(method, path, "{}")).await.is(405, "M_UNRECOGNIZED");
    }
    for path in ["login/sso/redirect?redirectUrl=https://x", "login/sso/redirect/", "login/sso/redirect/idp"]
    {
        let path = format!("/_matrix/client/v3/{path}");
        server.send(request(Method::GET, &path, "")).await.is(404, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn preflights_are_answered_and_nothing_is_stored_by_caches() {
    let server = Server::new().await;
    let answer = server.send(request(Method::OPTIONS, "/_matrix/client/v3/logout", "")).await;
    answer.is(204, "");
    assert!(answer.headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().contains("Authorization"));
    assert!(answer.headers[header::ACCESS_CONTROL_ALLOW_METHODS].to_str().unwrap().contains("POST"));
    let answer = server.login(json!({})).await;
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn bodies_are_bounded_and_have_to_be_json() {
    let server = Server::new().await;
    let check = async |body: &str, kind: Option<&str>, status, errcode| {
        for path in ["/_matrix/client/v3/login", "/_matrix/client/v3/refresh"] {
            let mut request = request(Method::POST, path, body);
            if let Some(kind) = kind {
                request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
            }
            server.send(request).await.is(status, errcode);
        }
    };
    check("{", None, 400, "M_NOT_JSON").await;
    check("", None, 400, "M_NOT_JSON").await;
    check("\u{0}", None, 400, "M_NOT_JSON").await;
    check("{}", Some("text/plain"), 400, "M_NOT_JSON").await;
    check("{}", Some("application/x-www-form-urlencoded"), 400, "M_NOT_JSON").await;
    check("{}", Some("application/json; charset=utf-8"), 400, "M_BAD_JSON").await;
    check("{}", Some("application/vnd.x+json"), 400, "M_BAD_JSON").await;
    check("[]", None, 400, "M_BAD_JSON").await;
    check("null", None, 400, "M_BAD_JSON").await;
    check(r#"{"type": 1, "refresh_token": 1}"#, None, 400, "M_BAD_JSON").await;
    check(&format!("{{\"x\": \"{}\"}}", "x".repeat(70_000)), None, 413, "M_TOO_LARGE").await;
}

#[tokio::test]
async fn logout_ends_the_session_here_and_the_device_at_synapse() {
    let server = Server::new().await;
    let first = server.login(json!({"device_id": "FIRST"})).await;
    let second = server.login(json!({"device_id": "SECOND"})).await;
    server.synapse.take_calls();
    server.post_with_token("/_matrix/client/v3/logout", first.token()).await.is(200, "");
    assert_eq!(server.calls(), [r#"delete_device {"device_id":"FIRST","localpart":"alice"}"#]);
    assert!(!server.is_active(first.token()).await);
    assert!(server.is_active(second.token()).await);

    let again = server.post_with_token("/_matrix/client/v3/logout", first.token()).await;
    again.is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(again.body["soft_logout"], false);

    let in_query = format!("/_matrix/client/r0/logout?access_token={}", second.token());
    server.send(request(Method::POST, &in_query, "")).await.is(200, "");
    assert!(!server.is_active(second.token()).await);
}

#[tokio::test]
async fn logout_all_ends_every_session_of_the_user_only() {
    let server = Server::new().await;
    Server::add(&server.fixture, "bob", None).await;
    let tokens = [server.login(json!({})).await, server.login(json!({})).await];
    let bob = server.login(json!({"user": "bob"})).await;
    server.synapse.take_calls();
    server.post_with_token("/_matrix/client/v3/logout/all", tokens[0].token()).await.is(200, "");
    assert_eq!(server.calls().len(), 2);
    for answer in &tokens {
        assert!(!server.is_active(answer.token()).await);
    }
    assert!(server.is_active(bob.token()).await);
}

#[tokio::test]
async fn logout_needs_a_good_token() {
    let server = Server::new().await;
    for path in ["/_matrix/client/v3/logout", "/_matrix/client/v3/logout/all"] {
        server.post(path, json!({})).await.is(401, "M_MISSING_TOKEN");
        server.post(&format!("{path}?access_token="), json!({})).await.is(401, "M_MISSING_TOKEN");
        for token in ["x", "mat_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_9DsFA3", "mct_a_b"] {
            server.post_with_token(path, token).await.is(401, "M_UNKNOWN_TOKEN");
        }
    }
    let answer = server.login(json!({"refresh_token": true})).await;
    server.advance(Duration::from_secs(301));
    let expired = server.post_with_token("/_matrix/client/v3/logout", answer.token()).await;
    expired.is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(expired.body["soft_logout"], true);
}

#[tokio::test]
async fn a_logout_is_not_lost_when_synapse_is_away() {
    let server = Server::new().await;
    let answer = server.login(json!({"device_id": "D"})).await;
    server.synapse.take_calls();
    server.synapse.will_answer(500, "{}");
    server.post_with_token("/_matrix/client/v3/logout", answer.token()).await.is(200, "");
    assert!(!server.is_active(answer.token()).await);
    let waiting =
        storage::outbox::count(&mut server.fixture.state.storage.read().await.unwrap()).await.unwrap();
    // That alice exists has not been told either: no worker runs here.
    assert_eq!(waiting, 2);
}
