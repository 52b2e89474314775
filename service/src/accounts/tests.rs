//! What an administrator does, and what Synapse hears of it.

use super::*;
use crate::fixture::Fixture;
use crate::storage::outbox;

struct Scene {
    fixture: Fixture,
    accounts: Accounts,
}

impl Scene {
    async fn new() -> Self {
        let nowhere = "http://127.0.0.1:1/".parse().expect("a URL");
        let fixture = Fixture::new(&nowhere, "secret").await;
        let state = &fixture.state;
        let accounts =
            Accounts::over(state.storage.clone(), &state.config, state.clock.clone(), state.rng.clone());
        Self { accounts: accounts.expect("accounts"), fixture }
    }

    async fn add(&self, name: &str) -> Result<User, Error> {
        self.accounts.add(NewUser { name: name.into(), ..NewUser::default() }).await
    }

    async fn waiting(&self) -> u64 {
        outbox::count(&mut self.fixture.state.storage.read().await.expect("a connection"))
            .await
            .expect("a count")
    }
}

#[tokio::test]
async fn an_account_is_shown_as_it_was_made() {
    let scene = Scene::new().await;
    let new = NewUser {
        name: "@alice:example.com".into(),
        password: Some("correct horse".into()),
        email: Some(" Alice@Example.org".into()),
        display_name: Some("Alice".into()),
        admin: true,
    };
    let made = scene.accounts.add(new).await.expect("made");
    let expected = User {
        user_id: "@alice:example.com".into(),
        name: "alice".into(),
        display_name: Some("Alice".into()),
        emails: vec!["Alice@Example.org".into()],
        admin: true,
        status: Status::Active,
        created_at: "2023-11-14T22:13:20.000Z".into(),
    };
    assert_eq!(made, expected);
    scene.add("bob").await.expect("made");
    let listed = scene.accounts.list().await.expect("listed");
    assert_eq!((&listed[0], listed[1].name.as_str(), listed.len()), (&expected, "bob", 2));
    assert_eq!(serde_json::to_value(&listed[0]).expect("JSON")["status"], "active");
    assert_eq!(scene.waiting().await, 2, "Synapse has to hear of both");
}

#[tokio::test]
async fn refusals_name_what_is_wrong() {
    let scene = Scene::new().await;
    scene.add("alice").await.expect("made");
    let check = |outcome: Result<User, Error>, expected: &str| {
        assert_eq!(outcome.expect_err(expected).to_string(), expected);
    };
    check(scene.add("alice").await, "there is an account `alice` already");
    check(scene.add("Alice").await, "`Alice` cannot be a username");
    check(scene.add("").await, "`` cannot be a username");
    check(scene.add("@alice:elsewhere.org").await, "`@alice:elsewhere.org` is a user of another server");
    let with_email = |name: &str, email: &str| NewUser {
        name: name.into(),
        email: Some(email.into()),
        ..NewUser::default()
    };
    check(scene.accounts.add(with_email("bob", "bob")).await, "`bob` is not an e-mail address");
    scene.accounts.add(with_email("bob", "b@example.org")).await.expect("made");
    check(
        scene.accounts.add(with_email("carol", "B@Example.org")).await,
        "the e-mail address `B@Example.org` belongs to another account",
    );
    assert!(matches!(scene.accounts.lock("nobody").await, Err(Error::Unknown(name)) if name == "nobody"));
}

#[tokio::test]
async fn lock_unlock_and_deactivation_change_the_status() {
    let scene = Scene::new().await;
    scene.add("alice").await.expect("made");
    let status = async || scene.accounts.list().await.expect("listed")[0].status;
    scene.accounts.lock("alice").await.expect("locked");
    assert_eq!(status().await, Status::Locked);
    scene.accounts.unlock("@alice:example.com").await.expect("unlocked");
    assert_eq!(status().await, Status::Active);
    scene.accounts.deactivate("alice").await.expect("deactivated");
    scene.accounts.deactivate("alice").await.expect("twice is no error");
    assert_eq!(status().await, Status::Deactivated);
    assert!(matches!(scene.accounts.set_password("alice", "new password").await, Err(Error::Deactivated(_))));
    assert_eq!(scene.waiting().await, 2, "to provision, and to delete");
}

#[tokio::test]
async fn live_sessions_are_listed_until_the_account_is_locked() {
    let scene = Scene::new().await;
    scene.add("alice").await.expect("made");
    scene
        .fixture
        .execute("INSERT INTO compat_sessions (id, user_id, device_id, created_at, finished_at) SELECT 'S1', id, 'D', 0, NULL FROM users")
        .await;
    scene
        .fixture
        .execute("INSERT INTO compat_sessions (id, user_id, device_id, created_at, finished_at) SELECT 'S2', id, 'E', 0, 1 FROM users")
        .await;
    let sessions = scene.accounts.sessions("alice").await.expect("listed");
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].device_id.as_str(), sessions[0].kind), ("D", "compat"));
    scene.accounts.lock("alice").await.expect("locked");
    assert_eq!(scene.accounts.sessions("alice").await.expect("listed"), []);
}
