//! The database and what belongs to it: kept while it is the same, and let go when its last user is.

use std::collections::HashMap;

use super::*;
use crate::storage::outbox as table;

/// How often Synapse has heard what of which device.
pub(super) fn counted(calls: &[Call]) -> HashMap<(String, String), usize> {
    let mut counts = HashMap::new();
    for call in calls {
        let device = call.body["device_id"].as_str().or(call.body["devices"][0].as_str());
        if let Some(device) = device {
            *counts.entry((call.endpoint.clone(), device.to_owned())).or_default() += 1;
        }
    }
    counts
}

async fn jobs_left(storage: &Storage) -> u64 {
    table::count(&mut storage.read().await.expect("a connection")).await.expect("a number")
}

pub(super) async fn no_jobs_are_left(storage: &Storage) {
    let none = async {
        while jobs_left(storage).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, none).await.expect("Synapse hears of everything");
}

#[tokio::test]
async fn connections_to_an_unchanged_database_are_kept() {
    let running = Running::start().await;
    let before = running.handle.state().await;
    running.reload(|config| config.http.listeners[0].prefix = "/x".into()).await.expect("a reload");
    let after = running.handle.state().await;
    assert!(before.storage.shares_connections_with(&after.storage));
    assert!(Arc::ptr_eq(&before.activity, &after.activity) && Arc::ptr_eq(&before.attempts, &after.attempts));

    running.reload(|config| config.database.max_connections = 3).await.expect("a reload");
    let wider = running.handle.state().await;
    assert!(!wider.storage.shares_connections_with(&after.storage));
    assert!(wider.storage.is_same_database(&after.storage));
    assert!(Arc::ptr_eq(&before.activity, &wider.activity), "what waits to be written down is not forgotten");
    assert_eq!(running.connect().await.get("/x/health").await.status, 200);
    running.end().await;
}

#[tokio::test]
async fn hashes_are_computed_in_the_same_slots_and_failures_stay_counted() {
    let running = Running::with(|config| {
        config.http.listeners = vec![web()];
        config.rate_limiting.login_per_ip = conf::RateLimit { burst: 1, per_second: 0.000_1 };
    })
    .await;
    let mut client = running.connect().await;
    let wrong = login_of("alice").replace("secret", "wrong");
    assert_eq!(client.post("/_matrix/client/v3/login", "", &wrong).await.status, 403);
    assert_eq!(client.login("alice").await.status, 429);
    let before = running.handle.state().await;
    let reload = running.reload(|config| {
        let old = config.passwords.schemes[0].clone();
        config.passwords.schemes.insert(0, conf::Hasher { version: 2, ..old });
    });
    reload.await.expect("a reload");
    let after = running.handle.state().await;
    assert!(before.passwords.slots().is_same(after.passwords.slots()));
    assert_eq!(client.login("alice").await.status, 429, "a reload is no way around the limit");
    let no_limit = conf::RateLimit { burst: 1000, per_second: 1000.0 };
    running.reload(|config| config.rate_limiting.login_per_ip = no_limit).await.expect("a reload");
    let token = token_of(&client.login("alice").await);
    assert!(client.is_active(&token).await);
    running.end().await;
}

#[tokio::test]
async fn synapse_hears_of_everything_once_however_often_the_configuration_changes() {
    let running = Running::start().await;
    let finished = watch::channel(false).0;
    let address = running.address();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let finished = finished.subscribe();
            tokio::spawn(async move {
                let mut client = Client::to(address).await;
                let mut devices = Vec::new();
                while !*finished.borrow() {
                    let answer = client.login("alice").await;
                    let token = token_of(&answer);
                    devices.push(answer.json()["device_id"].as_str().expect("a device").to_owned());
                    assert!(client.is_active(&token).await);
                    assert_eq!(client.logout(&token).await.status, 200);
                    assert!(!client.is_active(&token).await);
                }
                devices
            })
        })
        .collect();
    for round in 0..25_u32 {
        let reload = running.reload(|config| {
            config.database.max_connections = 3 + round % 3;
            config.compat_token_ttl = Duration::from_secs(60 + u64::from(round));
        });
        reload.await.expect("a reload");
    }
    finished.send_replace(true);
    let mut devices = Vec::new();
    for client in clients {
        devices.extend(client.await.expect("no fault"));
    }
    assert!(devices.len() >= 3, "{} logins", devices.len());
    no_jobs_are_left(&running.fixture.state.storage).await;
    let counts = counted(&running.synapse.take_calls());
    for device in &devices {
        for endpoint in ["upsert_device", "delete_device"] {
            let count = counts.get(&(endpoint.to_owned(), device.clone()));
            assert_eq!(count, Some(&1), "{endpoint} of {device}");
        }
    }
    assert_eq!(counts.len(), 2 * devices.len(), "and of nothing else");
    running.end().await;
}

#[tokio::test]
async fn another_database_takes_over_and_the_old_one_still_tells_synapse_what_is_left() {
    let running = Running::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let other = fixture::database(folder.path()).await;
    let mut client = running.connect().await;
    let token = token_of(&client.login("alice").await);

    // A logout whose body is not complete yet: it belongs to the old database.
    let lines = format!("Authorization: Bearer {token}\r\n");
    let request = posting("/_matrix/client/v3/logout", &lines, "{}");
    let mut slow = running.connect().await;
    slow.write(&request[..request.len() - 1]).await;
    running.connect().await.get("/health").await;

    let old = running.handle.state().await.storage.clone();
    running.reload(|config| config.database.uri = conf::Secret::new(&other)).await.expect("a reload");
    let new = running.handle.state().await;
    assert!(!new.storage.is_same_database(&old));
    assert!(!client.is_active(&token).await, "the new one does not know it");
    assert_eq!(client.login("alice").await.status, 403, "nor her");
    add_user(&new, "alice").await;
    let next = token_of(&client.login("alice").await);
    assert!(client.is_active(&next).await);
    assert!(!old.is_closed(), "somebody uses it");

    running.synapse.take_calls();
    slow.write("}").await;
    assert_eq!(slow.answer().await.status, 200);
    assert_eq!(counted(&running.synapse.take_calls()).len(), 1, "its device is deleted");
    let closed = async {
        while !old.is_closed() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("nobody needs it any more");
    assert!(client.is_active(&next).await);
    running.end().await;
}

#[tokio::test]
async fn another_synapse_hears_of_what_comes_and_of_what_is_left() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    let token = token_of(&client.login("alice").await);
    // Her account was news, too.
    no_jobs_are_left(&running.fixture.state.storage).await;
    running.synapse.will_answer(500, "{}");
    assert_eq!(client.logout(&token).await.status, 200);
    assert_eq!(jobs_left(&running.fixture.state.storage).await, 1, "it could not be told");

    let next = StandIn::tcp().await;
    running.reload(|config| config.matrix.endpoint = next.endpoint.clone()).await.expect("a reload");
    running.synapse.take_calls();
    token_of(&client.login("alice").await);
    running.fixture.state.clock.advance(Duration::from_secs(5));
    no_jobs_are_left(&running.fixture.state.storage).await;
    assert_eq!(running.synapse.take_calls(), [], "the old one hears nothing any more");
    let told: Vec<_> = next.take_calls().into_iter().map(|call| call.endpoint).collect();
    assert!(told.iter().any(|endpoint| endpoint == "upsert_device"), "{told:?}");
    assert!(told.iter().any(|endpoint| endpoint == "delete_device"), "{told:?}");
    running.end().await;
}
