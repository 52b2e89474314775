//! Whole answers from a real folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use conf::Encoding;
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE};
use tempfile::TempDir;

use super::*;

/// `<folder>/assets` is the root; what lies beside it must never be seen.
struct Folder {
    folder: TempDir,
    files: StaticFiles,
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn field(&self, name: HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("printable"))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// Tells a thread to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `asking` while `disturbing` is called again and again on another thread.
fn meanwhile(mut disturbing: impl FnMut() + Send, asking: impl Future<Output = ()>) {
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stopped);
        scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                disturbing();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(asking);
    });
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("assets");
        fs::create_dir(&root).expect("a new folder");
        let files = StaticFiles {
            root,
            strip_prefix: "/assets/".to_owned(),
            precompressed: vec![Encoding::Brotli, Encoding::Zstd, Encoding::Gzip],
            expires: Some(YEAR),
            index: None,
            fallback: None,
        };
        let this = Self { folder, files };
        fs::write(this.folder.path().join("secret"), "secret").expect("room");
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.root.join(name)
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::create_dir_all(self.path(name).parent().expect("below the root")).expect("folders");
        fs::write(self.path(name), content).expect("room");
        self
    }

    async fn ask(&self, method: Method, path: &str, fields: &[(HeaderName, &str)]) -> Answered {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).expect("a field value"));
        }
        let (normal_path, query) =
            path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let request = FileRequest { method: &method, normal_path, query, headers: &headers };
        let mut answer = answer(&self.files, request).await;
        let mut body = Vec::new();
        while let Some(chunk) = answer.body.next_chunk().await.expect("readable") {
            body.extend_from_slice(&chunk);
        }
        if method == Method::GET && answer.status.is_success() {
            assert_eq!(answer.headers[CONTENT_LENGTH], body.len().to_string());
        }
        Answered { status: answer.status.as_u16(), headers: answer.headers, body }
    }

    async fn get(&self, path: &str, fields: &[(HeaderName, &str)]) -> Answered {
        self.ask(Method::GET, path, fields).await
    }

    async fn status(&self, path: &str) -> u16 {
        self.get(path, &[]).await.status
    }
}

#[tokio::test]
async fn a_file_comes_with_all_its_fields() {
    let folder = Folder::new().with("js/app.js", "let x;");
    let answer = folder.get("/assets/js/app.js", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "let x;"));
    assert_eq!(answer.field(CONTENT_TYPE), "text/javascript; charset=utf-8");
    assert_eq!(answer.field(CONTENT_LENGTH), "6");
    assert_eq!(answer.field(CACHE_CONTROL), "public, max-age=31536000, immutable");
    assert_eq!(answer.field(VARY), "accept-encoding");
    assert_eq!(answer.field(ACCEPT_RANGES), "bytes");
    assert_eq!(answer.field(CONTENT_ENCODING), "");
    assert!(answer.field(ETAG).starts_with('"'));
    assert!(httpdate::parse_http_date(answer.field(LAST_MODIFIED)).is_ok());
}

#[tokio::test]
async fn caching_follows_expires() {
    let mut folder = Folder::new().with("a.txt", "a");
    for (days, expected) in [
        (None, "no-cache"),
        (Some(0), "public, max-age=0"),
        (Some(364), "public, max-age=31449600"),
        (Some(365), "public, max-age=31536000, immutable"),
    ] {
        folder.files.expires = days.map(|days| Duration::from_secs(days * 86_400));
        assert_eq!(folder.get("/assets/a.txt", &[]).await.field(CACHE_CONTROL), expected);
    }
}

#[tokio::test]
async fn the_best_accepted_representation_is_served() {
    let folder = Folder::new().with("a.css", "plain").with("a.css.br", "brotli").with("a.css.gz", "gzip");
    let check = async |accept: &str, body: &str, encoding: &str| {
        let answer = folder.get("/assets/a.css", &[(ACCEPT_ENCODING, accept)]).await;
        assert_eq!(
            (answer.status, answer.text(), answer.field(CONTENT_ENCODING)),
            (200, body, encoding),
            "{accept}"
        );
        assert_eq!(answer.field(CONTENT_TYPE), "text/css; charset=utf-8");
        assert_eq!(answer.field(VARY), "accept-encoding");
        answer.field(ETAG).to_owned()
    };
    let brotli = check("gzip, br, zstd", "brotli", "br").await;
    let gzip = check("gzip, zstd", "gzip", "gzip").await;
    let plain = check("zstd", "plain", "").await;
    check("br;q=0.1, gzip", "gzip", "gzip").await;
    check("br;q=0, gzip;q=0", "plain", "").await;
    assert!(brotli != gzip && gzip != plain && plain != brotli);
}

