//! Jobs against a stand-in for Synapse, with a clock that the test moves.

use serde_json::{Value, json};

use super::*;
use crate::fixture::Fixture;
use crate::synapse::stand_in::{Call, SECRET, StandIn};

struct Scene {
    fixture: Fixture,
    synapse: StandIn,
    alice: UserId,
}

impl Scene {
    async fn new() -> Self {
        let synapse = StandIn::tcp().await;
        let fixture = Fixture::new(&synapse.endpoint, SECRET).await;
        let alice = fixture.user("alice").await;
        Self { fixture, synapse, alice }
    }

    fn state(&self) -> &SharedState {
        &self.fixture.state
    }

    fn delete_device(&self, device_id: &str) -> Job {
        Job::DeleteDevice { user: self.alice.clone(), localpart: "alice".into(), device_id: device_id.into() }
    }

    async fn enqueue(&self, jobs: &[Job]) {
        let mut tx = self.state().storage.begin(Durability::Full).await.expect("a transaction");
        for job in jobs {
            enqueue(&mut tx, job, self.state().clock.now()).await.expect("enqueued");
        }
        tx.commit().await.expect("a commit");
    }

    /// One look at the table, as the worker does it.
    async fn round(&self) -> usize {
        let claimed = claim(self.state(), MOST_AT_A_TIME).await.expect("claimed");
        for job in &claimed {
            attempt(self.state(), job).await;
        }
        claimed.len()
    }

    async fn left(&self) -> u64 {
        table::count(&mut self.state().storage.read().await.expect("a connection")).await.expect("a count")
    }

    fn endpoints(&self) -> Vec<String> {
        self.synapse.take_calls().into_iter().map(|call| call.endpoint).collect()
    }
}

fn call(endpoint: &str, body: Value) -> Call {
    Call { endpoint: endpoint.into(), body }
}

#[tokio::test]
async fn provisioning_tells_what_is_stored_and_the_name_only_once() {
    let scene = Scene::new().await;
    scene.fixture.execute("UPDATE users SET display_name = 'Alice'").await;
    scene
        .fixture
        .execute(&format!("INSERT INTO user_emails VALUES ('a@x', '{}', 'A@x', 1)", scene.alice))
        .await;
    let job = Job::ProvisionUser { user: scene.alice.clone() };
    scene.enqueue(std::slice::from_ref(&job)).await;
    assert_eq!(scene.round().await, 1);
    assert_eq!(scene.left().await, 0);
    scene.fixture.execute("UPDATE users SET locked_at = 5").await;
    scene.enqueue(&[job]).await;
    scene.round().await;
    assert_eq!(
        scene.synapse.take_calls(),
        [
            call(
                "provision_user",
                json!({"localpart": "alice", "set_displayname": "Alice", "set_emails": ["A@x"], "locked": false})
            ),
            call("provision_user", json!({"localpart": "alice", "set_emails": ["A@x"], "locked": true})),
        ]
    );
}

#[tokio::test]
async fn a_failed_job_waits_longer_each_time_and_is_done_in_the_end() {
    let scene = Scene::new().await;
    scene.enqueue(&[scene.delete_device("D")]).await;
    for attempts in 0..6_u32 {
        scene.synapse.will_answer(502, "bad gateway");
        assert_eq!(scene.round().await, 1, "attempt {attempts}");
        assert_eq!(scene.round().await, 0, "not at once");
        let shortest = Duration::from_secs(1) * 2_u32.pow(attempts) * 8 / 10;
        scene.state().clock.advance(shortest - Duration::from_millis(1));
        assert_eq!(scene.round().await, 0, "attempt {attempts} came back too early");
        scene.state().clock.advance(shortest);
    }
    assert_eq!(scene.round().await, 1);
    assert_eq!(scene.left().await, 0);
    assert_eq!(scene.endpoints(), ["delete_device"; 7]);
}

#[tokio::test]
async fn the_same_job_twice_is_one_job() {
    let scene = Scene::new().await;
    scene.enqueue(&[scene.delete_device("D"), scene.delete_device("D"), scene.delete_device("E")]).await;
    assert_eq!(scene.left().await, 2);
}

#[tokio::test]
async fn a_job_asked_for_while_it_is_done_is_done_again() {
    let scene = Scene::new().await;
    scene.enqueue(&[scene.delete_device("D")]).await;
    let claimed = claim(scene.state(), 8).await.expect("claimed");
    scene.enqueue(&[scene.delete_device("D")]).await;
    assert_eq!(scene.round().await, 0, "somebody is at it");
    attempt(scene.state(), &claimed[0]).await;
    assert_eq!(scene.left().await, 1);
    assert_eq!(scene.round().await, 1);
    assert_eq!(scene.left().await, 0);
}

#[tokio::test]
async fn each_users_jobs_keep_their_order_and_users_do_not_wait_for_each_other() {
    let scene = Scene::new().await;
    let bob = scene.fixture.user("bob").await;
    scene.enqueue(&[Job::ProvisionUser { user: scene.alice.clone() }, scene.delete_device("D")]).await;
    scene.enqueue(&[Job::ProvisionUser { user: bob }]).await;
    scene.synapse.will_answer(503, "{}");
    scene.synapse.will_answer(503, "{}");
    assert_eq!(scene.round().await, 2, "the first of each");
    assert_eq!(scene.round().await, 0, "the device waits for what came before it");
    scene.state().clock.advance(Duration::from_secs(2));
    assert_eq!(scene.round().await, 2);
    assert_eq!(scene.round().await, 1);
    assert_eq!(scene.endpoints().last().expect("calls"), "delete_device");
}

