//! Every `bad/<case>.yaml` is loaded, and what is said about it has to be `bad/<case>.stderr`, letter by letter.
//!
//! A new pair of files is a new test; `<case>.2.yaml` is loaded after `<case>.yaml`. `UPDATE=1 cargo test -p gatehouse-conf` rewrites
//! the expectations: read the diff.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its folder has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use conf::load_at;

#[test]
fn every_fault_is_explained() {
    let cases = cases();
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case, folder.path())).collect();
    assert!(wrong.is_empty(), "{} of {} cases differ:\n\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The cases, by the path of their first file.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let first = |path: &PathBuf| {
        path.extension().is_some_and(|e| e == "yaml") && !path.to_str().unwrap().ends_with(".2.yaml")
    };
    let mut cases: Vec<PathBuf> = files.filter(first).collect();
    cases.sort();
    cases
}

/// What differs, if anything does.
fn check(case: &Path, folder: &Path) -> Option<String> {
    let copy = |from: &Path| {
        let to = folder.join(from.file_name().unwrap());
        fs::copy(from, &to).unwrap();
        to
    };
    let second = case.with_extension("2.yaml");
    let mut paths = vec![copy(case)];
    paths.extend(second.exists().then(|| copy(&second)));
    let said = match load_at(&paths, UNIX_EPOCH + Duration::from_secs(1_800_000_000)) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(report) => report.to_string(),
    };
    let said = said.replace(&format!("{}/", folder.display()), "");
    let expectation = case.with_extension("stderr");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expectation, &said).unwrap();
        return None;
    }
    let expected = fs::read_to_string(&expectation).unwrap_or_default();
    (said != expected || said.is_empty())
        .then(|| format!("{}\n--- expected\n{expected}--- said\n{said}", case.display()))
}

/// The files that the cases refer to.
fn prepare(folder: &Path) {
    let write = |name: &str, text: &str, mode| {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let certificate = |name: &str, years: (i32, i32)| {
        let mut params =
            rcgen::CertificateParams::new(vec!["example.com".to_owned(), "*.example.com".to_owned()])
                .unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let pair = rcgen::KeyPair::generate().unwrap();
        write(&format!("{name}.pem"), &params.self_signed(&pair).unwrap().pem(), 0o644);
        write(&format!("{name}-key.pem"), &pair.serialize_pem(), 0o600);
    };
    certificate("good", (2026, 2028));
    certificate("other", (2026, 2028));
    certificate("expired", (2020, 2021));
    certificate("future", (2030, 2031));
    let mut params = rcgen::CertificateParams::new(vec!["example.com".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 20);
    let pair = rcgen::KeyPair::generate().unwrap();
    write("soon.pem", &params.self_signed(&pair).unwrap().pem(), 0o644);
    write("soon-key.pem", &pair.serialize_pem(), 0o644);
    write(
        "encrypted-key.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
        0o600,
    );
    write("not-a-key.pem", "hello\n", 0o600);
    write("empty-secret", "\n", 0o600);
    write("open-secret", "everybody knows\n", 0o644);
    write("secret", "nobody knows\n", 0o600);
    write(
        "homeserver.yaml",
        "server_name: example.com\nmax_upload_size: 200M\nform_secret: hunter2\n",
        0o600,
    );
    write("homeserver-of-another.yaml", "server_name: example.org\n", 0o600);
    write("homeserver-broken.yaml", "server_name: [example.com\nform_secret: hunter2\n", 0o600);
    write("homeserver-size.yaml", "max_upload_size: 50MB\n", 0o600);
    write("short-encryption", "abcd\n", 0o600);
}
