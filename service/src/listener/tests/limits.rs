//! Every limit and deadline of a connection over HTTP/1 bites, is counted under its key, and leaves honest clients alone.

use conf::{ByteSize, HttpLimits, HttpTimeouts};

use super::*;
use crate::reload::tests::{Client, PATIENCE, Running, login_of, posting, web};

/// What tests wait for.
pub(super) const SHORT: Duration = Duration::from_secs(1);
/// Long enough to be no answer.
const NEVER: Duration = Duration::from_secs(3600);
pub(super) const LOGIN: &str = "/_matrix/client/v3/login";

/// A service with these limits, where nobody is a trusted proxy, and a large file below `/assets/`.
pub(super) async fn start(
    change: impl FnOnce(&mut HttpLimits, &mut HttpTimeouts),
) -> (Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    // Nothing that could be made smaller.
    let mut noise = vec![0_u8; LARGE];
    let mut state = 1_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    std::fs::write(folder.path().join("large.bin"), noise).expect("a file");
    let path = folder.path().to_owned();
    let running = Running::with(|config| {
        let mut listener = web();
        listener.resources.push(Resource::Assets { path: Some(path) });
        config.http.listeners = vec![listener];
        config.http.trusted_proxies.clear();
        change(&mut config.http.limits, &mut config.http.timeouts);
    })
    .await;
    (running, folder)
}

pub(super) const LARGE: usize = 12 << 20;

