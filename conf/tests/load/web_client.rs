//! `edge.matrix.web_client` expanded.

use std::fs;
use std::os::unix::fs::symlink;

use conf::{Action, Loaded, Matcher, Route, StaticFiles};
use serde_json::{Value, json};

use crate::folder::Folder;

/// With a client in `client/`.
fn folder() -> Folder {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("client")).unwrap();
    folder.write("client/index.html", "");
    folder
}

fn load(folder: &Folder, preset: &str, rest: &str) -> Loaded {
    folder.load(&format!(
        "edge:\n  matrix:\n    server_name: example.com\n{preset}\n  tls:\n    certificates: [{{certificate_file: cert.pem, key_file: key.pem}}]\n{rest}"
    ))
}

fn routes<'a>(loaded: &'a Loaded, host: &str) -> &'a [Route] {
    let edge = loaded.config.edge.as_ref().unwrap();
    &edge.sites.iter().find(|site| site.name == host).unwrap_or_else(|| panic!("no site {host}")).routes
}

/// The route that a path takes.
fn taker<'a>(loaded: &'a Loaded, host: &str, path: &str) -> &'a Route {
    let matches = |route: &&Route| match &route.matcher {
        Matcher::Path(whole) => path == whole,
        Matcher::Prefix(prefix) => path.starts_with(prefix),
        Matcher::Regex(regex) => regex.is_match(path),
    };
    routes(loaded, host).iter().find(matches).unwrap()
}

fn files(route: &Route) -> &StaticFiles {
    match &route.action {
        Action::Static(files) => files,
        other => panic!("{other:?}"),
    }
}

