//! Everything at once: whatever the order, nobody is answered with a fault of ours, and what was handed out and not ended is good.

use std::sync::Arc;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_never_deadlocks() {
    let server = Server::with(|config| {
        // The clock jumps, and differently for those who are at it: no bucket may be empty for that.
        let limit = conf::RateLimit { burst: 100_000, per_second: 1.0 };
        config.rate_limiting = conf::RateLimiting { login_per_ip: limit, login_per_account: limit };
    });
    let server = Arc::new(server.await);
    Server::add(&server.fixture, "bob", None).await;
    let clients: Vec<_> = (0..24).map(|number| tokio::spawn(client(server.clone(), number))).collect();
    let background = tokio::spawn({
        let state = server.fixture.state.clone();
        async move {
            for _ in 0..20 {
                crate::housekeeping::clean_up(&state).await;
                state.activity.flush(&state.storage).await.unwrap();
            }
        }
    });
    for client in clients {
        client.await.unwrap();
    }
    background.await.unwrap();
}

/// One client of one of two users; every third one ends all sessions of its user now and then.
async fn client(server: Arc<Server>, number: usize) {
    let user = ["alice", "bob"][number % 2];
    for round in 0..6 {
        let device = format!("D{}", (number + round) % 5);
        let wanted = json!({"user": user, "device_id": device, "refresh_token": true});
        let login = fine(server.login(wanted).await);
        assert_eq!(login.status, 200, "{login:?}");
        server.is_active(login.token()).await;
        let refreshed = fine(server.refresh(login.refresh_token()).await);
        fine(server.login(json!({"user": user, "password": "wrong"})).await);
        server.advance(Duration::from_secs(61));
        if refreshed.status != 200 {
            continue;
        }
        server.is_active(refreshed.token()).await;
        let path = if number.is_multiple_of(3) { "logout/all" } else { "logout" };
        fine(server.post_with_token(&format!("/_matrix/client/v3/{path}"), refreshed.token()).await);
    }
}

#[track_caller]
fn fine(answer: Answer) -> Answer {
    assert!(answer.status.as_u16() < 429, "{answer:?}");
    answer
}
