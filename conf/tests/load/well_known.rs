//! `/.well-known/matrix/*` of the preset.

use conf::{Action, Loaded, Matcher, Route};
use serde_json::{Value, json};

use crate::folder::Folder;

fn load(preset: &str) -> Loaded {
    let tls = "tls: {certificates: [{certificate_file: cert.pem, key_file: key.pem}]}";
    let loaded =
        Folder::new().load(&format!("edge:\n  {tls}\n  matrix:\n    server_name: example.com\n{preset}"));
    assert_eq!(loaded.warnings.to_string(), "");
    loaded
}

/// The routes of a host for one of the documents.
fn routes<'a>(loaded: &'a Loaded, host: &str, document: &str) -> Vec<&'a Route> {
    let sites = &loaded.config.edge.as_ref().unwrap().sites;
    let site = sites.iter().find(|site| site.name == host).unwrap();
    let wanted = format!("/.well-known/matrix/{document}");
    let matches = |route: &&Route| match &route.matcher {
        Matcher::Path(path) => *path == wanted,
        Matcher::Regex(regex) => regex.is_match(&wanted),
        Matcher::Prefix(prefix) => wanted.starts_with(prefix),
    };
    site.routes.iter().filter(matches).collect()
}

fn document(loaded: &Loaded, host: &str, name: &str) -> Value {
    let Action::Respond(respond) = &routes(loaded, host, name)[0].action else { panic!("a fixed answer") };
    serde_json::from_str(&respond.body).unwrap()
}

#[test]
fn every_answer_may_be_read_by_every_page() {
    let loaded = load("    well_known: {support: {support_page: https://example.com/help}}\n");
    for host in ["example.com", "matrix.example.com"] {
        for name in ["client", "server", "support"] {
            let routes = routes(&loaded, host, name);
            let answers: Vec<_> = routes
                .iter()
                .map(|route| {
                    let Action::Respond(respond) = &route.action else { panic!("a fixed answer") };
                    assert_eq!(respond.headers["access-control-allow-origin"], "*");
                    assert_eq!(respond.headers["access-control-allow-methods"], "GET, HEAD, OPTIONS");
                    let allowed = respond.headers["access-control-allow-headers"].to_str().unwrap();
                    assert!(
                        allowed.contains("Authorization") && allowed.contains("Content-Type"),
                        "{allowed}"
                    );
                    let methods = route.methods.clone().unwrap_or_default();
                    let methods: Vec<String> = methods.iter().map(ToString::to_string).collect();
                    (methods.join(" "), respond)
                })
                .collect();
            let [(get, document), (options, preflight), (rest, refusal)] = answers.as_slice() else {
                panic!("{} answers", answers.len())
            };
            assert_eq!((get.as_str(), document.status.as_u16()), ("GET HEAD", 200));
            assert_eq!(document.headers["content-type"], "application/json");
            assert_eq!(document.headers["cache-control"], "public, max-age=600");
            assert_eq!((options.as_str(), preflight.status.as_u16()), ("OPTIONS", 204));
            assert_eq!(preflight.body, "");
            assert_eq!((rest.as_str(), refusal.status.as_u16()), ("", 405));
            assert_eq!(refusal.headers["allow"], "GET, HEAD, OPTIONS");
            assert_eq!(refusal.headers["content-type"], "application/json");
            let error: Value = serde_json::from_str(&refusal.body).unwrap();
            assert_eq!(error["errcode"], "M_UNRECOGNIZED");
        }
    }
}

