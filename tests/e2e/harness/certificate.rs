//! A certificate authority and certificates for one test.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::Folder;

/// Files for the server, trust for the client.
#[derive(Clone)]
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client: Arc<ClientConfig>,
}

impl Certificates {
    /// An authority and one certificate for `names`, written into `folder`.
    pub(crate) fn new(folder: &Folder, names: &[&str]) -> Self {
        let mut ca = CertificateParams::default();
        // Without names of their own, OpenSSL takes the certificate for its own issuer.
        ca.distinguished_name.push(DnType::CommonName, "Gatehouse test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca_key = KeyPair::generate().unwrap();
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "Gatehouse test");
        leaf.use_authority_key_identifier_extension = true;
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        Self {
            ca: folder.write("ca.pem", ca_certificate.pem()),
            certificate: folder.write("certificate.pem", leaf.pem()),
            key: folder.write_private("key.pem", key.serialize_pem()),
            client: Arc::new(client_config(ca_certificate.der())),
        }
    }

    /// `edge.tls` as YAML, to be put under `edge:`.
    pub(crate) fn yaml(&self) -> String {
        format!(
            "tls: {{certificates: [{{certificate_file: {:?}, key_file: {:?}}}]}}",
            self.certificate, self.key
        )
    }
}

fn client_config(ca: &CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
