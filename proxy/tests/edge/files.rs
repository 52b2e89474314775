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
