//! Certificates and keys, parsed and matched.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

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
