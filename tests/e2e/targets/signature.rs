//! Signatures of the federation: one server signs what it asks, the other verifies what it was asked (server-server API,
//! "Request Authentication"). A byte of the target that changes on the way breaks the signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use rustls::SignatureScheme;
use rustls::pki_types::SignatureVerificationAlgorithm;

const ORIGIN: &str = "origin.example";
const DESTINATION: &str = "example.com";

/// The key of the server that asks.
pub(crate) struct Signer {
    key: KeyPair,
}

/// Its public part, as the other server has it.
pub(crate) struct Verifier {
    key: Vec<u8>,
    algorithm: &'static dyn SignatureVerificationAlgorithm,
}

impl Signer {
    /// A new key.
    pub(crate) fn new() -> Self {
        Self { key: KeyPair::generate_for(&PKCS_ED25519).unwrap() }
    }

    /// What the other server knows.
    pub(crate) fn verifier(&self) -> Verifier {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let of_ed25519 = algorithms.mapping.iter().find(|(scheme, _)| *scheme == SignatureScheme::ED25519);
        let algorithm = of_ed25519.expect("the provider has Ed25519").1[0];
        Verifier { key: self.key.der_bytes().to_vec(), algorithm }
    }

    /// The value of `Authorization` for a `GET`.
    pub(crate) fn authorization(&self, target: &str) -> String {
        let signature = STANDARD_NO_PAD.encode(self.key.sign(signed(target).as_bytes()).unwrap());
        format!(
            "X-Matrix origin=\"{ORIGIN}\",destination=\"{DESTINATION}\",key=\"ed25519:1\",sig=\"{signature}\""
        )
    }
}

impl Verifier {
    /// Whether the signature is one over this target.
    pub(crate) fn accepts(&self, authorization: &str, target: &str) -> bool {
        let signature = authorization.split("sig=\"").nth(1).and_then(|rest| rest.split('"').next());
        let signature =
            signature.and_then(|signature| STANDARD_NO_PAD.decode(signature).ok()).unwrap_or_default();
        self.algorithm.verify_signature(&self.key, signed(target).as_bytes(), &signature).is_ok()
    }
}

/// Canonical JSON.
fn signed(target: &str) -> String {
    let uri = serde_json::to_string(target).unwrap();
    format!(r#"{{"destination":"{DESTINATION}","method":"GET","origin":"{ORIGIN}","uri":{uri}}}"#)
}
