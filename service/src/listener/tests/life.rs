//! Bounds on requests, and how connections and the service end.

use super::*;

#[tokio::test]
async fn too_large_a_body_or_head_is_refused() {
    let running = Running::start(tcp(&[Resource::Health])).await;
    let answer =
        ask(running.connect().await, "POST", "/_matrix/client/v3/login", "Content-Length: 2000000\r\n").await;
    assert_eq!((answer.status, answer.json()["errcode"].as_str()), (413, Some("M_TOO_LARGE")));
    let answer = running.get("/health", &format!("X-Filler: {}\r\n", "x".repeat(40_000))).await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn http2_is_spoken_by_prior_knowledge() {
    let running = Running::start(tcp(&[Resource::Health])).await;
    let mut stream = running.connect().await;
    // Preface and an empty SETTINGS frame (RFC 9113 §3.4); the first frame that comes back has to be SETTINGS, type 4.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("written");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.expect("a frame");
    assert_eq!(frame[3], 4);
}

#[tokio::test]
async fn a_drain_lets_the_request_in_flight_finish_and_takes_no_new_connection() {
    let running = Running::start(tcp(&[Resource::Health])).await;
    let mut idle = running.connect().await;
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    let mut bytes = [0; 15];
    idle.read_exact(&mut bytes).await.expect("an answer");

    let address = running.address();
    running.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(5), running.served)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("served");
    assert!(TcpStream::connect(address).await.is_err(), "the socket is closed");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(1), idle.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "an idle connection is closed");
}

#[tokio::test]
async fn a_request_whose_body_is_still_coming_is_answered_during_the_drain() {
    let running = Running::start(tcp(&[Resource::Compat])).await;
    let mut stream = running.connect().await;
    let head = "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("written");
    // The head has arrived when the connection is counted as busy: one more connection has been answered since.
    running.get("/nowhere", "").await;
    running.stop.send_replace(true);
    stream.write_all(b"}").await.expect("written");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("an answer, then the end");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    running.served.await.expect("no panic").expect("served");
}

#[tokio::test]
async fn the_unix_socket_has_its_mode_and_goes_with_the_service() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = socket_of(&folder);
    let mut listener = tcp(&[Resource::Health]);
    listener.binds = vec![Bind::Socket { path: path.clone(), mode: Some(0o660) }];
    let running = Running::start(listener).await;
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(running.addresses[0].to_string(), format!("unix:{}", path.display()));
    running.stop.send_replace(true);
    running.served.await.expect("no panic").expect("served");
    assert!(!path.exists());
}
