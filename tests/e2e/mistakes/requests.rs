//! What Synapse is told about a request, and what becomes of the request on its way.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::deployment::{MATRIX, deploy, deploy_before};
use crate::harness::{Curl, Peer, Reply, federation};

const HOST: &str = "matrix.alpha.test";

fn alpha() -> &'static Peer {
    &federation().alpha
}

/// Synapse takes the first address of `X-Forwarded-For`, which is the client's own word where a proxy appends:
/// <https://github.com/element-hq/synapse/issues/9471>. Without the field everybody shares one limit of requests:
/// <https://github.com/matrix-org/synapse/issues/15477>.
#[test]
fn synapse_believes_no_address_of_the_clients_own() {
    let client = Ipv4Addr::new(127, 0, 0, 21);
    for (number, field) in [
        "X-Forwarded-For: 198.51.100.1",
        "X-Forwarded-For: 198.51.100.1, 127.0.0.1",
        "Forwarded: for=198.51.100.1",
        "X_Forwarded_For: 198.51.100.1",
        "X-Real-IP: 198.51.100.1",
    ]
    .iter()
    .enumerate()
    {
        let target = format!("/_matrix/client/versions?forged={number}");
        let mut connection = alpha().client_from(client, "https", HOST);
        connection.request(&format!("GET {target}"), &[&format!("Host: {HOST}"), field], b"").expect(200);
        let line = synapse_said(&format!("\"GET {target} "));
        assert!(line.starts_with(&format!("{client} - ")), "{field}: {line}");
    }
}

