//! A web page may read an answer only if the answer says so, once: Element shows everything else as "cannot reach homeserver".

use crate::harness::{Answer, Peer, federation, password_login};

const HOST: &str = "matrix.alpha.test";

fn alpha() -> &'static Peer {
    &federation().alpha
}

#[track_caller]
fn says_so_once(answer: &Answer, what: &str) {
    let origins: Vec<&str> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("access-control-allow-origin"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(origins, ["*"], "{what}: {:?}", answer.headers);
}

/// Left out of errors: <https://github.com/matrix-org/synapse/issues/1595>; added to what Synapse says already, so that browsers
/// see `*, *` and refuse: <https://github.com/jdesrosiers/silex-cors-provider/issues/13>.
#[test]
fn every_answer_says_once_that_pages_may_read_it() {
    let login = password_login("nobody", "wrong").to_string();
    let cases: &[(&str, &str, u16)] = &[
        // Synapse's
        ("GET /_matrix/client/versions", "", 200),
        ("GET /_matrix/client/v3/account/whoami", "", 401),
        ("GET /_matrix/client/v3/nothing", "", 404),
        ("GET /_matrix/federation/v1/version", "", 200),
        // the auth service's
        ("GET /_matrix/client/v3/login", "", 200),
        ("POST /_matrix/client/v3/login", &login, 403),
        ("POST /_matrix/client/v3/login", "{", 400),
        ("POST /_matrix/client/v3/logout", "{}", 401),
        ("GET /_matrix/client/v1/auth_metadata", "", 200),
        // ours
        ("GET /.well-known/matrix/client", "", 200),
        ("POST /.well-known/matrix/client", "{}", 405),
        ("GET /_matrix/client/%2e%2e%2f%2e%2e%2f_synapse/mas/x", "", 400),
        ("GET /_synapse/admin/v1/server_version", "", 403),
        ("GET /_synapse/mas/query_user", "", 404),
        ("TRACE /_matrix/client/versions", "", 405),
    ];
    for (line, body, status) in cases {
        let fields =
            [&format!("Host: {HOST}"), "Origin: https://app.element.io", "Content-Type: application/json"];
        let answer = alpha().client("https", HOST).request(line, &fields, body.as_bytes());
        assert_eq!(answer.status, *status, "{line}: {}", answer.text());
        says_so_once(&answer, line);
    }
    let mut client = alpha().client("https", HOST);
    client.send(format!(
        "POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 60000000\r\n\r\n"
    ));
    says_so_once(&client.receive().expect(413), "413");
}

/// A preflight that somebody answers without CORS, or with an error, ends every login from a web page:
/// <https://github.com/devture/matrix-corporal/pull/15>
#[test]
fn preflights_are_answered_whoever_the_request_is_for() {
    for (target, method) in [
        ("/_matrix/client/v3/login", "POST"),
        ("/_matrix/client/v3/logout", "POST"),
        ("/_matrix/client/v3/refresh", "POST"),
        ("/_matrix/client/v3/sync", "GET"),
        ("/_matrix/client/v3/rooms/!a:b/send/m.room.message/1", "PUT"),
        ("/_matrix/media/v3/upload", "POST"),
        ("/_matrix/client/v1/auth_metadata", "GET"),
        ("/.well-known/matrix/client", "GET"),
    ] {
        let asked = format!("Access-Control-Request-Method: {method}");
        let fields = [
            &format!("Host: {HOST}"),
            "Origin: https://app.element.io",
            asked.as_str(),
            "Access-Control-Request-Headers: authorization, content-type",
        ];
        let answer = alpha().client("https", HOST).request(&format!("OPTIONS {target}"), &fields, b"");
        assert!(matches!(answer.status, 200 | 204), "{target}: {}", answer.status);
        says_so_once(&answer, target);
        let list = |name: &str| answer.header(name).unwrap_or_default().to_ascii_lowercase();
        let (methods, allowed) = (list("access-control-allow-methods"), list("access-control-allow-headers"));
        assert!(methods.contains(&method.to_ascii_lowercase()), "{target}: {methods}");
        assert!(allowed.contains("authorization") && allowed.contains("content-type"), "{target}: {allowed}");
    }
}