#[tokio::test]
async fn without_the_setting_nothing_compressed_is_served() {
    let mut folder = Folder::new().with("a.css", "plain").with("a.css.br", "brotli");
    folder.files.precompressed.clear();
    let answer = folder.get("/assets/a.css", &[(ACCEPT_ENCODING, "br")]).await;
    assert_eq!((answer.text(), answer.field(VARY)), ("plain", ""));
}

#[tokio::test]
async fn a_client_that_refuses_the_file_itself_gets_406() {
    let folder = Folder::new().with("a.css", "plain").with("b.css", "plain").with("b.css.gz", "gzip");
    let fields = [(ACCEPT_ENCODING, "gzip, identity;q=0")];
    assert_eq!(folder.get("/assets/a.css", &fields).await.status, 406);
    assert_eq!(folder.get("/assets/b.css", &fields).await.text(), "gzip");
    assert_eq!(folder.get("/assets/c.css", &fields).await.status, 404);
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let folder = Folder::new().with("a.css", "plain").with("a.css.br", "brotli");
    let first = folder.get("/assets/a.css", &[]).await;
    let known = folder.get("/assets/a.css", &[(IF_NONE_MATCH, first.field(ETAG))]).await;
    assert_eq!((known.status, known.text()), (304, ""));
    for name in [ETAG, LAST_MODIFIED, CACHE_CONTROL, VARY] {
        assert_eq!(known.field(name.clone()), first.field(name));
    }
    assert_eq!(known.field(CONTENT_LENGTH), "");
    let dated = folder.get("/assets/a.css", &[(IF_MODIFIED_SINCE, first.field(LAST_MODIFIED))]).await;
    assert_eq!(dated.status, 304);
    let other =
        folder.get("/assets/a.css", &[(IF_NONE_MATCH, first.field(ETAG)), (ACCEPT_ENCODING, "br")]).await;
    assert_eq!((other.status, other.text()), (200, "brotli"));
    let failed = folder.get("/assets/a.css", &[(IF_MATCH, "\"x\"")]).await;
    assert_eq!((failed.status, failed.field(CACHE_CONTROL)), (412, ""));
}

#[tokio::test]
async fn ranges_of_a_file() {
    let folder = Folder::new().with("a.bin", "0123456789");
    let check = async |range: &str, status: u16, body: &str, place: &str| {
        let answer = folder.get("/assets/a.bin", &[(RANGE, range)]).await;
        assert_eq!(
            (answer.status, answer.text(), answer.field(CONTENT_RANGE)),
            (status, body, place),
            "{range}"
        );
    };
    check("bytes=2-4", 206, "234", "bytes 2-4/10").await;
    check("bytes=7-", 206, "789", "bytes 7-9/10").await;
    check("bytes=-1", 206, "9", "bytes 9-9/10").await;
    check("bytes=10-", 416, "", "bytes */10").await;
    check("lines=1-2", 200, "0123456789", "").await;
}

