//! Who gets in, who does not, and what Synapse hears of it.

use super::*;

#[tokio::test]
async fn every_way_to_name_a_user_works() {
    let server = Server::new().await;
    for name in [
        json!({"identifier": {"type": "m.id.user", "user": "alice"}}),
        json!({"identifier": {"type": "m.id.user", "user": "Alice"}}),
        json!({"identifier": {"type": "m.id.user", "user": "@alice:example.com"}}),
        json!({"identifier": {"type": "m.id.user", "user": "alice@example.com"}}),
        json!({"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "ALICE@example.com"}}),
        json!({"identifier": null, "user": "alice"}),
        json!({"identifier": {"type": "m.id.user", "user": "nobody"}, "user": "@alice:example.com"}),
        json!({"identifier": null, "medium": "email", "address": "alice@example.com"}),
    ] {
        let answer = server.login(name.clone()).await;
        answer.is(200, "");
        assert_eq!(answer.body["user_id"], "@alice:example.com", "{name}");
        assert!(server.is_active(answer.token()).await);
    }
    assert_eq!(server.fixture.state.metrics.logins.total(), 8);
}

#[tokio::test]
async fn wrong_credentials_are_one_answer() {
    let server = Server::new().await;
    let bob = Server::add(&server.fixture, "bob", None).await;
    let state = &server.fixture.state;
    account::deactivate(&state.storage, &bob.id, false, state.clock.now()).await.unwrap();
    server.fixture.user("carol").await;
    let mut bodies = Vec::new();
    for attempt in [
        json!({"password": "wrong"}),
        json!({"password": ""}),
        json!({"password": "x".repeat(5000)}),
        json!({"user": "nobody"}),
        json!({"user": "@alice:elsewhere.com"}),
        json!({"user": ""}),
        json!({"user": "a\u{0}b"}),
        json!({"user": "bob"}),
        json!({"user": "carol"}),
        json!({"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "nobody@example.com"}}),
        json!({"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "nonsense"}}),
        json!({"type": "m.login.token", "token": "nonsense"}),
        json!({"type": "m.login.token", "token": ""}),
    ] {
        let answer = server.login(attempt.clone()).await;
        answer.is(403, "M_FORBIDDEN");
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(server.live_sessions(&server.alice.id).await, 0);
    assert_eq!(server.calls(), [""; 0]);
}

#[tokio::test]
async fn what_is_not_supported_is_said_with_the_right_code() {
    let server = Server::new().await;
    for (attempt, errcode) in [
        (json!({"type": "m.login.application_service"}), "M_APPSERVICE_LOGIN_UNSUPPORTED"),
        (json!({"type": "m.login.dummy"}), "M_UNKNOWN"),
        (json!({"type": "m.login.sso"}), "M_UNKNOWN"),
        (json!({"identifier": {"type": "m.id.phone", "country": "GB", "phone": "1"}}), "M_UNKNOWN"),
        (json!({"identifier": {"type": "m.id.thirdparty", "medium": "msisdn", "address": "1"}}), "M_UNKNOWN"),
        (json!({"identifier": {"type": "m.id.user"}}), "M_BAD_JSON"),
        (json!({"identifier": {"user": "alice"}}), "M_BAD_JSON"),
        (json!({"identifier": "alice"}), "M_BAD_JSON"),
        (json!({"identifier": null}), "M_BAD_JSON"),
        (json!({"password": null}), "M_BAD_JSON"),
        (json!({"password": 1}), "M_BAD_JSON"),
        (json!({"type": "m.login.token"}), "M_BAD_JSON"),
        (json!({"refresh_token": "yes"}), "M_BAD_JSON"),
        (json!({"device_id": ""}), "M_INVALID_PARAM"),
        (json!({"device_id": "a\u{0}"}), "M_INVALID_PARAM"),
        (json!({"device_id": "x".repeat(256)}), "M_INVALID_PARAM"),
    ] {
        let answer = server.login(attempt).await;
        answer.is(400, errcode);
    }
    let server = Server::with(|config| config.account.login_with_email_allowed = false).await;
    let by_mail = json!({"type": "m.id.thirdparty", "medium": "email", "address": "alice@example.com"});
    server.login(json!({"identifier": by_mail})).await.is(400, "M_UNKNOWN");
    server.login(json!({"user": "alice@example.com"})).await.is(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_lock_shows_only_to_who_knows_the_password() {
    let server = Server::new().await;
    let before = server.login(json!({"refresh_token": true})).await;
    let state = &server.fixture.state;
    let ended = account::lock(&state.storage, &server.alice.id, state.clock.now()).await.unwrap();
    assert_eq!(ended, 1);
    assert!(!server.is_active(before.token()).await);
    let locked = server.login(json!({})).await;
    locked.is(401, "M_USER_LOCKED");
    assert_eq!(locked.body["soft_logout"], true);
    server.login(json!({"password": "wrong"})).await.is(403, "M_FORBIDDEN");
    server.refresh(before.refresh_token()).await.is(401, "M_USER_LOCKED");
    let token = login::issue_token(state, &server.alice.id).await.unwrap();
    let with_token = json!({"type": "m.login.token", "token": token.expose()});
    server.login(with_token.clone()).await.is(401, "M_USER_LOCKED");

    account::unlock(&state.storage, &server.alice.id, state.clock.now()).await.unwrap();
    server.login(json!({})).await.is(200, "");
    server.login(with_token).await.is(200, "");
    server.refresh(before.refresh_token()).await.is(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_login_token_works_once_and_not_for_long() {
    let server = Server::new().await;
    let state = &server.fixture.state;
    let token = login::issue_token(state, &server.alice.id).await.unwrap();
    let body = json!({"type": "m.login.token", "token": token.expose(), "device_id": "D"});
    let answer = server.login(body.clone()).await;
    answer.is(200, "");
    assert_eq!(answer.body["device_id"], "D");
    server.login(body).await.is(403, "M_FORBIDDEN");

    let late = login::issue_token(state, &server.alice.id).await.unwrap();
    server.advance(Duration::from_secs(61));
    server.login(json!({"type": "m.login.token", "token": late.expose()})).await.is(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn synapse_hears_of_user_and_device_before_the_client_does() {
    let server = Server::new().await;
    let named = json!({"device_id": "DEV", "initial_device_display_name": " My\u{7} Phone "});
    let answer = server.login(named.clone()).await;
    answer.is(200, "");
    assert_eq!(answer.body.as_object().unwrap().len(), 3, "{answer:?}");
    assert_eq!(
        server.calls(),
        [
            r#"provision_user {"localpart":"alice","locked":false,"set_emails":["Alice@Example.com"]}"#,
            r#"upsert_device {"device_id":"DEV","display_name":"My Phone","localpart":"alice"}"#,
        ]
    );
    // The second time the user is known, and so is the device: its name stays what it is.
    server.login(named).await.is(200, "");
    assert_eq!(server.calls(), [r#"upsert_device {"device_id":"DEV","localpart":"alice"}"#]);
    assert!(!server.is_active(answer.token()).await);
    assert_eq!(server.live_sessions(&server.alice.id).await, 1);
}

#[tokio::test]
async fn when_synapse_says_no_there_is_no_session() {
    let server = Server::new().await;
    server.synapse.will_answer(500, "{}");
    server.login(json!({})).await.is(502, "M_UNKNOWN");
    assert_eq!(server.live_sessions(&server.alice.id).await, 0);
    assert_eq!(server.calls().len(), 1);

    server.synapse.will_answer(200, "{}");
    server.synapse.will_answer(500, "{}");
    server.login(json!({"device_id": "D"})).await.is(502, "M_UNKNOWN");
    assert_eq!(server.live_sessions(&server.alice.id).await, 0);
    let mut connection = server.fixture.state.storage.read().await.unwrap();
    let key = format!("delete_device:{}:D", server.alice.id);
    assert!(storage::outbox::exists(&mut connection, &key).await.unwrap());
    drop(connection);
    server.login(json!({"device_id": "D"})).await.is(200, "");
}

#[tokio::test]
async fn a_user_that_synapse_has_forgotten_is_provisioned_again() {
    let server = Server::new().await;
    server.login(json!({})).await.is(200, "");
    server.synapse.take_calls();
    server.synapse.will_answer(404, r#"{"errcode":"M_NOT_FOUND","error":"User not found"}"#);
    server.login(json!({"device_id": "D"})).await.is(200, "");
    let calls: Vec<_> = server.synapse.take_calls().into_iter().map(|call| call.endpoint).collect();
    assert_eq!(calls, ["upsert_device", "provision_user", "upsert_device"]);
}

#[tokio::test]
async fn failures_are_limited_per_account_and_successes_are_not() {
    let server = Server::with(|config| {
        config.rate_limiting.login_per_account = conf::RateLimit { burst: 3, per_second: 0.1 };
    })
    .await;
    for _ in 0..10 {
        server.login(json!({})).await.is(200, "");
    }
    for user in ["alice", "nobody"] {
        for _ in 0..3 {
            server.login(json!({"user": user, "password": "wrong"})).await.is(403, "M_FORBIDDEN");
        }
        let limited = server.login(json!({"user": user})).await;
        limited.is(429, "M_LIMIT_EXCEEDED");
        assert_eq!(limited.body["retry_after_ms"], 10_000);
        assert_eq!(limited.headers[header::RETRY_AFTER], "10");
    }
    server.advance(Duration::from_millis(9_500));
    let limited = server.login(json!({})).await;
    assert_eq!(
        (limited.body["retry_after_ms"].clone(), limited.headers[header::RETRY_AFTER].clone()),
        (json!(500), "1".parse().unwrap())
    );
    server.advance(Duration::from_millis(500));
    server.login(json!({})).await.is(200, "");
}

#[tokio::test]
async fn failures_are_limited_per_network() {
    let server = Server::with(|config| {
        config.rate_limiting.login_per_ip = conf::RateLimit { burst: 2, per_second: 0.01 };
    })
    .await;
    let attempt = async |ip: &str, password: &str| {
        let body = json!({"type": "m.login.password", "user": "alice", "password": password}).to_string();
        let request = from(request(Method::POST, "/_matrix/client/v3/login", &body), ip);
        server.send(request).await.status.as_u16()
    };
    assert_eq!(attempt("2001:db8::1", "wrong").await, 403);
    assert_eq!(attempt("2001:db8::2", "wrong").await, 403);
    assert_eq!(attempt("2001:db8::3", "secret").await, 429);
    assert_eq!(attempt("2001:db8:0:1::3", "secret").await, 200);
    assert_eq!(attempt("203.0.113.9", "secret").await, 200);
}

#[tokio::test]
async fn many_guesses_at_once_do_not_slip_through() {
    let server = Server::with(|config| {
        config.rate_limiting.login_per_account = conf::RateLimit { burst: 5, per_second: 0.001 };
    })
    .await;
    let server = std::sync::Arc::new(server);
    let guesses: Vec<_> = (0..30)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { server.login(json!({"password": "wrong"})).await.status.as_u16() })
        })
        .collect();
    let mut forbidden = 0;
    for guess in guesses {
        forbidden += u32::from(guess.await.unwrap() == 403);
    }
    assert_eq!(forbidden, 5);
}

#[tokio::test]
async fn logins_at_once_on_one_device_leave_one_session() {
    let server = std::sync::Arc::new(Server::new().await);
    let logins: Vec<_> = (0..8)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { server.login(json!({"device_id": "D"})).await })
        })
        .collect();
    for login in logins {
        login.await.unwrap().is(200, "");
    }
    assert_eq!(server.live_sessions(&server.alice.id).await, 1);
}

#[tokio::test]
async fn an_old_hash_is_upgraded_by_the_login() {
    let server = Server::new().await;
    let state = &server.fixture.state;
    let stronger = crate::password::Stored {
        version: 1,
        hash: "$pbkdf2-sha256$1000$8PHy8/T19vf4.fr7/P3./w$JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMU".into(),
    };
    account::set_password(&state.storage, &server.alice.id, &stronger, false, state.clock.now())
        .await
        .unwrap();
    server.login(json!({"password": "correct horse"})).await.is(200, "");
    let name = storage::user::Name::Username("alice".into());
    let mut connection = state.storage.read().await.unwrap();
    let (_, stored) = storage::user::with_password(&mut connection, &name).await.unwrap().unwrap();
    assert!(stored.unwrap().hash.starts_with("$argon2id$"));
    drop(connection);
    server.login(json!({"password": "correct horse"})).await.is(200, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_right_passwords_at_once_are_no_failures() {
    let server = Server::with(|config| {
        config.rate_limiting.login_per_ip = conf::RateLimit { burst: 3, per_second: 0.001 };
    })
    .await;
    let server = std::sync::Arc::new(server);
    let logins: Vec<_> = (0..40)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { server.login(json!({})).await })
        })
        .collect();
    for login in logins {
        login.await.unwrap().is(200, "");
    }
}
