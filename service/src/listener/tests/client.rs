//! Who the client is: socket, Unix socket, PROXY header, `X-Forwarded-For`; and who cannot change it.

use super::*;

const INFO: [Resource; 1] = [Resource::ConnectionInfo];

async fn client(running: &Running, lines: &str) -> String {
    let answer = running.get("/connection-info", lines).await;
    answer.json()["client"].as_str().expect("a client").to_owned()
}

#[tokio::test]
async fn a_trusted_proxy_says_who_asked() {
    let running = Running::start(tcp(&INFO)).await;
    for (lines, expected) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
        ("X-Forwarded-For: 198.51.100.9, 203.0.113.7\r\n", "203.0.113.7"),
        ("X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: 203.0.113.7, 127.0.0.2\r\n", "203.0.113.7"),
        ("X-Forwarded-For: 203.0.113.7, nonsense\r\n", "127.0.0.1"),
        ("X-Forwarded-For: [2001:db8::1]:443\r\n", "2001:db8::1"),
    ] {
        assert_eq!(client(&running, lines).await, expected, "{lines}");
    }
}

#[tokio::test]
async fn an_untrusted_peer_cannot_change_who_it_is() {
    let running = Running::trusting(&["192.0.2.0/24"], tcp(&INFO)).await;
    for lines in [
        "X-Forwarded-For: 203.0.113.7\r\n",
        "X_Forwarded_For: 203.0.113.7\r\n",
        "Forwarded: for=203.0.113.7\r\n",
        "X-Real-IP: 203.0.113.7\r\nClient-IP: 203.0.113.7\r\nX-Client: 203.0.113.7\r\n",
    ] {
        assert_eq!(client(&running, lines).await, "127.0.0.1", "{lines}");
    }
}

#[tokio::test]
async fn only_x_forwarded_for_is_read_even_of_a_trusted_proxy() {
    let running = Running::start(tcp(&INFO)).await;
    for lines in
        ["X_Forwarded_For: 203.0.113.7\r\n", "Forwarded: for=203.0.113.7\r\n", "X-Real-IP: 203.0.113.7\r\n"]
    {
        assert_eq!(client(&running, lines).await, "127.0.0.1", "{lines}");
    }
}

#[tokio::test]
async fn whoever_may_open_the_unix_socket_is_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = socket_of(&folder);
    let mut listener = tcp(&INFO);
    listener.binds = vec![Bind::Socket { path: path.clone(), mode: Some(0o600) }];
    let _running = Running::trusting(&[], listener).await;
    for (lines, expected) in [("", "unknown"), ("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7")] {
        let stream = UnixStream::connect(&path).await.expect("a connection");
        let info = ask(stream, "GET", "/connection-info", lines).await.json();
        assert_eq!(info["client"], expected);
        assert_eq!(info["peer"], "unix");
    }
}

fn proxied() -> AuthListener {
    AuthListener { proxy_protocol: true, ..tcp(&INFO) }
}

async fn after(running: &Running, header: &[u8], lines: &str) -> Value {
    let mut stream = running.connect().await;
    stream.write_all(header).await.expect("written");
    ask(stream, "GET", "/connection-info", lines).await.json()
}

#[tokio::test]
async fn both_versions_of_the_proxy_protocol_say_who_asked() {
    let running = Running::start(proxied()).await;
    let (source, destination): (SocketAddr, SocketAddr) =
        ("203.0.113.7:4711".parse().expect("an address"), "192.0.2.1:443".parse().expect("an address"));
    for (version, number) in [(conf::ProxyVersion::V1, 1), (conf::ProxyVersion::V2, 2)] {
        let header = accept::proxy_protocol::write(
            version,
            Some(source),
            Some(destination),
            &accept::proxy_protocol::Tlvs::default(),
        );
        let info = after(&running, &header, "X-Forwarded-For: 198.51.100.9\r\n").await;
        assert_eq!(info["client"], "203.0.113.7", "the forged field is not believed");
        assert_eq!(info["proxy_protocol"]["version"], number);
        assert_eq!(info["proxy_protocol"]["source"], "203.0.113.7:4711");
        assert_eq!(info["proxy_protocol"]["destination"], "192.0.2.1:443");
        assert!(info["peer"].as_str().expect("a peer").starts_with("127.0.0.1:"));
    }
}

#[tokio::test]
async fn a_proxy_header_without_an_address_falls_back_to_the_field() {
    let running = Running::start(proxied()).await;
    for version in [conf::ProxyVersion::V1, conf::ProxyVersion::V2] {
        let header =
            accept::proxy_protocol::write(version, None, None, &accept::proxy_protocol::Tlvs::default());
        let info = after(&running, &header, "X-Forwarded-For: 203.0.113.7\r\n").await;
        assert_eq!(info["client"], "203.0.113.7");
        assert_eq!(info["proxy_protocol"]["source"], Value::Null);
    }
}

#[tokio::test]
async fn without_the_demanded_proxy_header_there_is_no_answer() {
    let running = Running::start(proxied()).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /connection-info HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty());
}

#[tokio::test]
async fn a_proxy_header_of_a_stranger_is_not_believed() {
    let running = Running::trusting(&["192.0.2.0/24"], proxied()).await;
    let mut stream = running.connect().await;
    let _ = stream
        .write_all(
            b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\nGET /connection-info HTTP/1.1\r\nHost: x\r\n\r\n",
        )
        .await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty());
}
