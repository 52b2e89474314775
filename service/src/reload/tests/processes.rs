//! Two services on one database, as during an upgrade or on several machines: each has its own connections, counters and workers.

use super::*;
use crate::clock::Timestamp;
use crate::housekeeping;
use crate::storage::Durability;

/// The same as a process that is started beside it.
async fn beside(running: &Running) -> Running {
    let state = running.handle.state().await;
    let config = state.config.clone();
    let second = State::open(config, running.fixture.folder(), state.clock.clone(), state.rng.clone()).await;
    let mut service = Service::of(second.expect("a second state")).await.expect("a service");
    let sockets = Sockets::default();
    let mut change = sockets.change();
    service.bind(&mut change).await.expect("bound");
    let addresses = tcp(&service.addresses());
    change.commit();
    let handle = service.handle();
    let (stop, stopping) = watch::channel(false);
    let served = tokio::spawn(service.serve(stopping));
    let fixture = Fixture::beside(&running.fixture, handle.state().await);
    Running { fixture, synapse: running.synapse.clone(), sockets, handle, addresses, stop, served }
}

#[tokio::test]
async fn synapse_hears_of_everything_once_and_what_one_did_the_other_knows() {
    let old = Running::start().await;
    let new = beside(&old).await;
    let (mut there, mut here) = (old.connect().await, new.connect().await);
    let mut devices = Vec::new();
    for round in 0..20 {
        let answer = there.login("alice").await;
        let token = token_of(&answer);
        devices.push(answer.json()["device_id"].as_str().expect("a device").to_owned());
        assert!(here.is_active(&token).await);
        // One of them always; the jobs are seen by the workers of both.
        let ends = if round % 2 == 0 { &mut here } else { &mut there };
        assert_eq!(ends.logout(&token).await.status, 200);
        assert!(!there.is_active(&token).await && !here.is_active(&token).await);
    }
    old.end().await;
    databases::no_jobs_are_left(&new.fixture.state.storage).await;
    let counts = databases::counted(&new.synapse.take_calls());
    for device in &devices {
        for endpoint in ["upsert_device", "delete_device"] {
            assert_eq!(
                counts.get(&(endpoint.to_owned(), device.clone())),
                Some(&1),
                "{endpoint} of {device}"
            );
        }
    }
    token_of(&here.login("alice").await);
    new.end().await;
}

#[tokio::test]
async fn a_device_belongs_to_its_last_login_wherever_that_was() {
    let old = Running::start().await;
    let new = beside(&old).await;
    let with_device = login_of("alice").replacen('{', r#"{"device_id":"SAME","#, 1);
    let logins = (0..10).map(|round| {
        let address = if round % 2 == 0 { old.address() } else { new.address() };
        let body = with_device.clone();
        tokio::spawn(
            async move { Client::to(address).await.post("/_matrix/client/v3/login", "", &body).await },
        )
    });
    let logins: Vec<_> = logins.collect();
    let mut tokens = Vec::new();
    for login in logins {
        tokens.push(token_of(&login.await.expect("no panic")));
    }
    let mut active = 0;
    let mut client = new.connect().await;
    for token in tokens {
        active += usize::from(client.is_active(&token).await);
    }
    assert_eq!(active, 1);
    old.end().await;
    new.end().await;
}

#[tokio::test]
async fn failures_that_one_has_counted_limit_the_other() {
    let old = Running::with(|config| {
        config.http.listeners = vec![web()];
        config.rate_limiting.login_per_ip = conf::RateLimit { burst: 2, per_second: 0.000_1 };
    })
    .await;
    let new = beside(&old).await;
    let wrong = login_of("alice").replace("secret", "wrong");
    let guess = async |running: &Running| {
        running.connect().await.post("/_matrix/client/v3/login", "", &wrong).await.status
    };
    assert_eq!((guess(&old).await, guess(&new).await), (403, 403));
    assert_eq!((guess(&old).await, guess(&new).await), (429, 429));
    old.end().await;
    assert_eq!(guess(&new).await, 429, "nor is the end of a process a way around it");
    new.end().await;
}

#[tokio::test]
async fn guesses_at_two_processes_at_once_are_bounded_by_what_both_may_have_under_way() {
    let burst = 3;
    let old = Running::with(|config| {
        config.http.listeners = vec![web()];
        config.rate_limiting.login_per_ip = conf::RateLimit { burst, per_second: 0.000_1 };
    })
    .await;
    let new = beside(&old).await;
    let wrong = login_of("alice").replace("secret", "wrong");
    let guesses: Vec<_> = (0..20)
        .map(|round| {
            let address = if round % 2 == 0 { old.address() } else { new.address() };
            let body = wrong.clone();
            tokio::spawn(async move {
                Client::to(address).await.post("/_matrix/client/v3/login", "", &body).await
            })
        })
        .collect();
    let mut looked_at = 0;
    for guess in guesses {
        looked_at += u32::from(guess.await.expect("no panic").status == 403);
    }
    assert!((burst..=2 * burst).contains(&looked_at), "{looked_at} passwords were looked at");
    assert_eq!(new.connect().await.post("/_matrix/client/v3/login", "", &wrong).await.status, 429);
    old.end().await;
    new.end().await;
}

#[tokio::test]
async fn two_that_clean_up_at_once_delete_each_row_once_and_disturb_nobody() {
    let old = Running::start().await;
    let new = beside(&old).await;
    let now = old.fixture.state.clock.now();
    let user = old.fixture.user("sleeper").await;
    let long_ago = Timestamp::from_millis(now.millis() - 40 * 86_400_000);
    let mut tx = old.fixture.state.storage.begin(Durability::Relaxed).await.expect("a transaction");
    for number in 0..1200 {
        let session = format!(
            "INSERT INTO compat_sessions (id, user_id, device_id, created_at, finished_at) VALUES ('S{number}', '{user}', 'D{number}', 1, {long_ago})"
        );
        let token = format!(
            "INSERT INTO compat_access_tokens (hash, session_id, created_at) VALUES ('H{number}', 'S{number}', 1)"
        );
        for statement in [session, token] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *tx).await.expect("a row");
        }
    }
    tx.commit().await.expect("a commit");
    let (first, second) = (old.fixture.state.clone(), new.handle.state().await);
    let work = async {
        for _ in 0..5 {
            tokio::join!(housekeeping::clean_up(&first), housekeeping::clean_up(&second));
        }
    };
    let mut client = new.connect().await;
    let logins = async {
        for _ in 0..5 {
            token_of(&client.login("alice").await);
        }
    };
    tokio::join!(work, logins);
    let deleted = |state: &State| state.metrics.expired[4].total();
    // The workers of both services count as well; they share the numbers of their states.
    assert_eq!(deleted(&first) + deleted(&second), 1200);
    old.end().await;
    new.end().await;
}
