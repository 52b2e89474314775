//! Answers of our own: actions of routes, and faults.

use std::time::Duration;

use conf::{Action, Matcher, Respond};
use http::{HeaderMap, StatusCode};

use crate::harness::{Running, Upstream, config, ok, prefix, reply, route, to, upstream_of};

fn respond(text: &str) -> Action {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "text/plain".parse().unwrap());
    Action::Respond(Respond { status: StatusCode::OK, headers, body: text.into() })
}

#[tokio::test]
async fn actions() {
    let edge = Running::start(config(vec![], |_| {
        vec![
            route("exact", Matcher::Path("/exact".into()), respond("exact")),
            prefix("/deny", Action::Deny(StatusCode::FORBIDDEN)),
            prefix("/teapot", Action::Deny(StatusCode::IM_A_TEAPOT)),
            conf::Route {
                allow: Some(vec!["10.0.0.0/8".parse().unwrap()]),
                ..prefix("/inner", respond("inner"))
            },
            prefix(
                "/old",
                Action::Redirect {
                    location: "https://new.example/".into(),
                    status: StatusCode::MOVED_PERMANENTLY,
                },
            ),
        ]
    }))
    .await;
    let answer = edge.get("/exact").await;
    assert_eq!(
        (answer.status, answer.text(), answer.field("content-type")),
        (200, "exact", Some("text/plain"))
    );
    assert_eq!(edge.get("/exact/").await.status, 404);
    assert_eq!(edge.get("/deny/x").await.status, 403);
    assert_eq!(edge.get("/teapot").await.status, 418);
    assert_eq!(edge.get("/inner").await.status, 403);
    let answer = edge.get("/old/x?y").await;
    assert_eq!((answer.status, answer.field("location")), (301, Some("https://new.example/")));
}

#[tokio::test]
async fn answers_without_upstream_keep_the_connection() {
    let edge = Running::start(config(vec![], |_| vec![prefix("/", respond("hi"))])).await;
    let mut client = edge.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "hi");
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer_to("HEAD").await;
        assert_eq!((answer.status, answer.field("content-length")), (200, Some("2")));
    }
}

