//! The main job: an unmodified matrix-nio, over TLS through the edge, with a real Synapse that delegates to the auth service.
//! Edge and auth service are one process and talk over a Unix socket with PROXY v2. What is asserted stands in the scripts.

use super::harness::homeserver;

fn check(script: &str) {
    homeserver().run_client(script);
}

#[test]
fn login_by_localpart_full_id_and_email_and_not_with_a_wrong_password() {
    check("login.py");
}

#[test]
fn a_long_poll_is_woken_by_a_message() {
    check("messages.py");
}

#[test]
fn media_of_20_mb_and_things_called_login() {
    check("media.py");
}

#[test]
fn refresh_rotates_and_survives_a_lost_response() {
    check("refresh.py");
}

#[test]
fn a_logged_out_token_is_dead_at_the_next_request() {
    check("logout.py");
}

#[test]
fn a_locked_account_cannot_log_in() {
    check("lock.py");
}

#[test]
fn a_deactivated_account_is_gone_at_once() {
    check("deactivate.py");
}

#[test]
fn an_encrypted_room_with_verified_devices_and_an_attachment() {
    check("encryption.py");
}

#[test]
fn the_paths_for_operators_are_not_public() {
    let server = homeserver();
    for path in ["/_synapse/mas/query_user?localpart=alice", "/_synapse/admin/v1/server_version", "/metrics"]
    {
        let status = server.client().get("localhost", path).status;
        assert!(matches!(status, 403 | 404), "{path} is public: {status}");
    }
    let answer = server.client().get("localhost", "/_matrix/client/versions").expect(200);
    assert!(answer.json()["versions"].is_array());
}