#[tokio::test]
async fn several_ranges_come_as_multipart() {
    let folder = Folder::new().with("a.txt", "0123456789");
    let answer = folder.get("/assets/a.txt", &[(RANGE, "bytes=0-1,5-6")]).await;
    assert_eq!(answer.status, 206);
    assert_eq!(answer.field(CONTENT_RANGE), "");
    let boundary =
        answer.field(CONTENT_TYPE).strip_prefix("multipart/byteranges; boundary=").expect("a boundary");
    let expected = format!(
        "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
         \r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 5-6/10\r\n\r\n56\
         \r\n--{boundary}--\r\n"
    );
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn ranges_of_a_compressed_file_are_of_its_compressed_bytes() {
    let folder = Folder::new().with("a.txt", "0123456789").with("a.txt.gz", "compressed");
    let fields = |range| [(RANGE, range), (ACCEPT_ENCODING, "gzip")];
    let answer = folder.get("/assets/a.txt", &fields("bytes=0-3")).await;
    assert_eq!((answer.status, answer.text(), answer.field(CONTENT_ENCODING)), (206, "comp", "gzip"));
    let answer = folder.get("/assets/a.txt", &fields("bytes=0-1,3-4")).await;
    assert_eq!((answer.status, answer.text()), (200, "compressed"));
}

#[tokio::test]
async fn if_range_guards_a_range() {
    let folder = Folder::new().with("a.txt", "0123456789");
    let etag = folder.get("/assets/a.txt", &[]).await.field(ETAG).to_owned();
    let range = (RANGE, "bytes=0-3");
    assert_eq!(folder.get("/assets/a.txt", &[range.clone(), (IF_RANGE, &etag)]).await.status, 206);
    assert_eq!(folder.get("/assets/a.txt", &[range.clone(), (IF_RANGE, "\"old\"")]).await.status, 200);
    let unsatisfiable = (RANGE, "bytes=50-");
    assert_eq!(folder.get("/assets/a.txt", &[unsatisfiable, (IF_RANGE, "\"old\"")]).await.status, 200);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let folder = Folder::new().with("a.txt", "0123456789");
    let get = folder.get("/assets/a.txt", &[]).await;
    let head = folder.ask(Method::HEAD, "/assets/a.txt", &[(RANGE, "bytes=0-3")]).await;
    assert_eq!((head.status, head.text()), (200, ""));
    assert_eq!(head.headers, get.headers);
}

#[tokio::test]
async fn other_methods_are_refused() {
    let folder = Folder::new().with("a.txt", "a");
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = folder.ask(method, "/assets/a.txt", &[]).await;
        assert_eq!((answer.status, answer.field(ALLOW)), (405, "GET, HEAD"));
    }
}

#[tokio::test]
async fn large_and_empty_files_arrive_whole() {
    let content: Vec<u8> =
        (0..1_000_003_u32).map(|index| u8::try_from(index % 253).expect("small")).collect();
    let folder = Folder::new().with("large.bin", &content).with("empty.txt", "");
    let answer = folder.get("/assets/large.bin", &[]).await;
    assert!(answer.body == content);
    let answer = folder.get("/assets/large.bin", &[(RANGE, "bytes=100-900000")]).await;
    assert!(answer.body == content[100..=900_000]);
    assert_eq!(folder.status("/assets/empty.txt").await, 200);
}

#[tokio::test]
async fn a_large_file_is_streamed_and_a_small_one_is_not() {
    let folder = Folder::new().with("large", vec![0; 64 * 1024 + 1]).with("small", vec![0; 64 * 1024]);
    let headers = HeaderMap::new();
    let body = async |normal_path| {
        let request = FileRequest { method: &Method::GET, normal_path, query: None, headers: &headers };
        answer(&folder.files, request).await.body
    };
    assert!(matches!(body("/assets/large").await, FileBody::File(_)));
    assert!(matches!(body("/assets/small").await, FileBody::Bytes(_)));
}

#[tokio::test]
async fn links_may_not_leave_the_root() {
    let folder = Folder::new().with("real.txt", "real").with("folder/real.txt", "real");
    let link = |target: &str, name: &str| symlink(target, folder.path(name)).expect("a link");
    link("real.txt", "relative");
    link("folder/../real.txt", "detour");
    link(folder.path("real.txt").to_str().expect("text"), "absolute");
    link("folder", "linked_folder");
    link(folder.path("folder").to_str().expect("text"), "absolute_folder");
    link("../secret", "out");
    link(folder.folder.path().join("secret").to_str().expect("text"), "absolute_out");
    link("..", "parent");
    link("/etc/passwd", "passwd");
    link("/proc/self/root", "magic");
    link("loop", "loop");
    link("missing", "dangling");
    for path in [
        "relative",
        "detour",
        "absolute",
        "linked_folder/real.txt",
        "absolute_folder/real.txt",
        "parent/assets/real.txt",
    ] {
        assert_eq!(folder.get(&format!("/assets/{path}"), &[]).await.text(), "real", "{path}");
    }
    for path in ["out", "absolute_out", "parent/secret", "passwd", "magic/etc/passwd", "loop", "dangling"] {
        assert_eq!(folder.status(&format!("/assets/{path}")).await, 404, "{path}");
    }
}

#[tokio::test]
async fn a_compressed_sibling_may_not_leave_the_root_either() {
    let folder = Folder::new().with("a.css", "plain");
    symlink("../secret", folder.path("a.css.br")).expect("a link");
    let answer = folder.get("/assets/a.css", &[(ACCEPT_ENCODING, "br")]).await;
    assert_eq!((answer.status, answer.text()), (200, "plain"));
}