/// Waits for a line of Synapse's log.
fn synapse_said(part: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let log = alpha().homeserver.synapse.log();
        if let Some(line) = log.lines().find(|line| line.contains(part)) {
            return line.to_owned();
        }
        assert!(Instant::now() < deadline, "Synapse never said {part}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Brackets or a port belong to a URL; Synapse and everybody's ban lists want the address alone.
#[test]
fn an_ipv6_client_is_one_bare_address() {
    let deployment = deploy();
    let mut client = deployment.plain("balanced");
    client.send("PROXY TCP6 2001:db8::9 2001:db8::1 40000 443\r\n");
    client.get(MATRIX, "/_matrix/client/versions").expect(200);
    let seen = deployment.synapse.only();
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("2001:db8::9"));
    assert!(seen.header("forwarded").unwrap().contains("for=\"[2001:db8::9]\""));
}

/// Without it Synapse warns at every request, and makes `http://` URLs or loops where it compares with its own:
/// <https://github.com/spantaleev/matrix-docker-ansible-deploy/issues/951>,
/// <https://github.com/matrix-org/synapse/issues/10492>.
#[test]
fn synapse_knows_that_it_was_https() {
    alpha().client("https", HOST).get(HOST, "/_matrix/client/versions?https").expect(200);
    synapse_said("\"GET /_matrix/client/versions?https ");
    let log = alpha().homeserver.synapse.log().to_ascii_lowercase();
    assert!(!log.contains("x-forwarded-proto"), "Synapse misses the field");
    let deployment = deploy();
    let fields = [&format!("Host: {MATRIX}"), "X-Forwarded-Proto: http"];
    deployment.client(MATRIX).request("GET /_matrix/client/versions", &fields, b"").expect(200);
    assert_eq!(deployment.synapse.only().header("x-forwarded-proto").as_deref(), Some("https"));
}

/// Beyond its limit Synapse breaks off the connection and says nothing:
/// <https://github.com/element-hq/synapse/issues/20022>. An edge that does not know the limit has to make an answer of it.
#[test]
fn an_upload_that_synapse_breaks_off_has_an_answer() {
    let token = alpha().log_in("too_large");
    for version in ["--http1.1", "--http2"] {
        let said = upload(version, &token, 13 << 20);
        assert!(said.contains("\"errcode\":\"M_UNKNOWN\"") && said.ends_with(" 502"), "{version}: {said}");
        assert!(said.to_ascii_lowercase().contains("access-control-allow-origin: *"), "{version}: {said}");
    }
}

/// Uploads so many bytes with curl: head, body and status of the answer.
fn upload(version: &str, token: &str, bytes: usize) -> String {
    let front = &alpha().homeserver.front;
    let file = front.folder.write(&format!("upload{bytes}"), vec![b'x'; bytes]);
    let curl = Curl { ca: front.certificates.ca.clone(), edge: front.edge };
    let authorization = format!("Authorization: Bearer {token}");
    let body = format!("@{}", file.display());
    let url = format!("https://{HOST}:{{edge}}/_matrix/media/v3/upload");
    let asked = ["-H", "Expect:", "-H", &authorization, "--data-binary", &body, &url];
    curl.run(&[HOST], &[&[version, "-i", "-w", " %{http_code}"][..], &asked].concat())
}

/// A proxy that frames an upload anew without its length gets 400 from Synapse for every one:
/// <https://github.com/element-hq/synapse/issues/19512>; one that keeps `Expect` to itself makes clients wait a second.
#[test]
fn an_upload_arrives_with_its_length_and_is_invited() {
    let token = alpha().log_in("uploads");
    let mut client = alpha().client("https", HOST);
    let body = vec![b'x'; 1 << 20];
    client.send(format!(
        "POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: image/png\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    ));
    let invited = client.receive_head();
    assert!(invited.starts_with("HTTP/1.1 100"), "{invited}");
    client.send(&body);
    let uri = client.receive().expect(200).json()["content_uri"].as_str().unwrap().to_owned();
    assert!(uri.starts_with("mxc://alpha.test/"), "{uri}");

    // HTTP/2 has no need of a length, Synapse has.
    let said = upload("--http2", &token, body.len());
    assert!(said.contains("mxc://alpha.test/") && said.ends_with(" 200"), "{said}");

    // Media is its own validator: what the client has is not sent again, and nobody on the way compresses it.
    let (_, media) = uri.rsplit_once('/').unwrap();
    let target = format!("GET /_matrix/client/v1/media/download/alpha.test/{media}");
    let authorization = format!("Authorization: Bearer {token}");
    let fields = [format!("Host: {HOST}"), authorization, "Accept-Encoding: gzip, br".to_owned()];
    let mut fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let answer = alpha().client("https", HOST).request(&target, &fields, b"").expect(200);
    assert_eq!((answer.body.len(), answer.header("content-encoding")), (body.len(), None));
    let known = format!("If-None-Match: {}", answer.header("etag").expect("Synapse sends one"));
    fields.push(&known);
    alpha().client("https", HOST).request(&target, &fields, b"").expect(304);
}

/// A proxy that compresses, cuts `Range`, or makes strong validators weak breaks resumed downloads and caches.
#[test]
fn encodings_validators_and_ranges_are_left_alone() {
    let answer = "HTTP/1.1 206 Partial Content\r\nContent-Encoding: gzip\r\nETag: \"abc\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
        Vary: Accept-Encoding\r\nContent-Range: bytes 1-2/5\r\nAccept-Ranges: bytes\r\nCache-Control: private, max-age=1\r\n\
        Content-Disposition: inline; filename*=utf-8''%C3%B6.png\r\nContent-Security-Policy: sandbox\r\n\
        Content-Type: image/png\r\nContent-Length: 2\r\n\r\n\x1f\x08";
    let deployment = deploy_before(move |_| Reply::Bytes(answer.as_bytes().to_vec()));
    let asked = [
        "Accept-Encoding: gzip;q=0.5, zstd",
        "If-None-Match: W/\"a\", \"b\"",
        "If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT",
        "If-Range: \"abc\"",
        "Range: bytes=1-2",
        "Cache-Control: no-cache",
    ];
    let host = format!("Host: {MATRIX}");
    let fields: Vec<&str> = std::iter::once(host.as_str()).chain(asked).collect();
    let answered =
        deployment.client(MATRIX).request("GET /_matrix/media/v3/download/a/b", &fields, b"").expect(206);
    assert_eq!(answered.body, b"\x1f\x08");
    for line in answer.split("\r\n").skip(1).filter(|line| line.contains(": ")) {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(answered.header(name), Some(value), "{name}");
    }
    let seen = deployment.synapse.only();
    for field in asked {
        let (name, value) = field.split_once(": ").unwrap();
        assert_eq!(seen.header(name).as_deref(), Some(value), "{name}");
    }
}

/// Two small defaults of nginx: 8 KiB for a request's field, 4 or 8 KiB for an answer's head. Macaroons, JWTs and cookies of the
/// same domain are larger: <https://github.com/sartography/spiff-arena/pull/1550>.
#[test]
fn large_heads_pass_both_ways() {
    let policy = "x".repeat(24 << 10);
    let head = format!("HTTP/1.1 200 OK\r\nX-Large: {policy}\r\nContent-Length: 2\r\n\r\n{{}}");
    let deployment = deploy_before(move |_| Reply::Bytes(head.clone().into_bytes()));
    let token = format!("Authorization: Bearer {}", "t".repeat(24 << 10));
    let host = format!("Host: {MATRIX}");
    let whoami = "GET /_matrix/client/v3/account/whoami";
    let answer = deployment.client(MATRIX).request(whoami, &[&host, &token], b"").expect(200);
    assert_eq!(answer.header("x-large"), Some(policy.as_str()));
    let seen = deployment.synapse.only();
    assert_eq!(format!("Authorization: {}", seen.header("authorization").unwrap()), token);

    // Where it ends, the client is told in a form that it understands.
    let token = format!("Authorization: Bearer {}", "t".repeat(40 << 10));
    let answer = deployment.client(MATRIX).request(whoami, &[&host, &token], b"").expect(431);
    assert!(answer.json()["errcode"].is_string());
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(deployment.synapse.requests().len(), 1);
}

/// `proxy_set_header Connection "upgrade"` for everybody, or a client's own `Upgrade`, makes servers see what was not meant. Clients
/// of Matrix need no WebSocket to Synapse.
#[test]
fn wishes_to_upgrade_stop_at_the_edge() {
    let deployment = deploy();
    for (number, fields) in [
        &["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"]
            [..],
        &["Connection: upgrade"],
        &["Upgrade: h2c"],
        &["Connection: keep-alive, Upgrade", "Upgrade: TLS/1.0"],
    ]
    .iter()
    .enumerate()
    {
        let host = format!("Host: {MATRIX}");
        let all: Vec<&str> = std::iter::once(host.as_str()).chain(fields.iter().copied()).collect();
        let target = format!("/_matrix/client/versions?{number}");
        deployment.client(MATRIX).request(&format!("GET {target}"), &all, b"").expect(200);
        let seen = deployment.synapse.wait_for(|request| request.target() == target);
        for name in ["upgrade", "http2-settings"] {
            assert_eq!(seen.header(name), None, "{fields:?}");
        }
        let connection = seen.header("connection").unwrap_or_default().to_ascii_lowercase();
        assert!(!connection.contains("upgrade"), "{fields:?}: {connection}");
    }
}

/// Chunks that a proxy hands on to a client of HTTP/1.0, or half an answer: <https://github.com/matrix-org/synapse/pull/14414>
#[test]
fn every_version_of_http_gets_the_same_answer() {
    let front = &alpha().homeserver.front;
    let curl = Curl { ca: front.certificates.ca.clone(), edge: front.edge };
    let url = format!("https://{HOST}:{{edge}}/_matrix/client/versions");
    let versions = ["--http1.0", "--http1.1", "--http2"];
    let answers = versions.map(|version| curl.run(&[HOST], &[version, &url]));
    assert!(answers[0].contains("\"versions\""), "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}
