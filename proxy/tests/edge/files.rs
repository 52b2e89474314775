//! Static files through the whole edge: what a client gets for them over a connection that it keeps.

use std::fs;

use conf::{Action, Encoding, StaticFiles};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::{Answer, Client, Running, config, prefix};

struct Served {
    edge: Running,
    large: Vec<u8>,
    _folder: TempDir,
}

async fn serve() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|index| index.to_le_bytes()[index as usize % 3]).collect();
    for (name, content) in [
        ("a.txt", &b"0123456789"[..]),
        ("app.js", b"plain"),
        ("app.js.br", b"brotli"),
        ("empty", b""),
        ("large", &large),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let files = StaticFiles {
        root: folder.path().to_owned(),
        strip_prefix: "/assets/".to_owned(),
        precompressed: vec![Encoding::Brotli, Encoding::Gzip],
        expires: None,
        index: None,
        fallback: None,
    };
    let edge = Running::start(config(vec![], |_| vec![prefix("/assets/", Action::Static(files))])).await;
    Served { edge, large, _folder: folder }
}

async fn ask(client: &mut Client<TcpStream>, method: &str, name: &str, fields: &str) -> Answer {
    client.send(format!("{method} /assets/{name} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).await;
    client.answer_to(method).await
}

#[tokio::test]
async fn every_kind_of_answer_keeps_the_connection() {
    let served = serve().await;
    let mut client = served.edge.connect().await;
    for _ in 0..3 {
        let whole = ask(&mut client, "GET", "a.txt", "").await;
        assert_eq!((whole.status, whole.text()), (200, "0123456789"));
        assert_eq!(whole.field("content-length"), Some("10"));
        assert_eq!(whole.field("cache-control"), Some("no-cache"));
        let etag = whole.field("etag").unwrap();

        let known = ask(&mut client, "GET", "a.txt", &format!("If-None-Match: {etag}\r\n")).await;
        assert_eq!((known.status, known.text(), known.field("etag")), (304, "", Some(etag)));

        let head = ask(&mut client, "HEAD", "a.txt", "").await;
        assert_eq!((head.status, head.field("content-length")), (200, Some("10")));

        let part = ask(&mut client, "GET", "a.txt", "Range: bytes=2-3\r\n").await;
        assert_eq!(
            (part.status, part.text(), part.field("content-range")),
            (206, "23", Some("bytes 2-3/10"))
        );

        let parts = ask(&mut client, "GET", "a.txt", "Range: bytes=0-0,-1\r\n").await;
        assert_eq!(parts.status, 206);
        assert!(parts.text().contains("bytes 0-0/10\r\n\r\n0\r\n--") && parts.text().ends_with("--\r\n"));

        let beyond = ask(&mut client, "GET", "a.txt", "Range: bytes=10-\r\n").await;
        assert_eq!((beyond.status, beyond.field("content-range")), (416, Some("bytes */10")));

        let compressed = ask(&mut client, "GET", "app.js", "Accept-Encoding: gzip, br\r\n").await;
        assert_eq!((compressed.text(), compressed.field("content-encoding")), ("brotli", Some("br")));

        let empty = ask(&mut client, "GET", "empty", "").await;
        assert_eq!((empty.status, empty.text(), empty.field("content-length")), (200, "", Some("0")));

        assert_eq!(ask(&mut client, "GET", "missing", "").await.status, 404);
        assert_eq!(ask(&mut client, "HEAD", "missing", "").await.status, 404);
        let refused = ask(&mut client, "DELETE", "a.txt", "").await;
        assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD")));

        let large = ask(&mut client, "GET", "large", "").await;
        assert!(large.body == served.large);
        let end = ask(&mut client, "GET", "large", "Range: bytes=100000-\r\n").await;
        assert!(end.body == served.large[100_000..]);
    }
}

#[tokio::test]
async fn an_upload_to_a_file_is_refused() {
    let served = serve().await;
    let mut client = served.edge.connect().await;
    client.send("PUT /assets/a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(client.answer().await.status, 405);
}

/// A single-page application with header fields of its own, at the root of a site.
async fn application() -> (Running, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    for (name, content) in [("index.html", "start"), ("app.js", "js"), ("sub/index.html", "sub")] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let files = StaticFiles {
        root: folder.path().to_owned(),
        strip_prefix: "/".to_owned(),
        precompressed: Vec::new(),
        expires: None,
        index: Some("index.html".to_owned()),
        fallback: Some("index.html".to_owned()),
    };
    let mut headers = http::HeaderMap::new();
    headers.insert("x-frame-options", "SAMEORIGIN".parse().unwrap());
    headers.insert("cache-control", "max-age=5".parse().unwrap());
    let with_headers = |route| conf::Route { headers: headers.clone(), ..route };
    let respond = conf::Respond {
        status: http::StatusCode::OK,
        headers: http::HeaderMap::from_iter([(http::header::CACHE_CONTROL, "no-store".parse().unwrap())]),
        body: "fixed".into(),
    };
    let moved = Action::Redirect { location: "/new".into(), status: http::StatusCode::FOUND };
    let edge = Running::start(config(vec![], |_| {
        vec![
            with_headers(prefix("/fixed", Action::Respond(respond))),
            with_headers(prefix("/moved", moved)),
            with_headers(prefix("/denied", Action::Deny(http::StatusCode::FORBIDDEN))),
            prefix("/plain", Action::Deny(http::StatusCode::FORBIDDEN)),
            conf::Route {
                max_body_size: Some(conf::ByteSize(1)),
                ..with_headers(prefix("/", Action::Static(files)))
            },
        ]
    }))
    .await;
    (edge, folder)
}

#[tokio::test]
async fn fields_of_a_route_are_on_every_answer_once() {
    let (edge, _folder) = application().await;
    let etag = edge.get("/app.js").await.field("etag").unwrap().to_owned();
    let ask = |method: &str, target: &str, fields: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
    };
    for (request, status) in [
        (ask("GET", "/app.js", ""), 200),
        (ask("GET", "/app.js", "Range: bytes=0-0\r\n"), 206),
        (ask("GET", "/app.js", "Range: bytes=9-\r\n"), 416),
        (ask("GET", "/app.js", &format!("If-None-Match: {etag}\r\n")), 304),
        (ask("GET", "/missing.js", ""), 404),
        (ask("POST", "/app.js", "Content-Length: 0\r\n"), 405),
        (ask("POST", "/app.js", "Content-Length: 9\r\n"), 413),
        (ask("GET", "/sub?a", ""), 308),
        (ask("GET", "/fixed", ""), 200),
        (ask("GET", "/moved", ""), 302),
        (ask("GET", "/denied", ""), 403),
    ] {
        let answer = edge.ask(&request).await;
        assert_eq!(answer.status, status, "{request}");
        for (name, value) in [("x-frame-options", "SAMEORIGIN"), ("cache-control", "max-age=5")] {
            let values: Vec<_> = answer
                .head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .filter(|(field, _)| field.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim())
                .collect();
            assert_eq!(values, [value], "{request}{}", answer.head);
        }
    }
    assert_eq!(edge.get("/plain").await.field("x-frame-options"), None);
}

#[tokio::test]
async fn an_application_has_an_index_and_a_fallback() {
    let (edge, _folder) = application().await;
    let mut client = edge.connect().await;
    for (target, status, text) in [
        ("/", 200, "start"),
        ("/room/%23a%2Fb:example.com", 200, "start"),
        ("/sub/", 200, "sub"),
        ("/sub", 308, ""),
        ("/app.js", 200, "js"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (status, text), "{target}");
    }
    assert_eq!(edge.get("/sub?a=%20b").await.field("location"), Some("/sub/?a=%20b"));
    assert_eq!(edge.get("/x/../sub").await.field("location"), Some("/sub/"));
    for target in ["/old.js", "/.env"] {
        assert_eq!(edge.get(target).await.status, 404, "{target}");
    }
}
