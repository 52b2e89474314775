//! A throw-away certificate authority and one certificate for `localhost`, made by the quickstart for itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::private_file;

/// Long enough for a trial; short enough that a forgotten one is of no use.
const VALIDITY: Duration = Duration::from_secs(180 * 24 * 3600);
/// Certificates older than this are made anew, well before they expire.
const RENEW_AFTER: Duration = Duration::from_secs(120 * 24 * 3600);
/// Clocks of two machines may differ a little.
const BACKDATE: Duration = Duration::from_secs(3600);

/// Where the three files are.
pub(super) struct Certificate {
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The certificate in `folder`, made there if it is missing or old. The authority's key is thrown away at once, so that
/// nobody can sign another certificate with it.
pub(super) fn ensure(folder: &Path, names: &[&str], now: SystemTime) -> Result<Certificate> {
    let files = Certificate {
        ca: folder.join("ca.pem"),
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
    };
    if is_fresh(&files, now) {
        return Ok(files);
    }
    make(&files, names, now).context("cannot make a certificate")?;
    Ok(files)
}

fn is_fresh(files: &Certificate, now: SystemTime) -> bool {
    [&files.ca, &files.certificate, &files.key].into_iter().all(|path| {
        fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|made| now.duration_since(made).is_ok_and(|age| age < RENEW_AFTER))
    })
}

fn make(files: &Certificate, names: &[&str], now: SystemTime) -> Result<()> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Gatehouse quickstart (throw-away)");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.not_before = (now - BACKDATE).into();
    ca.not_after = (now + VALIDITY).into();
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let mut leaf = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    leaf.distinguished_name.push(DnType::CommonName, "Gatehouse quickstart");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.not_before = (now - BACKDATE).into();
    leaf.not_after = (now + VALIDITY).into();
    let leaf_key = KeyPair::generate()?;
    let leaf_certificate = leaf.signed_by(&leaf_key, &issuer)?;

    private_file::write(&files.key, &leaf_key.serialize_pem())?;
    fs::write(&files.certificate, leaf_certificate.pem())?;
    fs::write(&files.ca, ca_certificate.pem())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the files' own times are the system's")]
    fn now() -> SystemTime {
        SystemTime::now()
    }

    #[test]
    fn a_second_start_keeps_the_certificate_and_an_old_one_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let first = ensure(folder.path(), &["localhost"], now()).unwrap();
        let text = fs::read_to_string(&first.certificate).unwrap();
        ensure(folder.path(), &["localhost"], now()).unwrap();
        assert_eq!(fs::read_to_string(&first.certificate).unwrap(), text);
        ensure(folder.path(), &["localhost"], now() + RENEW_AFTER).unwrap();
        assert_ne!(fs::read_to_string(&first.certificate).unwrap(), text);
    }
}
