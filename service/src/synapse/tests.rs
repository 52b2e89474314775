//! What goes over the wire, against a real socket.

use serde_json::{Value, json};

use super::stand_in::{Call, SECRET, StandIn};
use super::*;

fn call(endpoint: &str, body: Value) -> Call {
    Call { endpoint: endpoint.to_owned(), body }
}

#[tokio::test]
async fn every_endpoint_is_asked_as_synapse_wants_it() {
    let synapse = StandIn::tcp().await;
    let client = synapse.client();
    let profile = Profile {
        display_name: Some(Some("Alice".into())),
        emails: Some(vec!["a@example.com".into()]),
        locked: Some(false),
    };

    assert_eq!(client.provision_user("alice", &profile).await.expect("provisioned"), Outcome::Updated);
    client.upsert_device("alice", "DEV", Some("Phone")).await.expect("upserted");
    client.upsert_device("alice", "DEV", None).await.expect("upserted");
    client.update_device_display_name("alice", "DEV", "Tablet").await.expect("renamed");
    client.delete_device("alice", "DEV").await.expect("deleted");
    client.sync_devices("alice", &["A".into(), "B".into()]).await.expect("synced");
    client.set_displayname("alice", "A.").await.expect("set");
    client.unset_displayname("alice").await.expect("unset");
    client.allow_cross_signing_reset("alice").await.expect("allowed");
    client.delete_user("alice", true).await.expect("deleted");
    client.reactivate_user("alice").await.expect("reactivated");

    let device = json!({"localpart": "alice", "device_id": "DEV"});
    assert_eq!(
        synapse.take_calls(),
        [
            call(
                "provision_user",
                json!({"localpart": "alice", "set_displayname": "Alice", "set_emails": ["a@example.com"], "locked": false})
            ),
            call("upsert_device", json!({"localpart": "alice", "device_id": "DEV", "display_name": "Phone"})),
            call("upsert_device", device.clone()),
            call(
                "update_device_display_name",
                json!({"localpart": "alice", "device_id": "DEV", "display_name": "Tablet"})
            ),
            call("delete_device", device),
            call("sync_devices", json!({"localpart": "alice", "devices": ["A", "B"]})),
            call("set_displayname", json!({"localpart": "alice", "displayname": "A."})),
            call("unset_displayname", json!({"localpart": "alice"})),
            call("allow_cross_signing_reset", json!({"localpart": "alice"})),
            call("delete_user", json!({"localpart": "alice", "erase": true})),
            call("reactivate_user", json!({"localpart": "alice"})),
        ]
    );
}

#[tokio::test]
async fn a_set_and_an_unset_key_never_stand_together() {
    let synapse = StandIn::tcp().await;
    let profile = Profile { display_name: Some(None), emails: Some(Vec::new()), locked: None };
    synapse.client().provision_user("alice", &profile).await.expect("provisioned");
    let body = json!({"localpart": "alice", "unset_displayname": true, "unset_emails": true});
    assert_eq!(synapse.take_calls(), [call("provision_user", body)]);
    synapse.client().provision_user("alice", &Profile::default()).await.expect("provisioned");
    assert_eq!(synapse.take_calls(), [call("provision_user", json!({"localpart": "alice"}))]);
}

#[tokio::test]
async fn created_is_as_good_as_updated() {
    let synapse = StandIn::tcp().await;
    synapse.will_answer(201, "{}");
    let profile = Profile::default();
    assert_eq!(
        synapse.client().provision_user("alice", &profile).await.expect("provisioned"),
        Outcome::Created
    );
    synapse.will_answer(201, "{}");
    assert_eq!(synapse.client().upsert_device("alice", "D", None).await.expect("upserted"), Outcome::Created);
}