#[tokio::test]
async fn only_regular_files_are_served() {
    let folder = Folder::new().with("folder/a.txt", "a").with(".hidden", "h").with("folder/.git/config", "c");
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("socket")).expect("a socket");
    let flags = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, folder.path("fifo"), rustix::fs::FileType::Fifo, flags, 0)
        .expect("a pipe");
    for path in [
        "folder",
        "folder/",
        "",
        "socket",
        "fifo",
        ".hidden",
        "folder/.git/config",
        "missing",
        "folder/a.txt/b",
        "folder//a.txt",
    ] {
        assert_eq!(folder.status(&format!("/assets/{path}")).await, 404, "{path}");
    }
    let long = "x".repeat(5000);
    assert_eq!(folder.status(&format!("/assets/{long}")).await, 404);
}

#[test]
fn a_pipe_is_not_even_opened() {
    let folder = Folder::new();
    let pipe = folder.path("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    meanwhile(
        || {
            // Opening a pipe for writing without waiting succeeds only while somebody has it open for reading.
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
            assert!(rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()).is_err());
        },
        async {
            for _ in 0..2000 {
                assert_eq!(folder.status("/assets/fifo").await, 404);
            }
        },
    );
}

#[tokio::test]
async fn a_missing_root_is_our_fault() {
    let folder = Folder::new();
    fs::remove_dir(&folder.files.root).expect("empty");
    assert_eq!(folder.status("/assets/a.txt").await, 500);
}

#[tokio::test]
async fn the_root_may_be_a_link_that_changes() {
    let mut folder = Folder::new();
    let at = |name: &str| folder.folder.path().join(name);
    for release in ["one", "two"] {
        fs::create_dir(at(release)).expect("a new folder");
        fs::write(at(release).join("a.txt"), release).expect("room");
    }
    symlink("one", at("current")).expect("a link");
    symlink("two", at("next")).expect("a link");
    folder.files.root = at("current");
    assert_eq!(folder.get("/assets/a.txt", &[]).await.text(), "one");
    fs::rename(folder.folder.path().join("next"), folder.folder.path().join("current")).expect("replaced");
    assert_eq!(folder.get("/assets/a.txt", &[]).await.text(), "two");
}

#[test]
fn fields_and_body_belong_to_one_file_while_it_is_replaced() {
    let folder = Folder::new().with("a", "x");
    let next = folder.folder.path().join("next");
    let versions: [&[u8]; 3] = [&[b'1'; 100], &[b'2'; 100], &[b'3'; 70_000]];
    meanwhile(
        || {
            for version in versions {
                fs::write(&next, version).expect("room");
                fs::rename(&next, folder.path("a")).expect("replaced");
            }
        },
        async {
            let mut seen = std::collections::HashMap::new();
            for _ in 0..3000 {
                let answer = folder.get("/assets/a", &[]).await;
                let first = answer.body.first().copied();
                assert!(answer.body.iter().all(|byte| Some(*byte) == first), "a mixture");
                let tag = answer.field(ETAG).to_owned();
                assert_eq!(*seen.entry(tag).or_insert(first), first, "one tag, two contents");
            }
        },
    );
}

#[test]
fn a_folder_that_becomes_a_link_out_of_the_root_shows_nothing() {
    let folder = Folder::new().with("folder/secret", "public");
    symlink("..", folder.path("trap")).expect("a link");
    meanwhile(
        || {
            let (one, other) = (folder.path("folder"), folder.path("trap"));
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags)
                .expect("exchanged");
        },
        async {
            for _ in 0..3000 {
                let answer = folder.get("/assets/folder/secret", &[]).await;
                assert!(matches!((answer.status, answer.text()), (200, "public") | (404 | 503, "")));
            }
        },
    );
}

#[tokio::test]
async fn an_unusual_name_is_found() {
    let folder = Folder::new().with("a b é%.txt", "a");
    assert_eq!(folder.status("/assets/a%20b%20%C3%A9%25.txt").await, 200);
}

impl Folder {
    fn with_index(mut self) -> Self {
        self.files.index = Some("index.html".to_owned());
        self
    }

    fn with_fallback(mut self) -> Self {
        self.files.fallback = Some("index.html".to_owned());
        self
    }
}

