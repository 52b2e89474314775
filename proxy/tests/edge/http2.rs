//! TLS and HTTP/2 to the client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conf::{Action, ByteSize, ProxyVersion};
use h2::client::SendRequest;
use http::{Method, Request, Response, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{
    Client, Received, Reply, Running, Upstream, config, ok, prefix, reply, to, upstream_of,
};

/// The configuration with TLS on its listener, and the certificate to trust.
pub(crate) fn with_tls(mut config: conf::Edge) -> (conf::Edge, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let certificate = conf::Certificate {
        key: Arc::new(rustls::sign::CertifiedKey::new(chain.clone(), key)),
        names: vec!["a.example".to_owned()],
        certificate_file: None,
        key_file: None,
    };
    config.tls = Some(conf::EdgeTls { certificates: vec![certificate], min_version: conf::TlsVersion::V1_2 });
    config.listeners[0].tls = true;
    (config, chain[0].clone())
}

pub(crate) async fn connect(
    edge: &Running,
    certificate: &CertificateDer<'static>,
    alpn: &[u8],
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(edge.address).await.unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

pub(crate) async fn h2(edge: &Running, certificate: &CertificateDer<'static>) -> SendRequest<Bytes> {
    let stream = connect(edge, certificate, b"h2").await;
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn request(method: Method, target: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("https://a.example:8448{target}")).body(()).unwrap()
}

async fn body(response: Response<h2::RecvStream>) -> (StatusCode, String) {
    let status = response.status();
    let mut stream = response.into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.unwrap();
        bytes.extend_from_slice(&chunk);
        stream.flow_control().release_capacity(chunk.len()).unwrap();
    }
    (status, String::from_utf8(bytes).unwrap())
}

pub(crate) async fn get(client: &mut SendRequest<Bytes>, target: &str) -> (StatusCode, String) {
    let (response, _) = client.send_request(request(Method::GET, target), true).unwrap();
    body(response.await.unwrap()).await
}

#[tokio::test]
async fn requests_reach_the_upstream_over_http1() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    assert_eq!(get(&mut client, "/a%2Fb%c3?x&&=%zz").await, (StatusCode::OK, "hi".into()));
    let received = upstream.last();
    assert_eq!(received.line(), "GET /a%2Fb%c3?x&&=%zz HTTP/1.1");
    assert_eq!(received.field("host").as_deref(), Some("a.example:8448"));
    assert_eq!(received.field("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(
        received.field("forwarded").as_deref(),
        Some("for=127.0.0.1;host=\"a.example:8448\";proto=https")
    );
}

#[tokio::test]
async fn http1_is_spoken_too() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut client = Client::new(connect(&edge, &certificate, b"http/1.1").await);
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "hi");
    }
}

#[tokio::test]
async fn bodies_pass_with_their_length() {
    let upstream = Upstream::start(|request: &Received| ok(&request.body.len().to_string())).await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let mut upload = request(Method::PUT, "/");
    upload.headers_mut().insert("content-length", 900_000.into());
    let (response, mut stream) = client.send_request(upload, false).unwrap();
    stream.send_data(Bytes::from(vec![b'x'; 900_000]), true).unwrap();
    assert_eq!(body(response.await.unwrap()).await, (StatusCode::OK, "900000".into()));
    assert_eq!(upstream.last().field("content-length").as_deref(), Some("900000"));
    assert_eq!(upstream.last().field("transfer-encoding"), None);
}