#[tokio::test]
async fn answers_without_upstream_leave_each_head_its_own_limits() {
    let mut config = config(vec![], |_| vec![prefix("/", respond("hi"))]);
    config.limits.max_header_size = conf::ByteSize(2048);
    config.timeouts.header = Duration::from_millis(500);
    let edge = Running::start(config).await;
    let mut client = edge.connect().await;
    for _ in 0..100 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX: twenty bytes and some\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    }
    // Idle for longer than a head may take.
    tokio::time::sleep(Duration::from_millis(800)).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn plain_listeners_can_send_everybody_to_https() {
    let mut config = config(vec![], |_| vec![prefix("/", respond("hi"))]);
    config.listeners[0].redirect_https = true;
    let edge = Running::start(config).await;
    let answer = edge.ask("POST /a%2Fb?c HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((answer.status, answer.field("location")), (308, Some("https://a.example/a%2Fb?c")));
    let answer = edge.ask("GET / HTTP/1.1\r\nHost: a.example:80\r\n\r\n").await;
    assert_eq!(answer.field("location"), Some("https://a.example/"));
}

#[tokio::test]
async fn matrix_clients_get_matrix_errors() {
    let edge = Running::start(config(vec![], |_| vec![prefix("/other", respond(""))])).await;
    let answer = edge.get("/_matrix/nothing").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.text(), r#"{"errcode":"M_UNRECOGNIZED","error":"No such route"}"#);
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    let answer = edge.get("/nothing").await;
    assert!(answer.text().starts_with("<!doctype html>"));
}

#[tokio::test]
async fn ambiguous_paths_are_refused() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(config(vec![upstream_of("up", vec![upstream.server.clone()])], |upstreams| {
        vec![
            prefix("/_synapse/admin", Action::Deny(StatusCode::FORBIDDEN)),
            prefix("/_matrix", Action::Upstream(upstreams[0].clone())),
        ]
    }))
    .await;
    for target in
        ["/_matrix/../_synapse/admin", "/_matrix/%2e%2e/_synapse/admin", "/_matrix/..%2f_synapse/admin"]
    {
        assert_eq!(edge.get(target).await.status, 400, "{target}");
    }
    assert_eq!(edge.get("/_synapse/%61dmin").await.status, 403);
    assert_eq!(edge.get("/_matrix/%23a%2Fb").await.status, 200);
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn unreachable_upstreams_are_502() {
    let nobody = conf::Server::Tcp { host: "127.0.0.1".into(), port: 1, tls: false };
    let no_socket = conf::Server::Unix("/nonexistent/socket".into());
    for server in [nobody, no_socket] {
        let edge = Running::start(config(vec![upstream_of("up", vec![server])], |upstreams| {
            vec![prefix("/", Action::Upstream(upstreams[0].clone()))]
        }))
        .await;
        let answer = edge.get("/_matrix/client/versions").await;
        assert_eq!(answer.status, 502);
        assert!(
            answer.text().contains("The server behind this proxy cannot be reached"),
            "{}",
            answer.text()
        );
        assert_eq!(answer.field("connection"), Some("close"));
    }
}

#[tokio::test]
async fn slow_upstreams_are_504() {
    let upstream =
        Upstream::start(|_| crate::harness::Reply { delay: Duration::from_secs(60), ..ok("") }).await;
    let mut config = to(&upstream);
    config.timeouts.upstream_read = Duration::from_millis(300);
    let edge = Running::start(config).await;
    assert_eq!(edge.get("/").await.status, 504);
}

#[tokio::test]
async fn broken_upstreams_are_502() {
    let garbage = Upstream::start(|_| reply("garbage\r\n\r\n")).await;
    let closing = Upstream::start(|_| crate::harness::Reply { close: true, ..reply("") }).await;
    for upstream in [garbage, closing] {
        let edge = Running::start(to(&upstream)).await;
        assert_eq!(edge.get("/").await.status, 502);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_complete() {
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let upstream = Upstream::start(move |_| crate::harness::Reply {
            close: true,
            ..reply(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n"))
        })
        .await;
        let edge = Running::start(to(&upstream)).await;
        let answer = edge.get("/").await;
        assert_eq!((answer.status, answer.is_cut), (200, true), "{head}");
    }
}

/// What the fetch standard asks of a preflight before the browser sends the request itself (§4.8, CORS-preflight fetch), for a
/// request with a token and JSON.
fn is_a_good_preflight(answer: &crate::harness::Answer) {
    assert!((200..300).contains(&answer.status), "{}", answer.head);
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    let allowed = answer.field("access-control-allow-methods").unwrap();
    for method in ["GET", "POST", "PUT", "DELETE"] {
        assert!(allowed.split(", ").any(|allowed| allowed == method), "{allowed}");
    }
    let allowed = answer.field("access-control-allow-headers").unwrap().to_ascii_lowercase();
    for field in ["authorization", "content-type", "x-requested-with"] {
        assert!(allowed.split(", ").any(|allowed| allowed == field), "{allowed}");
    }
    assert_eq!(answer.text(), "");
}

fn preflight(target: &str) -> String {
    format!(
        "OPTIONS {target} HTTP/1.1\r\nHost: a.example\r\nOrigin: https://app.example\r\n\
         Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization,content-type\r\n\r\n"
    )
}

fn forwarding(upstream: conf::Upstream) -> conf::Edge {
    let mut config = config(vec![upstream], |upstreams| {
        vec![
            prefix("/_synapse/admin", Action::Deny(StatusCode::FORBIDDEN)),
            prefix("/_synapse/mas", Action::Deny(StatusCode::NOT_FOUND)),
            prefix("/_matrix/busy", Action::Deny(StatusCode::TOO_MANY_REQUESTS)),
            conf::Route {
                max_body_size: Some(conf::ByteSize(4)),
                ..prefix("/_matrix/", Action::Upstream(upstreams[0].clone()))
            },
            prefix("/other", Action::Upstream(upstreams[0].clone())),
        ]
    });
    config.timeouts.upstream_read = Duration::from_millis(300);
    config
}

#[tokio::test]
async fn a_preflight_is_answered_whatever_becomes_of_its_request() {
    let nobody = conf::Server::Tcp { host: "127.0.0.1".into(), port: 1, tls: false };
    let silent =
        Upstream::start(|_| crate::harness::Reply { delay: Duration::from_secs(60), ..ok("") }).await;
    let closing = Upstream::start(|_| crate::harness::Reply { close: true, ..reply("") }).await;
    for (server, status, text) in [
        (nobody, 502, "cannot be reached"),
        (silent.server.clone(), 504, "did not answer in time"),
        (closing.server.clone(), 502, "did not complete its answer"),
    ] {
        let edge = Running::start(forwarding(upstream_of("up", vec![server]))).await;
        let answer = edge.get("/_matrix/client/versions").await;
        assert_eq!(answer.status, status);
        assert!(answer.text().contains("The server behind this proxy"), "{}", answer.text());
        assert!(answer.text().contains(text), "{}", answer.text());
        is_a_good_preflight(&edge.ask(&preflight("/_matrix/client/v3/account/whoami")).await);
        assert_eq!(edge.ask(&preflight("/other")).await.status, status, "no business of Matrix's");
        // Longer than `limits.max_header_size`.
        let long = format!("/_matrix/{}", "x".repeat(40_000));
        for target in ["/_synapse/admin/v1", "/_synapse/mas/x", "/_matrix/busy", "/_synapse/nothing", &long] {
            is_a_good_preflight(&edge.ask(&preflight(target)).await);
        }
    }
}

#[tokio::test]
async fn a_preflight_that_is_no_request_is_refused() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(forwarding(upstream_of("up", vec![upstream.server.clone()]))).await;
    for request in [
        "OPTIONS /_matrix/..%2f_synapse/admin HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS /_matrix/x HTTP/1.1\r\nHost: a b\r\n\r\n",
        "OPTIONS /_matrix/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
    ] {
        let answer = edge.ask(request).await;
        assert_eq!(
            (answer.status, answer.field("access-control-allow-origin")),
            (400, Some("*")),
            "{request}"
        );
    }
    assert_eq!(upstream.received().len(), 0);
    // And one that is a request belongs to the upstream, which is there.
    assert_eq!(edge.ask(&preflight("/_matrix/x")).await.status, 200);
    assert_eq!(upstream.received().len(), 1);
}

/// Every status of our own, as a Matrix client sees it.
#[tokio::test]
async fn every_error_is_in_form() {
    let nobody = conf::Server::Tcp { host: "127.0.0.1".into(), port: 1, tls: false };
    let mut config = forwarding(upstream_of("up", vec![nobody]));
    config.limits.max_header_size = conf::ByteSize(2048);
    let edge = Running::start(config).await;
    let long = "x".repeat(4000);
    for (request, status, errcode) in [
        ("GET /_matrix/a/..%2f..%2f_synapse/admin HTTP/1.1\r\nHost: a\r\n\r\n", 400, "M_UNRECOGNIZED"),
        ("GET /_synapse/admin HTTP/1.1\r\nHost: a\r\n\r\n", 403, "M_FORBIDDEN"),
        ("GET /_synapse/mas/x HTTP/1.1\r\nHost: a\r\n\r\n", 404, "M_UNRECOGNIZED"),
        ("GET /.well-known/matrix/nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404, "M_UNRECOGNIZED"),
        ("TRACE /_matrix/x HTTP/1.1\r\nHost: a\r\n\r\n", 405, "M_UNRECOGNIZED"),
        ("PUT /_matrix/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 413, "M_TOO_LARGE"),
        (&format!("GET /_matrix/{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "M_UNKNOWN"),
        ("GET /_matrix/x HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", 417, "M_UNKNOWN"),
        ("GET /_matrix/busy HTTP/1.1\r\nHost: a\r\n\r\n", 429, "M_LIMIT_EXCEEDED"),
        (&format!("GET /_matrix/x HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431, "M_UNKNOWN"),
        (
            "PUT /_matrix/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            "M_UNKNOWN",
        ),
        ("GET /_matrix/x HTTP/1.1\r\nHost: a\r\n\r\n", 502, "M_UNKNOWN"),
    ] {
        let answer = edge.ask(request).await;
        assert_eq!(answer.status, status, "{request}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["errcode"], errcode, "{request}");
        assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{request}");
        assert_eq!(answer.field("content-type"), Some("application/json"), "{request}");
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"), "{request}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{request}");
        let later = (status == 429).then_some("30");
        assert_eq!(answer.field("retry-after"), later, "{request}");
        assert_eq!(body["retry_after_ms"].as_u64(), later.map(|_| 30_000), "{request}");
    }
}

#[tokio::test]
async fn an_error_has_no_body_for_head_and_keeps_the_connection_usable() {
    let edge =
        Running::start(config(vec![], |_| vec![prefix("/_matrix/x", Action::Deny(StatusCode::FORBIDDEN))]))
            .await;
    let mut client = edge.connect().await;
    let length = edge.get("/_matrix/x").await.field("content-length").unwrap().to_owned();
    for _ in 0..2 {
        client.send("HEAD /_matrix/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer_to("HEAD").await;
        assert_eq!((answer.status, answer.field("content-length")), (403, Some(length.as_str())));
        client.send(preflight("/_matrix/x")).await;
        is_a_good_preflight(&client.answer().await);
    }
}