#[tokio::test]
async fn a_user_that_somebody_else_has_just_made_is_updated() {
    let synapse = StandIn::tcp().await;
    let profile = Profile { emails: Some(vec!["a@example.com".into()]), ..Profile::default() };
    let taken = json!({"errcode": "M_USER_IN_USE", "error": "User ID already taken."}).to_string();
    synapse.will_answer(400, taken.clone());
    let told = synapse.client().provision_user("alice", &profile).await.expect("provisioned");
    assert_eq!(told, Outcome::Updated);
    let body = json!({"localpart": "alice", "set_emails": ["a@example.com"]});
    assert_eq!(synapse.take_calls(), [call("provision_user", body.clone()), call("provision_user", body)]);

    // Once more and no more often.
    synapse.will_answer(400, taken.clone());
    synapse.will_answer(400, taken);
    let refused = synapse.client().provision_user("alice", &profile).await;
    assert!(matches!(refused, Err(Error::Rejected { errcode, .. }) if errcode == "M_USER_IN_USE"));
    assert_eq!(synapse.take_calls().len(), 2);
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint_like_any_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let synapse = StandIn::unix(&folder.path().join("with space.sock")).await;
    synapse.will_answer(200, r#"{"user_id":"@a b:x","display_name":null,"avatar_url":null,"is_suspended":false,"is_deactivated":true}"#);
    let user = synapse.client().query_user("a b&c").await.expect("a user");
    assert!(user.is_deactivated);
    assert_eq!(user.display_name, None);
    assert_eq!(synapse.take_calls(), [call("query_user?localpart=a+b%26c", Value::Null)]);
}

#[tokio::test]
async fn availability_is_told_from_the_error_code() {
    let synapse = StandIn::tcp().await;
    let client = synapse.client();
    assert_eq!(client.is_localpart_available("a").await.expect("an answer"), Availability::Available);
    for (errcode, expected) in [
        ("M_USER_IN_USE", Availability::InUse),
        ("M_INVALID_USERNAME", Availability::Invalid),
        ("M_EXCLUSIVE", Availability::Exclusive),
    ] {
        synapse.will_answer(400, json!({"errcode": errcode, "error": "x"}).to_string());
        assert_eq!(client.is_localpart_available("a").await.expect("an answer"), expected);
    }
    synapse.will_answer(400, "{}");
    assert!(matches!(client.is_localpart_available("a").await, Err(Error::Rejected { .. })));
}

#[tokio::test]
async fn faults_are_told_apart() {
    let synapse = StandIn::tcp().await;
    let stranger = Client::new(&synapse.endpoint, &Secret::new("wrong")).expect("a client");
    assert!(matches!(stranger.query_user("a").await, Err(Error::SecretRefused)));

    let elsewhere =
        Client::new(&synapse.endpoint.join("sub/").expect("a URL"), &Secret::new(SECRET)).expect("a client");
    assert!(matches!(elsewhere.query_user("a").await, Err(Error::NotDelegated)));

    let nobody =
        Client::new(&"http://127.0.0.1:1/".parse().expect("a URL"), &Secret::new(SECRET)).expect("a client");
    assert!(matches!(nobody.query_user("a").await, Err(Error::Unreachable(_))));

    let client = synapse.client();
    synapse.will_answer(404, r#"{"errcode":"M_NOT_FOUND","error":"x"}"#);
    assert!(matches!(client.delete_user("a", false).await, Err(Error::NotFound)));
    synapse.will_answer(200, "x".repeat(100_000));
    assert!(matches!(client.query_user("a").await, Err(Error::TooLarge)));
    synapse.will_answer(200, r#"{"user_id": 1}"#);
    assert!(matches!(client.query_user("a").await, Err(Error::Malformed(_))));
}

#[tokio::test]
async fn a_silent_synapse_is_unreachable_after_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}/", listener.local_addr().expect("an address")).parse().expect("a URL");
    let mut client = Client::new(&endpoint, &Secret::new(SECRET)).expect("a client").hurried();
    assert_eq!(client.deadline, HURRIED);
    client.deadline = Duration::from_millis(50);
    assert!(matches!(client.delete_device("a", "D").await, Err(Error::Unreachable(_))));
}