#[tokio::test]
async fn a_refused_upload_hears_why() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (mut config, certificate) = with_tls(to(&upstream));
    config.limits.max_body_size = ByteSize(1000);
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let mut upload = request(Method::POST, "/_matrix/media/v3/upload");
    upload.headers_mut().insert("content-length", 300_000.into());
    let (response, mut stream) = client.send_request(upload, false).unwrap();
    stream.send_data(Bytes::from(vec![b'x'; 300_000]), true).unwrap();
    let (status, text) = body(response.await.unwrap()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(text.contains("M_TOO_LARGE"));
    assert_eq!(upstream.received().len(), 0);
    // The connection goes on.
    assert_eq!(get(&mut client, "/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_body_without_length_is_counted() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (mut config, certificate) = with_tls(to(&upstream));
    config.limits.max_body_size = ByteSize(1000);
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let (response, mut stream) = client.send_request(request(Method::POST, "/"), false).unwrap();
    stream.send_data(Bytes::from(vec![b'x'; 2000]), true).unwrap();
    assert_eq!(body(response.await.unwrap()).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn streams_are_independent() {
    let upstream = Upstream::start(|request: &Received| {
        let delay = if request.line().contains("slow") { 800 } else { 0 };
        Reply { delay: Duration::from_millis(delay), ..ok("hi") }
    })
    .await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let (slow, _) = client.send_request(request(Method::GET, "/slow"), true).unwrap();
    let quick = tokio::time::timeout(Duration::from_millis(500), get(&mut client, "/quick"));
    assert_eq!(quick.await.unwrap().1, "hi");
    assert_eq!(body(slow.await.unwrap()).await.1, "hi");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let upstream = Upstream::start(|_| Reply {
        close: true,
        ..reply("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    })
    .await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let (response, _) = client.send_request(request(Method::GET, "/"), true).unwrap();
    let mut stream = response.await.unwrap().into_body();
    let mut end = Ok(());
    while let Some(chunk) = stream.data().await {
        end = chunk.map(drop);
        if end.is_err() {
            break;
        }
    }
    assert!(end.is_err(), "the stream must be reset");
}

#[tokio::test]
async fn faults_have_their_answers() {
    let upstream = Upstream::start(|_| ok("")).await;
    let (mut config, certificate) = with_tls(to(&upstream));
    config.sites[0].routes[0] = prefix("/known", Action::Upstream(config.upstreams[0].clone()));
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let (status, text) = get(&mut client, "/_matrix/x").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("M_UNRECOGNIZED"));
    assert_eq!(get(&mut client, "/known/%2e%2e/x").await.0, StatusCode::BAD_REQUEST);
    let (response, _) = client.send_request(request(Method::TRACE, "/known"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let mut head = request(Method::GET, "/known");
    head.headers_mut().insert("x-large", "x".repeat(60_000).parse().unwrap());
    let (response, _) = client.send_request(head, true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn clients_have_upstream_connections_of_their_own() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let mut config = to(&upstream);
    config.upstreams = vec![Arc::new(conf::Upstream {
        proxy_protocol: Some(ProxyVersion::V2),
        ..(*config.upstreams[0]).clone()
    })];
    config.sites[0].routes[0].action = Action::Upstream(config.upstreams[0].clone());
    let (config, certificate) = with_tls(config);
    let edge = Running::start(config).await;
    let mut clients = [h2(&edge, &certificate).await, h2(&edge, &certificate).await];
    for _ in 0..4 {
        for client in &mut clients {
            get(client, "/").await;
        }
    }
    // Several streams of one client at a time.
    let [first, _] = &mut clients;
    let sent: Vec<_> =
        (0..4).map(|_| first.send_request(request(Method::GET, "/many"), true).unwrap().0).collect();
    for response in sent {
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    }
    let received = upstream.received();
    for connection in 0..received.iter().map(|request| request.connection).max().unwrap() {
        let mut prefaces: Vec<_> =
            received.iter().filter(|r| r.connection == connection).map(|r| r.preface.clone()).collect();
        prefaces.dedup();
        assert_eq!(prefaces.len(), 1);
    }
    let mut singles: Vec<_> = received.iter().take(8).map(|request| request.connection).collect();
    singles.sort_unstable();
    singles.dedup();
    assert_eq!(singles.len(), 2, "kept by each client");
}

#[tokio::test]
async fn connections_without_streams_are_closed() {
    let upstream = Upstream::start(|_| ok("hi")).await;
    let (mut config, certificate) = with_tls(to(&upstream));
    config.timeouts.idle = Duration::from_millis(400);
    let edge = Running::start(config).await;
    // Before the first request, and after one.
    let stream = connect(&edge, &certificate, b"h2").await;
    let (_client, connection) = h2::client::handshake(stream).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(3), connection).await.is_ok());
    let stream = connect(&edge, &certificate, b"h2").await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    get(&mut client, "/").await;
    assert!(tokio::time::timeout(Duration::from_secs(3), connection).await.is_ok());
}

#[tokio::test]
async fn stop_lets_streams_finish() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(600), ..ok("late") }).await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let (response, _) = client.send_request(request(Method::GET, "/"), true).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    edge.begin_to_stop();
    assert_eq!(body(response.await.unwrap()).await, (StatusCode::OK, "late".into()));
    edge.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upload_that_stops_coming_is_cut_off() {
    let upstream = Upstream::start(|request: &Received| {
        let delay = if request.line().contains("slow") { 1500 } else { 0 };
        Reply { delay: Duration::from_millis(delay), ..ok("hi") }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (mut config, certificate) = with_tls(to(&upstream));
    config.timeouts.body = Duration::from_millis(400);
    config.access_log = Some(conf::AccessLog {
        target: conf::AccessLogTarget::File(path.clone()),
        format: conf::AccessLogFormat::Json,
    });
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let (slow, _) = client.send_request(request(Method::GET, "/slow"), true).unwrap();
    let (response, mut stream) = client.send_request(request(Method::PUT, "/upload"), false).unwrap();
    stream.send_data(Bytes::from_static(b"some"), false).unwrap();
    let error = tokio::time::timeout(Duration::from_secs(2), response).await.unwrap().unwrap_err();
    assert!(error.is_reset(), "{error}");
    // The other streams of the connection are not concerned.
    assert_eq!(body(slow.await.unwrap()).await.1, "hi");
    edge.end().await;
    let log = std::fs::read_to_string(path).unwrap();
    assert!(log.contains("\"path\":\"/upload\"") && log.contains("\"status\":408"), "{log}");
    assert_eq!(log.lines().count(), 2);
}

#[tokio::test]
async fn preflights_are_answered_without_an_upstream() {
    let nobody = conf::Server::Tcp { host: "127.0.0.1".into(), port: 1, tls: false };
    let config = config(vec![upstream_of("up", vec![nobody])], |upstreams| {
        vec![prefix("/", Action::Upstream(upstreams[0].clone()))]
    });
    let (config, certificate) = with_tls(config);
    let edge = Running::start(config).await;
    for (method, target, status) in [
        (Method::OPTIONS, "/_matrix/client/v3/sync", 204),
        (Method::GET, "/_matrix/client/v3/sync", 502),
        (Method::HEAD, "/_matrix/client/v3/sync", 502),
        (Method::OPTIONS, "/page", 502),
    ] {
        let mut client = h2(&edge, &certificate).await;
        let (response, _) = client.send_request(request(method.clone(), target), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), status, "{method} {target}");
        let has_cors =
            response.headers().get("access-control-allow-origin").is_some_and(|value| value == "*");
        assert_eq!(has_cors, target.starts_with("/_matrix"), "{method} {target}");
        let text = body(response).await.1;
        assert_eq!(text.is_empty(), status == 204 || method == Method::HEAD, "{method} {target}");
    }
}

/// The library cannot send them: a client over HTTP/2 waits for its answer, or for its own patience with `Expect`.
#[tokio::test]
async fn interim_answers_stop_here() {
    let upstream = Upstream::start(|_| {
        reply(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        )
    })
    .await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    assert_eq!(get(&mut client, "/").await, (StatusCode::OK, "hi".into()));
    let mut upload = request(Method::PUT, "/");
    upload.headers_mut().insert("expect", "100-continue".parse().unwrap());
    upload.headers_mut().insert("content-length", 4.into());
    let (response, mut stream) = client.send_request(upload, false).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.send_data(Bytes::from_static(b"body"), true).unwrap();
    assert_eq!(body(response.await.unwrap()).await, (StatusCode::OK, "hi".into()));
    assert_eq!(upstream.last().body, b"body");
}

#[tokio::test]
async fn trailers_stop_here_both_ways() {
    let upstream = Upstream::start(|_| {
        reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")
    })
    .await;
    let (config, certificate) = with_tls(to(&upstream));
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let (response, mut stream) = client.send_request(request(Method::POST, "/"), false).unwrap();
    stream.send_data(Bytes::from_static(b"yo"), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-forwarded-for", "6.6.6.6".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let mut answer = response.await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(chunk) = answer.data().await {
        text.extend(chunk.unwrap());
    }
    assert_eq!(text, b"hi");
    assert_eq!(answer.trailers().await.unwrap(), None);
    assert_eq!(upstream.last().body, b"2\r\nyo\r\n0\r\n\r\n");
    assert_eq!(get(&mut client, "/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_stream_that_outlives_the_drain_is_cut_off() {
    let upstream = Upstream::start(|_| Reply { delay: Duration::from_secs(600), ..ok("late") }).await;
    let (mut config, certificate) = with_tls(to(&upstream));
    config.timeouts.drain = Duration::from_millis(400);
    // It is the requests' time that counts here: HTTP/2 has no tunnels.
    config.timeouts.tunnel_drain = Duration::from_secs(600);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    config.access_log = Some(conf::AccessLog {
        target: conf::AccessLogTarget::File(path.clone()),
        format: conf::AccessLogFormat::Json,
    });
    let edge = Running::start(config).await;
    let mut client = h2(&edge, &certificate).await;
    let (response, _) = client.send_request(request(Method::GET, "/"), true).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    edge.end().await;
    assert!(response.await.is_err());
    let log = std::fs::read_to_string(path).unwrap();
    assert!(log.contains("cut off at the end of the drain"), "{log}");
}