/// How often a limit has bitten so far.
pub(super) async fn hits(running: &Running, key: &str) -> u64 {
    let text = running.connect().await.get("/metrics").await.body;
    let name = format!("gatehouse_auth_limit_hits_total{{limit=\"{key}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Waits until it has bitten so often; the connection's own end may be seen before it is counted.
pub(super) async fn has_bitten(running: &Running, key: &str, times: u64) {
    let counted = async {
        while hits(running, key).await < times {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{key} is not counted"));
    assert_eq!(hits(running, key).await, times, "{key}");
}

/// Sends a piece every now and then, until it cannot.
async fn drip(client: &mut Client, piece: &str) {
    let stream = client.0.get_mut();
    let dripping = async {
        while stream.write_all(piece.as_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dripping).await.expect("it is closed");
}

#[tokio::test]
async fn a_byte_of_a_head_now_and_then_does_not_hold_a_connection() {
    let (running, _folder) = start(|_, timeouts| timeouts.header = SHORT).await;
    let mut first = running.connect().await;
    drip(&mut first, "G").await;
    has_bitten(&running, "timeouts.header", 1).await;

    let mut reused = running.connect().await;
    assert_eq!(reused.get("/health").await.status, 200);
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(reused.get("/health").await.status, 200, "being idle is something else");
    reused.write("GET /health HTTP/1.1\r\nX-A: ").await;
    drip(&mut reused, "a").await;
    has_bitten(&running, "timeouts.header", 2).await;

    running.connect().await.closes().await;
    has_bitten(&running, "timeouts.header", 3).await;
    running.end().await;
}

#[tokio::test]
async fn a_body_that_stops_is_408_and_so_is_one_that_trickles() {
    let (running, _folder) = start(|_, timeouts| timeouts.body = SHORT).await;
    let request = posting(LOGIN, "", &login_of("alice"));
    let mut silent = running.connect().await;
    silent.write(&request[..request.len() - 5]).await;
    let answer = silent.answer().await;
    assert_eq!((answer.status, answer.json()["errcode"].as_str()), (408, Some("M_UNKNOWN")));
    silent.closes().await;
    has_bitten(&running, "timeouts.body", 1).await;

    let mut trickling = running.connect().await;
    trickling.write(&format!("POST {LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")).await;
    drip(&mut trickling, " ").await;
    has_bitten(&running, "limits.min_body_rate", 1).await;

    // Slower than the deadline in all, and never slower than the rate.
    let mut honest = running.connect().await;
    let spaces = " ".repeat(200);
    let body = format!("{}{}", spaces.repeat(20), login_of("alice"));
    honest.write(&posting(LOGIN, "", &body)[..body.find('{').unwrap_or(0) / 20]).await;
    let sent = body.find('{').unwrap_or(0) / 20;
    for piece in posting(LOGIN, "", &body).as_bytes()[sent..].chunks(200) {
        honest.0.get_mut().write_all(piece).await.expect("written");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(honest.answer().await.status, 200);
    running.end().await;
}

#[tokio::test]
async fn a_request_has_a_deadline_as_a_whole() {
    let (running, _folder) = start(|limits, timeouts| {
        (timeouts.body, timeouts.request) = (NEVER, SHORT);
        limits.min_body_rate = ByteSize(0);
    })
    .await;
    let mut client = running.connect().await;
    client.write(&format!("POST {LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")).await;
    drip(&mut client, " ").await;
    has_bitten(&running, "timeouts.request", 1).await;
    running.end().await;
}

#[tokio::test]
async fn who_does_not_take_an_answer_is_given_up() {
    let (running, _folder) = start(|_, timeouts| timeouts.send = SHORT).await;
    let ask = "GET /assets/large.bin HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut silent = running.connect().await;
    silent.write(ask).await;
    has_bitten(&running, "timeouts.send", 1).await;
    let mut taken = Vec::new();
    let _ = silent.0.read_to_end(&mut taken).await;
    assert!(taken.len() < LARGE, "{} bytes of it were on the way", taken.len());

    let mut honest = running.connect().await;
    assert_eq!(honest.get("/assets/large.bin").await.status, 200);
    running.end().await;
}

#[tokio::test]
async fn who_takes_an_answer_in_crumbs_is_given_up_too() {
    let (running, _folder) = start(|limits, timeouts| {
        timeouts.send = SHORT * 2;
        limits.min_send_rate = ByteSize(1 << 20);
    })
    .await;
    let mut slow = running.connect().await;
    slow.write("GET /assets/large.bin HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let crumbs = async {
        let mut crumb = vec![0; 32 << 10];
        // A quarter of the rate, in pieces that make room in the system's buffers.
        while slow.0.get_mut().read(&mut crumb).await.is_ok_and(|read| read > 0) {
            tokio::time::sleep(Duration::from_millis(125)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 4, crumbs).await.expect("it is closed");
    let both = hits(&running, "limits.min_send_rate").await + hits(&running, "timeouts.send").await;
    assert_eq!(both, 1);
    running.end().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (running, _folder) = start(|_, timeouts| timeouts.idle = SHORT).await;
    let mut client = running.connect().await;
    assert_eq!(client.get("/health").await.status, 200);
    client.closes().await;
    has_bitten(&running, "timeouts.idle", 1).await;
    running.end().await;
}

#[tokio::test]
async fn too_many_connections_are_closed_and_those_in_service_go_on() {
    let (running, _folder) = start(|limits, _| limits.max_connections = 2).await;
    let mut first = running.connect().await;
    let mut second = running.connect().await;
    assert_eq!((first.get("/health").await.status, second.get("/health").await.status), (200, 200));
    running.connect().await.closes().await;
    let text = first.get("/metrics").await.body;
    assert!(text.contains("gatehouse_auth_limit_hits_total{limit=\"limits.max_connections\"} 1\n"), "{text}");
    drop(second);
    let again = async {
        while Client::try_get(running.address(), "/health").await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("there is room again");
    running.end().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_unless_it_is_a_proxy() {
    let (running, _folder) = start(|limits, _| limits.max_connections_per_ip = 1).await;
    let mut first = running.connect().await;
    assert_eq!(first.get("/health").await.status, 200);
    running.connect().await.closes().await;
    let text = first.get("/metrics").await.body;
    let counted = "gatehouse_auth_limit_hits_total{limit=\"limits.max_connections_per_ip\"} 1\n";
    assert!(text.contains(counted), "{text}");
    let proxy = || vec!["127.0.0.0/8".parse().expect("a network")];
    running.reload(|config| config.http.trusted_proxies = proxy()).await.expect("a reload");
    for _ in 0..3 {
        assert_eq!(running.connect().await.get("/health").await.status, 200);
    }
    running.end().await;
}

#[tokio::test]
async fn a_head_of_too_many_bytes_or_fields_is_431() {
    let (running, _folder) = start(|limits, _| {
        limits.max_header_size = ByteSize(8 << 10);
        limits.max_header_count = 16;
    })
    .await;
    let ask = |fields: &str| format!("GET /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let status = async |fields: &str| {
        let mut client = running.connect().await;
        client.write(&ask(fields)).await;
        client.answer().await.status
    };
    assert_eq!(status(&"X-A: a\r\n".repeat(15)).await, 200);
    assert_eq!(status(&"X-A: a\r\n".repeat(16)).await, 431);
    has_bitten(&running, "limits.max_header_count", 1).await;
    assert_eq!(status(&format!("X-A: {}\r\n", "a".repeat(7000))).await, 200);
    assert_eq!(status(&format!("X-A: {}\r\n", "a".repeat(9000))).await, 431);
    has_bitten(&running, "limits.max_header_size", 1).await;
    running.end().await;
}

#[tokio::test]
async fn a_client_that_is_still_sending_gets_its_413() {
    let (running, _folder) = start(|limits, _| limits.max_body_size = ByteSize(64 << 10)).await;
    for chunked in [false, true] {
        let mut client = running.connect().await;
        let length = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {LARGE}")
        };
        client.write(&format!("POST {LOGIN} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n")).await;
        let piece = format!("{:x}\r\n{}\r\n", 50_000, "a".repeat(50_000));
        for _ in 0..60 {
            let piece = if chunked { piece.as_str() } else { &piece[6..50_006] };
            client.0.get_mut().write_all(piece.as_bytes()).await.expect("it is listened to");
        }
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.json()["errcode"].as_str()), (413, Some("M_TOO_LARGE")));
    }
    has_bitten(&running, "limits.max_body_size", 2).await;
    running.end().await;
}

#[tokio::test]
async fn the_last_request_of_a_connection_is_told_so() {
    let (running, _folder) = start(|limits, _| limits.max_requests_per_connection = 3).await;
    let mut client = running.connect().await;
    for last in [false, false, true] {
        let answer = client.get("/health").await;
        assert_eq!((answer.status, answer.says_close()), (200, last));
    }
    client.closes().await;
    has_bitten(&running, "limits.max_requests_per_connection", 1).await;
    running.end().await;
}

#[tokio::test]
async fn a_proxy_header_has_a_deadline() {
    let (running, _folder) = start(|_, timeouts| timeouts.proxy_header = SHORT).await;
    let loopback = || vec!["127.0.0.0/8".parse().expect("a network")];
    let mut silent = running.connect().await;
    silent.get("/health").await;
    let reload = running.reload(|config| {
        config.http.listeners[0].proxy_protocol = true;
        config.http.trusted_proxies = loopback();
    });
    reload.await.expect("a reload");
    let mut silent = running.connect().await;
    silent.write("PROXY TCP4").await;
    silent.closes().await;
    running.reload(|config| config.http.listeners[0].proxy_protocol = false).await.expect("a reload");
    has_bitten(&running, "timeouts.proxy_header", 1).await;
    running.end().await;
}
