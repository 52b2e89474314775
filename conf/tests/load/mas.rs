//! A complete configuration file of a Matrix Authentication Service.

use conf::{HashAlgorithm, load_at};

use crate::folder::now;

#[test]
fn it_loads_with_one_warning_for_each_key_that_is_not_used() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good/mas.yaml");
    let loaded = load_at(&[path], now()).unwrap_or_else(|report| panic!("{report}"));
    let said: Vec<String> = loaded
        .warnings
        .diagnostics
        .iter()
        .filter(|finding| finding.message == "is not used yet by this version")
        .map(|finding| finding.key_path.clone())
        .collect();
    let expected = [
        "http.listeners[0].resources[4].playground",
        "http.listeners[0].resources[4].undocumented_oauth2_access",
        "database.min_connections",
        "database.idle_timeout",
        "database.max_lifetime",
        "templates",
        "clients",
        "secrets.keys",
        "secrets.keys_dir",
        "account.email_change_allowed",
        "account.displayname_change_allowed",
        "account.password_registration_enabled",
        "account.password_registration_email_required",
        "account.password_registration_token_required",
        "account.password_change_allowed",
        "account.password_recovery_enabled",
        "account.account_deactivation_allowed",
        "account.registration_token_required",
        "captcha",
        "policy",
        "rate_limiting.account_recovery",
        "rate_limiting.registration",
        "rate_limiting.email_authentication",
        "rate_limiting.device_code_link",
        "telemetry",
        "email",
        "upstream_oauth2",
        "branding",
        "oauth",
        "experimental.access_token_ttl",
        "experimental.inactive_session_expiration",
        "experimental.plan_management_iframe_uri",
        "experimental.session_limit",
    ];
    assert_eq!(said, expected);
    // Three resources that are not served yet, and MAS's own folder of assets.
    assert_eq!(loaded.warnings.diagnostics.len(), expected.len() + 4, "{}", loaded.warnings);

    let auth = loaded.config.auth.unwrap();
    assert_eq!(
        auth.database.uri.expose(),
        "postgresql://mas:p%40ss%2Fword@db.example.com:5432/mas?sslmode=verify-full&sslrootcert=%2Fetc%2Fssl%2Fdb-ca.pem\
         &sslcert=%2Fetc%2Fssl%2Fmas.pem&sslkey=%2Fetc%2Fssl%2Fmas.key"
    );
    assert_eq!(auth.encryption.unwrap()[..3], [0, 1, 2]);
    let versions: Vec<u16> = auth.passwords.schemes.iter().map(|scheme| scheme.version).collect();
    assert_eq!(versions, [3, 2, 1]);
    assert_eq!(auth.passwords.schemes[2].algorithm, HashAlgorithm::Bcrypt { cost: 12 });
    assert!(!auth.account.login_with_email_allowed);
    assert!(!loaded.effective.contains("p%40ss"));
}
