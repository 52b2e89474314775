//! What several tests need: certificates made on the spot, connected sockets, a TLS client.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::bind::{BindError, Bound, Sockets};
use crate::stream::Stream;

/// The sockets of one bind that nobody else holds.
pub(crate) async fn bind(bind: &conf::Bind, sockets: usize) -> Result<Bound, BindError> {
    let mut change = Sockets::default().change();
    let bound = change.bind("test", bind, sockets).await?;
    change.commit();
    Ok(bound)
}

/// A self-signed certificate for these names.
pub(crate) fn certificate(names: &[&str]) -> conf::Certificate {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let key = rustls::sign::CertifiedKey::new(vec![made.cert.der().clone()], key);
    conf::Certificate { key: Arc::new(key), names, certificate_file: None, key_file: None }
}

pub(crate) fn leaf(certificate: &conf::Certificate) -> CertificateDer<'static> {
    certificate.key.cert[0].clone()
}

/// A client that trusts these certificates.
pub(crate) fn client_config(
    trusted: &[&conf::Certificate],
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(leaf(certificate)).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

pub(crate) async fn tls_connect(
    config: &Arc<ClientConfig>,
    name: &str,
    socket: TcpStream,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config.clone()).connect(name, socket).await
}

/// Two ends of a TCP connection: the client's, and the accepted one.
pub(crate) async fn tcp_pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    (client, Stream::Tcp(accepted))
}
