//! Two real Synapses federate through two edges. Certificates are verified, names and ports are the usual ones (`harness/relay.rs`
//! leads them here), and the Synapses listen on Unix sockets only: there is no other way between them.
//!
//! `alpha.test` is found by `.well-known/matrix/server`, on port 443; `beta.test:8448` by its name, on the federation port.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::Value;

use super::harness::{MISLEADING, PATIENCE, Peer, federation};

/// How often the access log is read again.
const POLL: Duration = Duration::from_millis(50);

#[test]
fn rooms_messages_and_invitations() {
    let both = federation();
    both.run_client("federation_rooms.py");

    // Found as the specification says, and no other way was tried.
    let asked = |peer: &Peer| {
        let names = peer.relay.asked().into_iter();
        names.filter(|name| name != MISLEADING).collect::<Vec<_>>()
    };
    assert_eq!(asked(&both.alpha), ["beta.test:8448"]);
    assert_eq!(asked(&both.beta), ["alpha.test:443", "matrix.alpha.test:443"]);

    // Alpha's requests came in on beta's federation port, beta's on alpha's usual one.
    // A slash in a name, a percent sign in another: signed, and as they were signed.
    let wanted = ["v1/send/", "v1/make_join/", "v2/send_join/", "%40rooms%2Falice%3Aalpha.test"];
    came_through(&both.beta, &both.alpha, "federation", "beta.test:8448", &wanted);
    let wanted = [
        "v1/query/directory?room_alias=%23kaffee%2Fcr%C3%A8me%252Fbr%C3%BBl%C3%A9e%3Fa%3D1%26b%23c%3Aalpha.test",
        "v1/make_join/",
        "v2/send_join/",
        "v2/invite/",
        "v1/send/",
        "v1/query/profile?",
        "%40rooms%2Fbob%2Bb%3Abeta.test%3A8448",
    ];
    came_through(&both.alpha, &both.beta, "https", "matrix.alpha.test:443", &wanted);
}

#[test]
fn media() {
    let both = federation();
    both.run_client("federation_media.py");
    for (server, other) in [(&both.alpha, &both.beta), (&both.beta, &both.alpha)] {
        wait_for(server, other, |line| path(line).starts_with("/_matrix/federation/v1/media/download/"));
    }
}

#[test]
fn an_encrypted_room_with_verified_devices_and_an_attachment() {
    let both = federation();
    both.run_client("encryption.py");
    // Devices and their one-time keys are asked for at the server that has them.
    let user = "/_matrix/federation/v1/user/";
    for (server, other) in [(&both.alpha, &both.beta), (&both.beta, &both.alpha)] {
        wait_for(server, other, |line| {
            path(line).starts_with(&format!("{user}devices/")) || path(line) == format!("{user}keys/query")
        });
    }
    wait_for(&both.beta, &both.alpha, |line| path(line) == format!("{user}keys/claim"));
}

/// Without this, the other tests would pass with any certificate.
#[test]
fn a_certificate_of_another_name_is_not_believed() {
    let both = federation();
    let token = both.beta.log_in("misled");
    let host = "matrix.beta.test";
    let target = format!("GET /_matrix/client/v3/directory/room/%23a%3A{}", MISLEADING.replace(':', "%3A"));
    let fields = [format!("Host: {host}"), format!("Authorization: Bearer {token}")];
    let answer =
        both.beta.client("https", host).request(&target, &fields.each_ref().map(String::as_str), b"");
    assert!(answer.json()["errcode"].is_string() && answer.status >= 400, "{}", answer.text());
    assert!(both.beta.relay.asked().contains(MISLEADING), "nobody has tried");
    let log = both.beta.homeserver.synapse.log();
    assert!(log.contains("DNSMismatch"), "{log}");
    let misled = |line: &Value| line["host"].as_str().is_some_and(|host| host.starts_with("gamma"));
    assert!(!both.alpha.access_log().iter().any(misled), "a request was sent all the same");
}

#[test]
fn an_unsigned_request_is_synapses_to_refuse() {
    for (peer, host) in [(&federation().alpha, "alpha.test"), (&federation().beta, "beta.test")] {
        let target = "/_matrix/federation/v1/query/profile?user_id=%40a%3Aalpha.test";
        let answer = peer.client("federation", host).get(host, target).expect(401);
        assert_eq!(answer.json()["errcode"], "M_UNAUTHORIZED");
    }
}

/// What a server's edge wrote down of the other Synapse's requests.
fn from(server: &Peer, other: &Peer) -> Vec<Value> {
    let client = other.source.to_string();
    server.access_log().into_iter().filter(|line| line["client"] == *client).collect()
}

/// Waits for a request of the other Synapse's that was answered with 200; the access log is written a moment later.
fn wait_for(server: &Peer, other: &Peer, wanted: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lines = from(server, other);
        if lines.iter().any(|line| line["status"] == 200 && wanted(line)) {
            return;
        }
        assert!(Instant::now() < deadline, "it never came: {lines:#?}");
        std::thread::sleep(POLL);
    }
}

fn path(line: &Value) -> &str {
    line["path"].as_str().unwrap_or_default()
}

/// Every signed request that `server`'s Synapse took from `other` went through the edge as it was signed, on `listener`.
fn came_through(server: &Peer, other: &Peer, listener: &str, host: &str, wanted: &[&str]) {
    let name = &other.homeserver.front.server_name;
    // Synapse names the origin only when the signature is right.
    let taken = Regex::new(&format!(
        r#"^{} - .* - \{{{}\}} Processed request: .*B 200 "([A-Z]+) (/_matrix/federation/\S+) "#,
        regex::escape(&other.source.to_string()),
        regex::escape(name)
    ))
    .unwrap();
    let log = server.homeserver.synapse.log();
    let taken: BTreeSet<(String, String)> = log
        .lines()
        .filter_map(|line| taken.captures(line))
        .map(|found| (found[1].to_owned(), found[2].to_owned()))
        .collect();
    for wanted in wanted {
        assert!(taken.iter().any(|(_, path)| path.contains(wanted)), "no {wanted}: {taken:#?}");
    }
    wait_for(server, other, |line| path(line) == "/_matrix/key/v2/server");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lines = from(server, other);
        let passed: BTreeSet<(String, String)> = lines
            .iter()
            .filter(|line| line["listener"] == listener && line["host"] == host && line["status"] == 200)
            .map(|line| (line["method"].as_str().unwrap_or_default().to_owned(), path(line).to_owned()))
            .collect();
        if taken.is_subset(&passed) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{name}'s requests did not all come through the edge: {:?}\n{lines:?}",
            taken.difference(&passed).collect::<Vec<_>>()
        );
        std::thread::sleep(POLL);
    }
}
