//! `strip_prefix` and `replace_path`: what reaches the upstream, and what is refused.

use conf::{AccessLog, AccessLogFormat, AccessLogTarget, Action, ProxyVersion, Rewrite, Route};
use http::StatusCode;
use tokio::io::AsyncReadExt;

use crate::harness::{Running, Upstream, config, ok, prefix, reply, upstream_of};
use crate::http2;

/// `/app/` without its start, `/old/` as `/new?…`, and everything else as received.
fn rewriting(upstream: conf::Upstream) -> conf::Edge {
    config(vec![upstream], |upstreams| {
        let forward = |start| prefix(start, Action::Upstream(upstreams[0].clone()));
        vec![
            Route { rewrite: Some(Rewrite::StripPrefix("/app".into())), ..forward("/app/") },
            Route { rewrite: Some(Rewrite::ReplacePath("/new".into())), ..forward("/old/") },
            forward("/"),
        ]
    })
}

fn to(upstream: &Upstream) -> conf::Edge {
    rewriting(upstream_of("up", vec![upstream.server.clone()]))
}

#[tokio::test]
async fn what_remains_is_forwarded_byte_for_byte() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let edge = Running::start(to(&upstream)).await;
    for (target, forwarded) in [
        ("/app/", "/"),
        ("/app/?a=b?c", "/?a=b?c"),
        ("/app//x/app/", "//x/app/"),
        ("/app/%2Fa%2fb%23%C3%a9/x?y=%zz&&=;?", "/%2Fa%2fb%23%C3%a9/x?y=%zz&&=;?"),
        ("/app/!$&'()*+,;=:@|^", "/!$&'()*+,;=:@|^"),
        ("http://a.example/app/x%2Fy?z", "/x%2Fy?z"),
        ("/old/anything/at?all=%2e%2E", "/new?all=%2e%2E"),
        ("/old/./x%2fy", "/new"),
        ("/apps/x", "/apps/x"),
        ("/app", "/app"),
    ] {
        let answer = edge.get(target).await;
        assert_eq!((answer.status, answer.text()), (200, "hi"), "{target}");
        assert_eq!(upstream.last().line(), format!("GET {forwarded} HTTP/1.1"));
        assert_eq!(upstream.last().field("host").as_deref(), Some("a.example"));
    }
}

#[tokio::test]
async fn what_could_mean_another_path_is_refused() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let edge = Running::start(to(&upstream)).await;
    for target in [
        "/%61pp/x",
        "/x/../app/y",
        "/app/./x",
        "/app/../app/x",
        "/app/%2e%2E/app/x",
        "/app/x%2f..%2fy",
        "/app/..",
        "http://a.example/%61pp/x",
    ] {
        assert_eq!(edge.get(target).await.status, 400, "{target}");
    }
    assert!(upstream.received().is_empty());
}

#[tokio::test]
async fn http2_is_no_different() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let (config, certificate) = http2::with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut client = http2::h2(&edge, &certificate).await;
    for (target, forwarded) in [("/app/a%2Fb?x&&=%zz", "/a%2Fb?x&&=%zz"), ("/old/?x", "/new?x")] {
        assert_eq!(http2::get(&mut client, target).await, (StatusCode::OK, "hi".into()));
        assert_eq!(upstream.last().line(), format!("GET {forwarded} HTTP/1.1"));
        assert_eq!(upstream.last().field("host").as_deref(), Some("a.example:8448"));
    }
    assert_eq!(http2::get(&mut client, "/%61pp/x").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn bodies_and_websockets_go_along() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upstream = Upstream::start(move |request| match request.field("upgrade") {
        Some(_) => reply(switching),
        None => ok("done"),
    })
    .await;
    let edge = Running::start(to(&upstream)).await;
    let answer = edge.ask("POST /app/jwt HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    assert_eq!(answer.text(), "done");
    assert_eq!((upstream.last().line(), &*upstream.last().body), ("POST /jwt HTTP/1.1", &b"body"[..]));

    let mut client = edge.connect().await;
    let upgrade =
        "GET /app/ws?token=a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(upgrade).await;
    assert_eq!(client.answer().await.status, 101);
    client.send("both ways").await;
    let mut echoed = [0; 9];
    client.stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"both ways");
    assert_eq!(upstream.last().line(), "GET /ws?token=a HTTP/1.1");
}

#[tokio::test]
async fn a_proxy_header_stays_in_front() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let introduced = conf::Upstream {
        proxy_protocol: Some(ProxyVersion::V2),
        ..upstream_of("up", vec![upstream.server.clone()])
    };
    let edge = Running::start(rewriting(introduced)).await;
    let mut client = edge.connect().await;
    for path in ["x", "y"] {
        client.send(format!("GET /app/{path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.answer().await.text(), "hi");
        assert_eq!(upstream.last().line(), format!("GET /{path} HTTP/1.1"));
        assert!(upstream.last().preface.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    }
}

#[tokio::test]
async fn the_log_and_our_errors_speak_of_the_path_as_received() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let nobody = conf::Server::Tcp { host: "127.0.0.1".into(), port: 1, tls: false };
    let mut config = config(vec![upstream_of("up", vec![nobody])], |upstreams| {
        let forward = prefix("/_matrix/x/", Action::Upstream(upstreams[0].clone()));
        vec![Route { rewrite: Some(Rewrite::ReplacePath("/elsewhere".into())), ..forward }]
    });
    let file = AccessLogTarget::File(path.clone());
    config.access_log = Some(AccessLog { target: file, format: AccessLogFormat::Json });
    let edge = Running::start(config).await;
    let answer = edge.get("/_matrix/x/y?token=geheim").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().starts_with(r#"{"errcode":"#), "{}", answer.text());
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    edge.end().await;
    let line: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(line["path"], "/_matrix/x/y?token=<redacted>");
}
