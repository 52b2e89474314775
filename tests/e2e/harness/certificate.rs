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

/// Who issues certificates. Two of them have one name, so programs that trust both may take one for the other.
pub(crate) struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        // Without names of their own, OpenSSL takes the certificate for its own issuer.
        parameters.distinguished_name.push(DnType::CommonName, "Gatehouse test authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    /// One certificate for `names`, written into `folder` together with the authority's own.
    pub(crate) fn issue(&self, folder: &Folder, names: &[&str]) -> Certificates {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "Gatehouse test");
        leaf.use_authority_key_identifier_extension = true;
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        Certificates {
            ca: folder.write("ca.pem", self.certificate.pem()),
            certificate: folder.write("certificate.pem", leaf.pem()),
            key: folder.write_private("key.pem", key.serialize_pem()),
            client: Arc::new(client_config(self.certificate.der())),
        }
    }
}

impl Certificates {
    /// An authority and one certificate for `names`, written into `folder`.
    pub(crate) fn new(folder: &Folder, names: &[&str]) -> Self {
        Authority::new().issue(folder, names)
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