fn config(loaded: &Loaded) -> Value {
    match &taker(loaded, "chat.example.com", "/config.json").action {
        Action::Respond(respond) => {
            assert_eq!(respond.headers["content-type"], "application/json");
            assert_eq!(respond.headers["cache-control"], "no-cache");
            serde_json::from_str(&respond.body).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

const CLIENT: &str = "    web_client: client";

#[test]
fn it_has_a_site_of_its_own() {
    let folder = folder();
    let loaded = load(&folder, CLIENT, "");
    assert_eq!(loaded.warnings.to_string(), "");
    let names: Vec<&str> =
        routes(&loaded, "chat.example.com").iter().map(|route| route.name.as_str()).collect();
    let hashed = names[4];
    assert_eq!(names, ["/_matrix/", "/_synapse/", "/config.json", "/version", hashed, "/"]);
    for route in &routes(&loaded, "chat.example.com")[2..] {
        for (name, value) in [
            ("x-frame-options", "SAMEORIGIN"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "frame-ancestors 'self'"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
        ] {
            assert_eq!(route.headers[name], value, "{}", route.name);
        }
        assert!(!route.headers.contains_key("x-xss-protection"));
    }
    let route = |path: &str| taker(&loaded, "chat.example.com", path);
    let year = Some(std::time::Duration::from_secs(365 * 86_400));
    assert_eq!(files(route("/bundles/0123456789abcdef0123/bundle.js")).expires, year);
    assert_eq!(files(route("/assets/index-BCfQ_x2d.js")).expires, year);
    for path in
        ["/", "/index.html", "/sw.js", "/version", "/i18n/languages.json", "/config.chat.example.com.json"]
    {
        assert_eq!(files(route(path)).expires, None, "{path}");
        assert_eq!(files(route(path)).precompressed.len(), 3, "{path}");
    }
    let page = files(route("/home/!room:example.com/"));
    assert_eq!((page.index.as_deref(), page.fallback.as_deref()), (Some("index.html"), Some("index.html")));
    assert_eq!(page.root, folder.path().join("client"));
    assert_eq!(files(route("/version")).fallback, None);
    assert!(matches!(route("/_matrix/client/versions").action, Action::Deny(_)));
    // Nothing of it is on the other hosts.
    for host in ["matrix.example.com", "auth.example.com", "example.com"] {
        assert!(
            !routes(&loaded, host).iter().any(|route| matches!(route.action, Action::Static(_))),
            "{host}"
        );
    }
}

#[test]
fn a_config_is_made_that_both_clients_understand() {
    let loaded = load(&folder(), CLIENT, "");
    assert_eq!(
        config(&loaded),
        json!({
            "default_server_config": {
                "m.homeserver": { "base_url": "https://matrix.example.com", "server_name": "example.com" },
            },
            "defaultHomeserver": 0,
            "homeserverList": ["example.com"],
            "allowCustomHomeservers": true,
        })
    );
    let own = "    host: m.example.com:8443
    well_known: false
    web_client: {root: client, config: {brand: Ours, allowCustomHomeservers: false, setting_defaults: {FTUE.userOnboardingButton: false}, default_server_config: {m.identity_server: {base_url: https://id.example.com}}}}";
    assert_eq!(
        config(&load(&folder(), own, "")),
        json!({
            "default_server_config": {
                "m.homeserver": { "base_url": "https://m.example.com:8443", "server_name": "example.com" },
                "m.identity_server": { "base_url": "https://id.example.com" },
            },
            "defaultHomeserver": 0,
            "homeserverList": ["m.example.com:8443"],
            "allowCustomHomeservers": false,
            "brand": "Ours",
            "setting_defaults": { "FTUE.userOnboardingButton": false },
        })
    );
    let named = config(&load(
        &folder(),
        "    web_client: {root: client, config: {default_server_name: example.com}}",
        "",
    ));
    assert_eq!(named["default_server_name"], "example.com");
    assert!(named.get("default_server_config").is_none(), "Element does not start with both");
}

#[test]
fn a_config_of_the_client_is_used_unless_another_is_given() {
    let folder = folder();
    folder.write("client/config.json", r#"{"homeserverList": ["matrix.org"]}"#);
    let loaded = load(&folder, CLIENT, "");
    assert_eq!(loaded.warnings.to_string(), "");
    let given = files(taker(&loaded, "chat.example.com", "/config.json"));
    assert_eq!(given.root, folder.path().join("client"));
    assert_eq!((given.expires, given.precompressed.len()), (None, 0));
    for empty in ["{}", ""] {
        let loaded = load(&folder, &format!("    web_client: {{root: client, config: {empty}}}"), "");
        assert_eq!(config(&loaded)["homeserverList"], json!(["example.com"]));
    }
    for (text, why) in [("{", "is not JSON"), ("[]", "is not a JSON object")] {
        folder.write("client/config.json", text);
        let warnings = load(&folder, CLIENT, "").warnings.to_string();
        assert!(warnings.contains(&format!("client/config.json {why}")), "{warnings}");
    }
}

#[test]
fn a_config_that_is_linked_to_from_the_folder_is_found() {
    // As Debian's package of Element has it.
    let folder = folder();
    fs::create_dir(folder.path().join("etc")).unwrap();
    let file = folder.write("etc/config.json", "{}");
    symlink(&file, folder.path().join("client/config.json")).unwrap();
    let loaded = load(&folder, CLIENT, "");
    assert_eq!(loaded.warnings.to_string(), "");
    let given = files(taker(&loaded, "chat.example.com", "/config.json"));
    assert_eq!(given.root, fs::canonicalize(folder.path().join("etc")).unwrap());
    fs::rename(&file, folder.path().join("etc/element.json")).unwrap();
    fs::remove_file(folder.path().join("client/config.json")).unwrap();
    symlink("../etc/element.json", folder.path().join("client/config.json")).unwrap();
    let warnings = load(&folder, CLIENT, "").warnings.to_string();
    assert!(warnings.contains("call the file config.json"), "{warnings}");
}

#[test]
fn it_may_share_a_host_but_not_with_the_auth_service() {
    let folder = folder();
    let on = |host: &str| format!("    web_client: {{root: client, host: {host}}}");
    let loaded = load(&folder, &on("example.com"), "");
    assert_eq!(loaded.warnings.to_string(), "");
    let route = |path: &str| taker(&loaded, "example.com", path);
    assert!(matches!(route("/.well-known/matrix/client").action, Action::Respond(_)));
    assert_eq!(files(route("/")).index.as_deref(), Some("index.html"));

    let loaded = load(&folder, &on("matrix.example.com"), "");
    assert!(loaded.warnings.to_string().contains("shares its origin with Synapse"));
    let route = |path: &str| taker(&loaded, "matrix.example.com", path);
    assert!(matches!(route("/_matrix/client/versions").action, Action::Upstream(_)));
    assert!(matches!(route("/_matrix/client/v3/login").action, Action::Upstream(_)));
    assert!(matches!(route("/_synapse/mas/x").action, Action::Deny(_)));
    assert_eq!(files(route("/")).index.as_deref(), Some("index.html"));
}

#[test]
fn routes_of_the_user_come_first_and_may_not_hide_it_unsaid() {
    let folder = folder();
    let site = |route: &str| format!("  sites:\n    - {{hosts: [chat.example.com], routes: [{route}]}}\n");
    let loaded = load(&folder, CLIENT, &site("{path: /config.json, respond: {body: \"{}\"}}"));
    assert_eq!(loaded.warnings.to_string(), "");
    assert_eq!(config_body(&loaded), "{}");
    let loaded = load(&folder, CLIENT, &site("{prefix: /, deny: true}"));
    let warnings = loaded.warnings.to_string();
    assert!(warnings.contains("takes every request that the web client should get"), "{warnings}");
}

fn config_body(loaded: &Loaded) -> &str {
    match &taker(loaded, "chat.example.com", "/config.json").action {
        Action::Respond(respond) => &respond.body,
        other => panic!("{other:?}"),
    }
}

#[test]
fn olm_is_found_from_every_page() {
    let folder = folder();
    assert!(
        files(taker(&load(&folder, CLIENT, ""), "chat.example.com", "/home/olm.wasm")).fallback.is_some()
    );
    folder.write("client/olm.wasm", "");
    let loaded = load(&folder, CLIENT, "");
    let Action::Redirect { location, .. } = &taker(&loaded, "chat.example.com", "/home/olm.wasm").action
    else {
        panic!("no redirect");
    };
    assert_eq!(location, "/olm.wasm");
    assert!(matches!(taker(&loaded, "chat.example.com", "/olm.wasm").action, Action::Static(_)));
}

#[test]
fn what_is_shown_is_the_same_configuration() {
    let folder = folder();
    folder.write("client/olm.wasm", "");
    let first = load(&folder, "    web_client: {root: client, config: {brand: \"it's <ours>\"}}", "");
    let again = folder.load(&first.effective);
    assert_eq!(again.effective, first.effective);
    assert_eq!(format!("{:#?}", again.config), format!("{:#?}", first.config));
    assert!(!load(&folder, "    web_client: false", "").effective.contains("chat.example.com"));
}
