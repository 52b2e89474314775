//! `PP2_TYPE_SSL`: what a proxy in front, or we, know about the client's TLS (HAProxy PROXY protocol §2.2.6).

use super::ProxyHeaderError::{self, Malformed};
use super::tlv::{fields, once, push, text};
use crate::connection::TlsFacts;

/// The client's TLS. Texts have at most 255 bytes and no control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ssl {
    /// The bits `PP2_CLIENT_SSL`, `PP2_CLIENT_CERT_CONN` and `PP2_CLIENT_CERT_SESS`.
    pub client: u8,
    /// 0 when the client presented a certificate and it was verified; in practice also sent when it presented none.
    pub verify: u32,
    /// `TLSv1.2`, `TLSv1.3`.
    pub version: Option<String>,
    /// Common name in the client's certificate.
    pub common_name: Option<String>,
    /// As OpenSSL writes it: `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher: Option<String>,
    /// How the server's certificate is signed: `SHA256`.
    pub signature_algorithm: Option<String>,
    /// What key the server's certificate has: `RSA2048`.
    pub key_algorithm: Option<String>,
}

impl Ssl {
    /// The client connected over TLS.
    pub fn is_tls(&self) -> bool {
        self.client & CLIENT_SSL != 0
    }

    /// The client presented a certificate, on this connection or earlier in the same TLS session.
    pub fn has_certificate(&self) -> bool {
        self.client & (CLIENT_CERT_CONN | CLIENT_CERT_SESS) != 0
    }

    /// The client presented a certificate and it was verified.
    pub fn is_verified(&self) -> bool {
        self.has_certificate() && self.verify == 0
    }

    /// The value of the field. Subtypes that the specification does not know are skipped.
    pub(super) fn read(value: &[u8]) -> Result<Self, ProxyHeaderError> {
        let ([client, verify @ ..], subfields) =
            value.split_first_chunk::<5>().ok_or(Malformed("TLS field is cut off"))?;
        let mut read = Self { client: *client, verify: u32::from_be_bytes(*verify), ..Self::default() };
        for field in fields(subfields) {
            let (kind, value, _) = field?;
            let place = match kind {
                VERSION => &mut read.version,
                COMMON_NAME => &mut read.common_name,
                CIPHER => &mut read.cipher,
                SIGNATURE_ALGORITHM => &mut read.signature_algorithm,
                KEY_ALGORITHM => &mut read.key_algorithm,
                _ => continue,
            };
            once(place, text(value)?)?;
        }
        Ok(read)
    }

    /// The value of the field.
    pub(super) fn written(&self) -> Vec<u8> {
        let mut value = vec![self.client];
        value.extend_from_slice(&self.verify.to_be_bytes());
        for (kind, text) in [
            (VERSION, &self.version),
            (COMMON_NAME, &self.common_name),
            (CIPHER, &self.cipher),
            (SIGNATURE_ALGORITHM, &self.signature_algorithm),
            (KEY_ALGORITHM, &self.key_algorithm),
        ] {
            if let Some(text) = text {
                push(&mut value, usize::MAX, kind, text.as_bytes());
            }
        }
        value
    }
}

/// What a handshake of ours agreed on. A certificate that is not verified ends a handshake, so one that was presented is.
impl From<&TlsFacts> for Ssl {
    fn from(tls: &TlsFacts) -> Self {
        let presented = if tls.has_client_certificate { CLIENT_CERT_CONN } else { 0 };
        Self {
            client: CLIENT_SSL | presented,
            verify: u32::from(!tls.has_client_certificate),
            version: Some(format!("TLSv{}", tls.version)),
            cipher: Some(openssl_name(&tls.cipher).to_owned()),
            ..Self::default()
        }
    }
}

/// The specification writes ciphers as OpenSSL does, whose names for TLS 1.3 are IANA's. These are all of TLS 1.2 that
/// we speak.
fn openssl_name(iana: &str) -> &str {
    match iana {
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-RSA-CHACHA20-POLY1305",
        same => same,
    }
}

const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;
const VERSION: u8 = 0x21;
const COMMON_NAME: u8 = 0x22;
const CIPHER: u8 = 0x23;
const SIGNATURE_ALGORITHM: u8 = 0x24;
const KEY_ALGORITHM: u8 = 0x25;

#[cfg(test)]
mod tests {
    use rustls::ProtocolVersion;

    use super::*;

    #[test]
    fn no_cipher_of_ours_keeps_a_name_that_openssl_does_not_know() {
        for suite in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
            let iana = suite.suite().as_str().unwrap().replacen("TLS13_", "TLS_", 1);
            let is_1_3 = suite.version().version == ProtocolVersion::TLSv1_3;
            assert_eq!(openssl_name(&iana).starts_with("TLS_"), is_1_3, "{iana}");
        }
    }

    #[test]
    fn a_handshake_is_told_with_the_state_of_the_certificate() {
        let facts = |has_client_certificate| TlsFacts {
            version: "1.2",
            cipher: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned(),
            server_name: None,
            alpn: None,
            is_resumed: false,
            has_client_certificate,
        };
        let ssl = Ssl::from(&facts(false));
        assert_eq!((ssl.client, ssl.verify), (0x01, 1), "no certificate is no verified certificate");
        assert_eq!(ssl.version.as_deref(), Some("TLSv1.2"));
        assert_eq!(ssl.cipher.as_deref(), Some("ECDHE-RSA-AES128-GCM-SHA256"));
        let ssl = Ssl::from(&facts(true));
        assert_eq!((ssl.client, ssl.verify), (0x03, 0));
        assert!(ssl.is_tls() && ssl.has_certificate() && ssl.is_verified());
    }
}
