//! A temporary folder with configuration files and a certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conf::{Loaded, Report, load_at};
use tempfile::TempDir;

/// The time of every test: 2027-01-15.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Removed at the end of the test.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// With `cert.pem` and `key.pem` for `localhost`, `example.com` and the names below it, valid until 2028.
    pub(crate) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.certificate(
            "cert.pem",
            "key.pem",
            &["localhost", "example.com", "*.example.com"],
            (2026, 2028),
        );
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn write_secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn certificate(&self, chain: &str, key: &str, names: &[&str], years: (i32, i32)) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let pair = rcgen::KeyPair::generate().unwrap();
        self.write(chain, &params.self_signed(&pair).unwrap().pem());
        self.write_secret(key, &pair.serialize_pem());
    }

    /// Loads one text as `gatehouse.yaml`.
    pub(crate) fn try_load(&self, text: &str) -> Result<Loaded, Report> {
        load_at(&[self.write("gatehouse.yaml", text)], now())
    }

    /// Loads one text that has to be right.
    #[track_caller]
    pub(crate) fn load(&self, text: &str) -> Loaded {
        self.try_load(text).unwrap_or_else(|report| panic!("{report}"))
    }
}
