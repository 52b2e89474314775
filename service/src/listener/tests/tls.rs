//! TLS on a listener, alone and behind a PROXY header.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncRead;

use super::*;

/// A certificate for `localhost`, and it as a client takes it for its root.
fn certificate() -> (conf::Certificate, reqwest::Certificate) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let signing = aws_lc_rs::sign::any_supported_type(&key).expect("a key");
    let root = reqwest::Certificate::from_der(made.cert.der()).expect("a root");
    let certificate = conf::Certificate {
        key: Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], signing)),
        names: vec!["localhost".into()],
        certificate_file: None,
        key_file: None,
    };
    (certificate, root)
}

fn client(root: reqwest::Certificate, address: SocketAddr) -> reqwest::Client {
    reqwest::Client::builder().tls_certs_only([root]).resolve("localhost", address).build().expect("a client")
}

#[tokio::test]
async fn a_listener_speaks_tls_and_says_what_was_agreed_on() {
    let (certificate, root) = certificate();
    let listener = AuthListener { tls: Some(certificate), ..tcp(&[Resource::ConnectionInfo]) };
    let running = Running::start(listener).await;
    let url = format!("https://localhost:{}/connection-info", running.address().port());
    let answer = client(root, running.address()).get(url).send().await.expect("an answer");
    let info: Value = answer.json().await.expect("JSON");
    assert_eq!(info["tls"]["version"], "1.3");
    assert_eq!(info["tls"]["server_name"], "localhost");
    assert!(info["tls"]["cipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS_")));
    assert_eq!(info["client"], "127.0.0.1");
}

#[tokio::test]
async fn the_proxy_header_comes_before_tls() {
    let (certificate, root) = certificate();
    let listener =
        AuthListener { tls: Some(certificate), proxy_protocol: true, ..tcp(&[Resource::ConnectionInfo]) };
    let running = Running::start(listener).await;
    // A relay that does what a load balancer does: header first, then the bytes as they are.
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (near, far) = (relay.local_addr().expect("an address"), running.address());
    tokio::spawn(async move {
        let (client, _) = relay.accept().await.expect("a connection");
        let mut server = TcpStream::connect(far).await.expect("a connection");
        let source = Some("203.0.113.7:4711".parse().expect("an address"));
        let header = accept::proxy_protocol::write(
            conf::ProxyVersion::V2,
            source,
            Some(far),
            &accept::proxy_protocol::Tlvs::default(),
        );
        server.write_all(&header).await.expect("written");
        both_ways(client, server).await;
    });
    let url = format!("https://localhost:{}/connection-info", near.port());
    let answer = client(root, near).get(url).send().await.expect("an answer");
    let info: Value = answer.json().await.expect("JSON");
    assert_eq!(
        (info["client"].as_str(), info["tls"]["version"].as_str()),
        (Some("203.0.113.7"), Some("1.3"))
    );
}

#[tokio::test]
async fn plain_http_on_a_tls_listener_gets_no_answer() {
    let (certificate, _) = certificate();
    let running = Running::start(AuthListener { tls: Some(certificate), ..tcp(&[Resource::Health]) }).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP"), "an alert at most");
}

async fn both_ways(
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    mut far: impl AsyncRead + AsyncWrite + Unpin,
) {
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
}
