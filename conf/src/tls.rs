//! Certificates and keys, parsed and matched.
//!
//! Files are read once, here; whether a client would trust the chain is not judged.

mod validity;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use crate::reader::{Item, Section};
use crate::secret::{read_secret_file, value_or_file};
use crate::source::read_bounded;
pub use validity::{Dates, Validity};

/// A certificate chain with its key, loaded and checked to belong together.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Chain and signing key, ready for rustls (provider aws-lc-rs).
    pub key: Arc<CertifiedKey>,
    /// DNS names of the leaf (subject alternative names), lower case, `*.` wildcards kept.
    pub names: Vec<String>,
    /// Where the chain came from, if from a file.
    pub certificate_file: Option<PathBuf>,
    /// Where the key came from, if from a file.
    pub key_file: Option<PathBuf>,
}

/// `edge.tls`.
#[derive(Debug, Clone)]
pub struct EdgeTls {
    /// At least one; the first is served when no name matches.
    pub certificates: Vec<Certificate>,
    /// Oldest version accepted. Default 1.2.
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

impl Certificate {
    /// Reads `certificate` or `certificate_file` with `key` or `key_file` from a section that may have other keys.
    pub(crate) fn take(section: &mut Section<'_>) -> Option<Self> {
        let chain = one_of_pair(
            section,
            "certificate",
            "certificate_file",
            "name the file with the chain (fullchain.pem)",
        );
        let key = one_of_pair(section, "key", "key_file", "name the file with the private key (privkey.pem)");
        for name in ["password", "password_file"] {
            if let Some(item) = section.take(name) {
                item.error("encrypted keys are not supported yet by this version, decrypt the key with `openssl pkey`");
            }
        }
        let (chain_item, certificate_file) = chain?;
        let chain = read_chain(&chain_item, certificate_file.as_deref());
        let (key_item, key_file) = key?;
        let key = read_key(&key_item, key_file.as_deref());
        let (chain, key) = (chain?, key?);
        let names = read_leaf(&chain_item, chain.first()?)?;
        let Ok(signing) = any_supported_type(&key) else {
            key_item.error(
                "this kind of private key is not supported, make an ECDSA (P-256) or RSA (2048 bits or more) key",
            );
            return None;
        };
        let certified = CertifiedKey::new(chain, signing);
        if certified.keys_match().is_err() {
            key_item.error_with(
                "this key does not belong to the certificate",
                chain_item.span(),
                "the certificate",
            );
            return None;
        }
        Some(Self { key: Arc::new(certified), names, certificate_file, key_file })
    }

    /// From when to when the leaf is valid; `None` when it cannot be parsed.
    pub fn validity(&self) -> Option<Validity> {
        Validity::of(self.key.cert.first()?)
    }

    /// Whether the certificate is valid for a host name (RFC 6125 §6.4: a wildcard stands for one label).
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix),
            None => name == host,
        })
    }
}

impl EdgeTls {
    /// Reads `edge.tls`.
    pub(crate) fn read(item: &Item<'_>) -> Option<Self> {
        let mut section = item.section()?;
        let certificates = section.require("certificates", "give at least one {certificate_file, key_file}");
        let certificates = certificates.and_then(|item| read_certificates(&item));
        let min_version =
            section.take("min_version").map_or(Some(TlsVersion::V1_2), |item| item.choice(&VERSIONS));
        section.later(&[
            ("acme", "certificates from an ACME authority are"),
            ("client_ca_file", "client certificates are"),
            ("client_auth", "client certificates are"),
            ("hsts", "HSTS is"),
        ]);
        section.finish();
        Some(Self { certificates: certificates?, min_version: min_version? })
    }
}

/// The words for [`TlsVersion`].
pub(crate) const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];

fn read_certificates(item: &Item<'_>) -> Option<Vec<Certificate>> {
    let certificates: Vec<Option<Certificate>> = item
        .filled_list()?
        .iter()
        .map(|item| {
            let mut section = item.section()?;
            let certificate = Certificate::take(&mut section);
            section.finish();
            certificate
        })
        .collect();
    certificates.into_iter().collect()
}

/// The item and, when it names one, the file.
fn one_of_pair<'a>(
    section: &mut Section<'a>,
    key: &'static str,
    file_key: &'static str,
    hint: &str,
) -> Option<(Item<'a>, Option<PathBuf>)> {
    let absent = section.take(key).is_none() && section.take(file_key).is_none();
    if absent {
        section.missing(file_key, hint);
        return None;
    }
    let (item, is_file) = value_or_file(section, key, file_key)?;
    let file = if is_file { Some(item.file_path()?) } else { None };
    Some((item, file))
}

fn read_chain(item: &Item<'_>, file: Option<&Path>) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = match file {
        Some(path) => match read_bounded(path, LARGEST_CHAIN) {
            Ok(bytes) => bytes,
            Err(error) => {
                item.error(format!("{} cannot be read: {error}", path.display()));
                return None;
            }
        },
        None => item.text()?.as_bytes().to_vec(),
    };
    if !is_pem(&bytes) && file.is_some() {
        return Some(vec![CertificateDer::from(bytes)]);
    }
    match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if chain.is_empty() => {
            item.error(
                "there is no certificate in it (a PEM block that begins with -----BEGIN CERTIFICATE-----)",
            );
            None
        }
        Ok(chain) => Some(chain),
        Err(error) => {
            item.error(format!("is not a chain of certificates in PEM: {error}"));
            None
        }
    }
}

fn read_key(item: &Item<'_>, file: Option<&Path>) -> Option<PrivateKeyDer<'static>> {
    let bytes = match file {
        Some(path) => read_secret_file(item, path)?,
        None => item.text()?.as_bytes().to_vec(),
    };
    let encrypted = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| String::from_utf8_lossy(&bytes).contains(mark)) {
        item.error(
            "encrypted keys are not supported yet by this version, decrypt the key with `openssl pkey`",
        );
        return None;
    }
    if !is_pem(&bytes) && file.is_some() {
        let key = PrivateKeyDer::try_from(bytes).ok();
        if key.is_none() {
            item.error("is not a private key (PEM or DER; PKCS#1, PKCS#8 or SEC1)");
        }
        return key;
    }
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Some(key),
        Err(_) => {
            item.error(
                "there is no private key in it (a PEM block that begins with -----BEGIN PRIVATE KEY-----)",
            );
            None
        }
    }
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(PEM_MARK.len()).any(|window| window == PEM_MARK)
}

/// The names of the leaf; its dates are judged by the way.
fn read_leaf(item: &Item<'_>, leaf: &CertificateDer<'_>) -> Option<Vec<String>> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) else {
        item.error("the first certificate cannot be parsed");
        return None;
    };
    if let Some(validity) = Validity::of(leaf) {
        let (first, last) = (validity.first_day(), validity.last_day());
        match validity.judge(item.context.now) {
            Dates::Fine => {}
            Dates::EndSoon => item.warn(format!("this certificate expires on {last}, renew it")),
            Dates::Expired => {
                item.warn(format!("this certificate expired on {last}, clients will refuse it: renew it"));
            }
            Dates::Future => item.warn(format!(
                "this certificate is valid from {first} on, clients will refuse it until then"
            )),
        }
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| extension.value.general_names.clone()).unwrap_or_default();
    Some(names.iter().filter_map(dns_name).collect())
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

const PEM_MARK: &[u8] = b"-----BEGIN ";
/// A chain with all its intermediates is a few KiB.
const LARGEST_CHAIN: u64 = 256 << 10;
