//! Refresh tokens: rotation, lost responses, theft; and what introspection says meanwhile.

use super::*;

async fn refreshable(server: &Server) -> Answer {
    let answer = server.login(json!({"refresh_token": true, "device_id": "D"})).await;
    answer.is(200, "");
    assert_eq!(answer.body["expires_in_ms"], 300_000);
    answer
}

#[tokio::test]
async fn tokens_rotate_and_the_old_access_token_ends() {
    let server = Server::new().await;
    let first = refreshable(&server).await;
    assert!(server.is_active(first.token()).await);
    let second = server.refresh(first.refresh_token()).await;
    second.is(200, "");
    assert_eq!(second.body["expires_in_ms"], 300_000);
    assert!(!server.is_active(first.token()).await);
    assert!(server.is_active(second.token()).await);
    assert_ne!(first.refresh_token(), second.refresh_token());
    let third = server.refresh(second.refresh_token()).await;
    assert!(server.is_active(third.token()).await);
}

#[tokio::test]
async fn an_access_token_ends_with_its_time_and_a_refresh_helps() {
    let server = Server::new().await;
    let first = refreshable(&server).await;
    let told = server.introspect(first.token()).await;
    assert_eq!(told["expires_in"], 300);
    server.advance(Duration::from_millis(299_500));
    assert_eq!(server.introspect(first.token()).await["expires_in"], 1);
    server.advance(Duration::from_millis(500));
    assert_eq!(server.introspect(first.token()).await, json!({"active": false}));
    server.advance(Duration::from_secs(86_400 * 90));
    crate::housekeeping::clean_up(&server.fixture.state).await;
    let second = server.refresh(first.refresh_token()).await;
    assert!(server.is_active(second.token()).await);
}

#[tokio::test]
async fn a_token_without_refresh_never_expires() {
    let server = Server::new().await;
    let answer = server.login(json!({})).await;
    assert_eq!(answer.body.get("expires_in_ms"), None);
    server.advance(Duration::from_secs(86_400 * 3650));
    crate::housekeeping::clean_up(&server.fixture.state).await;
    assert!(server.is_active(answer.token()).await);
    assert_eq!(server.introspect(answer.token()).await.get("expires_in"), None);
}

#[tokio::test]
async fn a_lost_response_costs_nothing() {
    let server = Server::new().await;
    let first = refreshable(&server).await;
    let lost = server.refresh(first.refresh_token()).await;
    server.advance(Duration::from_secs(86_400 * 60));
    crate::housekeeping::clean_up(&server.fixture.state).await;
    let second = server.refresh(first.refresh_token()).await;
    second.is(200, "");
    assert!(server.is_active(second.token()).await);
    assert!(!server.is_active(lost.token()).await);
    let third = server.refresh(second.refresh_token()).await;
    assert!(server.is_active(third.token()).await);
}

#[tokio::test]
async fn the_loser_of_two_refreshes_at_once_can_go_on() {
    let server = Server::new().await;
    let first = refreshable(&server).await;
    let kept = server.refresh(first.refresh_token()).await;
    server.refresh(first.refresh_token()).await.is(200, "");
    let next = server.refresh(kept.refresh_token()).await;
    next.is(200, "");
    assert!(server.is_active(next.token()).await);
}

#[tokio::test]
async fn a_stolen_token_ends_the_session_and_its_device() {
    for used_by in ["introspection", "refresh"] {
        let server = Server::new().await;
        let first = refreshable(&server).await;
        let mut current = server.refresh(first.refresh_token()).await;
        if used_by == "introspection" {
            assert!(server.is_active(current.token()).await);
        } else {
            current = server.refresh(current.refresh_token()).await;
        }
        let stolen = server.refresh(first.refresh_token()).await;
        stolen.is(401, "M_UNKNOWN_TOKEN");
        assert_eq!(stolen.body["soft_logout"], false);
        assert!(!server.is_active(current.token()).await, "{used_by}");
        server.refresh(current.refresh_token()).await.is(401, "M_UNKNOWN_TOKEN");
        let mut connection = server.fixture.state.storage.read().await.unwrap();
        let key = format!("delete_device:{}:D", server.alice.id);
        assert!(storage::outbox::exists(&mut connection, &key).await.unwrap());
    }
}

