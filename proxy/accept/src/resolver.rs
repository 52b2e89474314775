//! Server name → certificate. The table can be replaced while connections are accepted.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Chooses the certificate by the name the client asks for (SNI): exact, then a wildcard of one label, then the first.
/// Of several for one name, the first that the client can verify.
#[derive(Debug)]
pub struct Resolver {
    table: ArcSwap<Table>,
}

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// `example.com` for `*.example.com`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    /// A resolver for these certificates; the first is served when no name fits. Without any, every handshake fails.
    pub fn new(certificates: &[conf::Certificate]) -> Self {
        Self { table: ArcSwap::from_pointee(Table::new(certificates)) }
    }

    /// Serves these certificates from the next handshake on. A resumed session does not show a certificate again.
    pub fn replace(&self, certificates: &[conf::Certificate]) {
        self.table.store(Arc::new(Table::new(certificates)));
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.table.load().pick(hello.server_name(), hello.signature_schemes())
    }
}

impl Table {
    fn new(certificates: &[conf::Certificate]) -> Self {
        let mut table = Self::default();
        for certificate in certificates {
            for name in &certificate.names {
                let name = name.to_ascii_lowercase();
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut table.wildcard, parent.to_owned()),
                    None => (&mut table.exact, name),
                };
                names.entry(name).or_default().push(certificate.key.clone());
            }
            table.all.push(certificate.key.clone());
        }
        table
    }

    fn pick(&self, server_name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = server_name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let exact = name.as_ref().and_then(|name| self.exact.get(name));
        let wildcard = name.as_ref().and_then(|name| self.wildcard.get(name.split_once('.')?.1));
        let named = exact.into_iter().chain(wildcard).flatten();
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        named.chain(&self.all).find(usable).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::certificate;

    #[test]
    fn exact_then_wildcard_of_one_label_then_first() {
        let certificates = [
            certificate(&["a.example"]),
            certificate(&["*.example"]),
            certificate(&["b.example", "*.b.example"]),
        ];
        let table = Table::new(&certificates);
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let check = |name: Option<&str>, expected: usize| {
            let picked = table.pick(name, &schemes).unwrap();
            assert!(Arc::ptr_eq(&picked, &certificates[expected].key), "{name:?}");
        };
        check(Some("a.example"), 0);
        check(Some("A.Example."), 0);
        check(Some("b.example"), 2);
        check(Some("c.example"), 1);
        check(Some("x.b.example"), 2);
        check(Some("y.x.b.example"), 0);
        check(Some("x.c.example"), 0);
        check(Some("example"), 0);
        check(Some("localhost"), 0);
        check(None, 0);
        assert!(table.pick(Some("a.example"), &[SignatureScheme::RSA_PSS_SHA256]).is_none());
        assert!(Table::new(&[]).pick(Some("a.example"), &schemes).is_none());
    }
}