#[tokio::test]
async fn a_folder_is_answered_with_its_index() {
    let folder = Folder::new()
        .with("index.html", "root")
        .with("index.html.br", "brotli")
        .with("a b/index.html", "inner")
        .with("bare/x.txt", "x")
        .with_index();
    let root = folder.get("/assets/", &[]).await;
    assert_eq!((root.status, root.text()), (200, "root"));
    assert_eq!(root.field(CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(folder.get("/assets/", &[(ACCEPT_ENCODING, "br")]).await.text(), "brotli");
    let known = folder.get("/assets/", &[(IF_NONE_MATCH, root.field(ETAG))]).await;
    assert_eq!(known.status, 304);
    assert_eq!(folder.get("/assets/a%20b/", &[]).await.text(), "inner");
    for missing in
        ["/assets/bare/", "/assets/bare", "/assets/none", "/assets/none/", "/assets//", "/assets/a%20b//"]
    {
        assert_eq!(folder.status(missing).await, 404, "{missing}");
    }
    let without = Folder::new().with("index.html", "root");
    assert_eq!(without.status("/assets/").await, 404);
}

#[tokio::test]
async fn a_folder_without_slash_is_redirected_to_the_one_with_it() {
    let folder = Folder::new()
        .with("a b/index.html", "inner")
        .with("c", "file")
        .with("evil.example/index.html", "x")
        .with_index();
    for (path, location) in [
        ("/assets/a%20b", "/assets/a%20b/"),
        ("/assets/a%20b?x=/y&%zz", "/assets/a%20b/?x=/y&%zz"),
        ("/assets/a%20b?", "/assets/a%20b/?"),
    ] {
        let moved = folder.get(path, &[]).await;
        assert_eq!((moved.status, moved.field(LOCATION), moved.field(CONTENT_LENGTH)), (308, location, "0"));
        assert_eq!(folder.ask(Method::HEAD, path, &[]).await.status, 308);
    }
    assert_eq!(folder.ask(Method::POST, "/assets/a%20b", &[]).await.status, 405);
    // No other host may come out of it, whatever stands at the root.
    let mut root = folder;
    root.files.strip_prefix = "/".to_owned();
    assert_eq!(root.get("/evil.example", &[]).await.field(LOCATION), "/evil.example/");
    for path in
        ["//evil.example", "/%2Fevil.example", "/\\evil.example", "/%5Cevil.example", "/.//evil.example"]
    {
        assert_eq!(root.status(path).await, 404, "{path}");
    }
}

#[tokio::test]
async fn pages_without_a_file_get_the_fallback() {
    let folder = Folder::new()
        .with("index.html", "start")
        .with("app.js", "js")
        .with("real/index.html", "real")
        .with_fallback();
    for page in
        ["/assets/", "/assets/room/%23a%2Fb", "/assets/login/matrix.org/", "/assets/real", "/assets/real/"]
    {
        let answer = folder.get(page, &[]).await;
        assert_eq!((answer.status, answer.text()), (200, "start"), "{page}");
        assert_eq!(answer.field(CACHE_CONTROL), "no-cache", "whatever the route says");
        assert_eq!(answer.field(CONTENT_TYPE), "text/html; charset=utf-8");
    }
    let etag = folder.get("/assets/x", &[]).await.field(ETAG).to_owned();
    assert_eq!(folder.get("/assets/y", &[(IF_NONE_MATCH, &etag)]).await.status, 304);
    assert_eq!(folder.get("/assets/app.js", &[]).await.text(), "js");
    for missing in
        ["/assets/old.js", "/assets/x/logo.png", "/assets/.env", "/assets/.git/config", "/assets/..%2Fsecret"]
    {
        assert_eq!(folder.status(missing).await, 404, "{missing}");
    }
    assert_eq!(folder.ask(Method::POST, "/assets/x", &[]).await.status, 405);
    let with_both = folder.with_index();
    assert_eq!(with_both.get("/assets/real/", &[]).await.text(), "real");
    assert_eq!(with_both.status("/assets/real").await, 308);
    fs::remove_file(with_both.path("index.html")).expect("ours");
    assert_eq!(with_both.status("/assets/x").await, 404, "no fall-back, no page");
}

#[tokio::test]
async fn an_index_and_a_fallback_are_contained_too() {
    let folder = Folder::new().with("sub/x", "x").with_index().with_fallback();
    symlink(folder.folder.path().join("secret"), folder.path("index.html")).expect("a link");
    symlink(folder.folder.path().join("secret"), folder.path("sub/index.html")).expect("a link");
    for path in ["/assets/", "/assets/sub/", "/assets/sub", "/assets/page"] {
        assert_eq!(folder.status(path).await, 404, "{path}");
    }
}