#[tokio::test]
async fn a_job_of_a_process_that_died_is_taken_over_when_its_lease_ends() {
    let scene = Scene::new().await;
    scene.enqueue(&[scene.delete_device("D")]).await;
    assert_eq!(claim(scene.state(), 8).await.expect("claimed").len(), 1);
    assert_eq!(claim(scene.state(), 8).await.expect("claimed").len(), 0, "no second process gets it");
    scene.state().clock.advance(LEASE);
    assert_eq!(scene.round().await, 1);
    assert_eq!(scene.left().await, 0);
}

#[tokio::test]
async fn processes_that_claim_at_the_same_time_share_the_jobs() {
    let scene = Scene::new().await;
    for number in 0..20 {
        let user = scene.fixture.user(&format!("user{number}")).await;
        scene.enqueue(&[Job::ProvisionUser { user }]).await;
    }
    let mut claims = JoinSet::new();
    for _ in 0..4 {
        let state = scene.state().clone();
        claims.spawn(async move { claim(&state, 6).await.expect("claimed") });
    }
    let mut keys: Vec<String> = claims.join_all().await.into_iter().flatten().map(|job| job.key).collect();
    keys.extend(claim(scene.state(), 20).await.expect("claimed").into_iter().map(|job| job.key));
    assert_eq!(keys.len(), 20, "none is left out");
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 20, "none is claimed twice");
}

#[tokio::test]
async fn what_can_never_succeed_is_given_up_and_what_is_unknown_needs_no_deletion() {
    let scene = Scene::new().await;
    scene.synapse.will_answer(404, r#"{"errcode":"M_NOT_FOUND","error":"x"}"#);
    scene.enqueue(&[scene.delete_device("D")]).await;
    scene.round().await;
    scene.synapse.will_answer(400, r#"{"errcode":"M_INVALID_PARAM","error":"x"}"#);
    scene.enqueue(&[Job::ProvisionUser { user: scene.alice.clone() }]).await;
    scene.round().await;
    assert_eq!(scene.left().await, 0);
}

#[tokio::test]
async fn a_device_with_a_live_session_is_kept() {
    let scene = Scene::new().await;
    let alice = &scene.alice;
    scene
        .fixture
        .execute(&format!(
            "INSERT INTO compat_sessions (id, user_id, device_id, created_at) VALUES ('S', '{alice}', 'D', 1)"
        ))
        .await;
    scene.enqueue(&[scene.delete_device("D"), Job::SyncDevices { user: alice.clone() }]).await;
    scene.round().await;
    scene.round().await;
    assert_eq!(
        scene.synapse.take_calls(),
        [call("sync_devices", json!({"localpart": "alice", "devices": ["D"]}))]
    );
}

#[tokio::test]
async fn deactivation_and_its_undoing_end_as_things_stand() {
    let scene = Scene::new().await;
    let user = scene.alice.clone();
    let both = [Job::DeleteUser { user: user.clone(), erase: true }, Job::ReactivateUser { user }];
    scene.fixture.execute("UPDATE users SET deactivated_at = 1").await;
    scene.enqueue(&both).await;
    while scene.round().await > 0 {}
    assert_eq!(
        scene.synapse.take_calls(),
        [call("delete_user", json!({"localpart": "alice", "erase": true}))]
    );
    scene.fixture.execute("UPDATE users SET deactivated_at = NULL").await;
    scene.enqueue(&both).await;
    while scene.round().await > 0 {}
    assert_eq!(scene.endpoints(), ["reactivate_user"]);
}

#[tokio::test]
async fn delivery_does_it_before_it_returns_even_out_of_turn() {
    let scene = Scene::new().await;
    let job = scene.delete_device("D");
    scene.enqueue(&[Job::ProvisionUser { user: scene.alice.clone() }, job.clone()]).await;
    assert!(deliver(scene.state(), std::slice::from_ref(&job), Duration::from_secs(5)).await);
    assert_eq!(scene.endpoints(), ["delete_device"]);
    assert!(deliver(scene.state(), &[job], Duration::from_secs(5)).await, "nothing left to do is done");

    scene.synapse.will_answer(500, "{}");
    let other = scene.delete_device("E");
    scene.enqueue(std::slice::from_ref(&other)).await;
    assert!(!deliver(scene.state(), &[other], Duration::from_secs(5)).await);
    assert_eq!(scene.left().await, 2, "it stays for later");
}

#[tokio::test]
async fn the_worker_notices_what_another_process_wrote_within_about_a_second() {
    let scene = Scene::new().await;
    let (sender, stop) = watch::channel(false);
    let worker = tokio::spawn(run(watch::channel(scene.state().clone()).1, stop));
    tokio::time::sleep(Duration::from_millis(50)).await;
    scene.enqueue(&[scene.delete_device("D"), scene.delete_device("E"), scene.delete_device("F")]).await;
    let all = async {
        while scene.left().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_millis(2500), all).await.expect("noticed");
    assert_eq!(scene.endpoints(), ["delete_device"; 3]);
    sender.send_replace(true);
    tokio::time::timeout(Duration::from_secs(1), worker).await.expect("it stops").expect("no panic");
}