#[test]
fn members_of_ones_own_are_laid_over_ours() {
    let loaded = load(
        "    well_known:
      client:
        m.homeserver: {org.example.region: eu}
        m.identity_server: {base_url: https://id.example.com}
        org.matrix.msc4143.rtc_foci:
          - {type: livekit, livekit_service_url: https://rtc.example.com}
        org.example.everything: [yes, \"true\", true, null, 0x10, -1.5, {a: {b: ~}}]
      server: {org.example.note: hello}
",
    );
    assert_eq!(
        document(&loaded, "example.com", "client"),
        json!({
            "m.homeserver": {"base_url": "https://matrix.example.com", "org.example.region": "eu"},
            "m.identity_server": {"base_url": "https://id.example.com"},
            "org.matrix.msc4143.rtc_foci": [{"type": "livekit", "livekit_service_url": "https://rtc.example.com"}],
            "org.example.everything": ["yes", "true", true, null, 16, -1.5, {"a": {"b": null}}],
        })
    );
    assert_eq!(
        document(&loaded, "matrix.example.com", "server"),
        json!({"m.server": "matrix.example.com:443", "org.example.note": "hello"})
    );
    assert!(routes(&loaded, "example.com", "support").is_empty());
}

#[test]
fn what_the_user_says_wins() {
    let loaded = load(
        "    auth: http://mas:8080
    well_known:
      client: {m.homeserver: {base_url: \"https://elsewhere.example.com/\"}, org.matrix.msc2965.authentication: ~}
      server: {m.server: \"fed.example.com:8448\"}
",
    );
    let client = json!({"m.homeserver": {"base_url": "https://elsewhere.example.com/"}});
    assert_eq!(document(&loaded, "example.com", "client"), client);
    assert_eq!(document(&loaded, "example.com", "server"), json!({"m.server": "fed.example.com:8448"}));
}

#[test]
fn a_mas_elsewhere_is_told_to_old_clients() {
    let loaded = load("    auth: http://mas:8080\n    auth_host: login.example.com\n");
    assert_eq!(
        document(&loaded, "example.com", "client")["org.matrix.msc2965.authentication"],
        json!({"issuer": "https://login.example.com/", "account": "https://login.example.com/account/"})
    );
    assert!(document(&load(""), "example.com", "client").get("org.matrix.msc2965.authentication").is_none());
}

#[test]
fn support_is_what_was_written() {
    let loaded = load(
        "    well_known:
      support:
        contacts:
          - {role: m.role.admin, matrix_id: \"@admin:example.com\", email_address: }
          - {role: m.role.security, email_address: security@example.com, org.example.key: [1]}
        support_page: https://example.com/help
",
    );
    assert_eq!(
        document(&loaded, "example.com", "support"),
        json!({
            "contacts": [
                {"role": "m.role.admin", "matrix_id": "@admin:example.com"},
                {"role": "m.role.security", "email_address": "security@example.com", "org.example.key": [1]},
            ],
            "support_page": "https://example.com/help",
        })
    );
}

#[test]
fn what_is_printed_is_the_same_again() {
    let folder = Folder::new();
    let first = folder.load(
        "edge:
  tls: {certificates: [{certificate_file: cert.pem, key_file: key.pem}]}
  matrix:
    server_name: example.com
    well_known: {client: {org.example.text: \"it's\\n\\\"quoted\\\" ü\"}, support: {support_page: https://example.com}}
",
    );
    let again = folder.load(&first.effective);
    assert_eq!(again.effective, first.effective);
    assert_eq!(format!("{:?}", again.config), format!("{:?}", first.config));
}

#[test]
fn without_it_the_bare_domain_serves_federation() {
    for (preset, delegated) in [("", true), ("    well_known: false\n", false)] {
        let loaded = load(preset);
        let sites = &loaded.config.edge.as_ref().unwrap().sites;
        let site = sites.iter().find(|site| site.name == "example.com").unwrap();
        let serves = |path: &str| site.routes.iter().any(|route| route.name == path);
        assert_eq!(serves("/_matrix/federation/"), !delegated);
        assert_eq!(serves("/_matrix/key/"), !delegated);
        assert_eq!(serves("/.well-known/matrix/server"), delegated);
        assert!(!serves("/_matrix/"));
    }
}

#[test]
fn calls_are_announced_unless_the_user_does() {
    let rtc = "    host: \"m.example.com:8443\"\n    rtc: {livekit: \"http://localhost:7880\", token_service: \"http://localhost:8070\"}\n";
    let ours = json!([{"type": "livekit", "livekit_service_url": "https://m.example.com:8443/livekit/jwt"}]);
    assert_eq!(document(&load(rtc), "example.com", "client")["org.matrix.msc4143.rtc_foci"], ours);
    let named = format!("{rtc}    well_known: {{client: {{org.matrix.msc4143.rtc_foci: [1]}}}}\n");
    assert_eq!(document(&load(&named), "example.com", "client")["org.matrix.msc4143.rtc_foci"], json!([1]));
}
