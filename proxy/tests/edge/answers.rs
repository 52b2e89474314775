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
async fn malformed_requests_are_refused() {
    let upstream = Upstream::start(|_| ok("")).await;
    let edge = Running::start(to(&upstream)).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", 417),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ] {
        let answer = edge.ask(request).await;
        assert_eq!(answer.status, status, "{request}");
        assert!(!answer.head.contains("ingora"), "{}", answer.head);
    }
    assert_eq!(upstream.received().len(), 0);
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