#[tokio::test]
async fn a_thief_who_waits_for_the_clean_up_gains_nothing() {
    let server = Server::new().await;
    let first = refreshable(&server).await;
    let second = server.refresh(first.refresh_token()).await;
    assert!(server.is_active(second.token()).await);
    server.advance(Duration::from_secs(86_400 * 365));
    crate::housekeeping::clean_up(&server.fixture.state).await;
    server.refresh(first.refresh_token()).await.is(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn refreshes_at_once_hand_out_one_good_pair() {
    let server = std::sync::Arc::new(Server::new().await);
    let first = refreshable(&server).await;
    let refreshes: Vec<_> = (0..8)
        .map(|_| {
            let (server, token) = (server.clone(), first.refresh_token().to_owned());
            tokio::spawn(async move { server.refresh(&token).await })
        })
        .collect();
    let mut good = 0;
    let mut answers = Vec::new();
    for refresh in refreshes {
        let answer = refresh.await.unwrap();
        answer.is(200, "");
        answers.push(answer);
    }
    for answer in &answers {
        good += u32::from(server.is_active(answer.token()).await);
    }
    assert_eq!(good, 1);
}

#[tokio::test]
async fn what_is_no_refresh_token_is_unknown() {
    let server = Server::new().await;
    let answer = refreshable(&server).await;
    for token in ["", "x", answer.token(), "mcr_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_kyYvU2"] {
        server.refresh(token).await.is(401, "M_UNKNOWN_TOKEN");
    }
    server.post_with_token("/_matrix/client/v3/logout", answer.token()).await.is(200, "");
    server.refresh(answer.refresh_token()).await.is(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn finished_sessions_go_with_their_tokens_after_a_month() {
    let server = Server::new().await;
    let answer = refreshable(&server).await;
    server.post_with_token("/_matrix/client/v3/logout", answer.token()).await.is(200, "");
    let state = &server.fixture.state;
    server.advance(Duration::from_secs(86_400 * 29));
    crate::housekeeping::clean_up(state).await;
    let all = async || {
        let mut connection = state.storage.read().await.unwrap();
        storage::session::of_user(&mut connection, &server.alice.id, false).await.unwrap().len()
    };
    assert_eq!(all().await, 1);
    server.advance(Duration::from_secs(86_400 * 2));
    crate::housekeeping::clean_up(state).await;
    assert_eq!(all().await, 0);
    assert_eq!(state.metrics.expired[4].total(), 1);
}

#[tokio::test]
async fn a_full_disk_logs_nobody_out() {
    let server = Server::new().await;
    let state = &server.fixture.state;
    if state.storage.backend() == storage::Backend::Postgres {
        return;
    }
    let [first, unlimited] = [refreshable(&server).await, server.login(json!({})).await];
    // No room for another page: first the free room of the last ones fills up.
    limit_pages(state, "PRAGMA max_page_count = 1").await;
    let mut refused = None;
    for _ in 0..200 {
        let answer = server.login(json!({"device_id": "x".repeat(255)})).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a refusal");
    refused.is(503, "M_UNKNOWN");
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    assert!(server.is_active(unlimited.token()).await);
    let mut last = first;
    let failed = loop {
        let next = server.refresh(last.refresh_token()).await;
        if next.status != 200 {
            break next;
        }
        last = next;
    };
    failed.is(503, "M_UNKNOWN");
    limit_pages(state, "PRAGMA max_page_count = 1000000").await;
    server.login(json!({})).await.is(200, "");
    assert!(server.is_active(unlimited.token()).await);
    let next = server.refresh(last.refresh_token()).await;
    next.is(200, "");
    assert!(server.is_active(next.token()).await);
}

async fn limit_pages(state: &crate::state::State, pragma: &'static str) {
    let mut connections = Vec::new();
    for _ in 0..5 {
        let mut connection = state.storage.read().await.unwrap();
        sqlx::Executor::execute(&mut *connection, pragma).await.unwrap();
        connections.push(connection);
    }
}
