//! `example.yaml` and `README.md` name every key that is read, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::source::Value;

const EXAMPLE: &str = include_str!("../../example.yaml");
const README: &str = include_str!("../../README.md");

/// The example with every key in use, `#key` but not `# text`.
fn uncommented() -> String {
    let use_key = |line: &str| {
        let text = line.trim_start();
        match text.strip_prefix('#') {
            Some(key) if !key.starts_with([' ', '#']) && !key.is_empty() => line.replacen('#', "", 1),
            _ => line.to_owned(),
        }
    };
    EXAMPLE.lines().map(use_key).collect::<Vec<_>>().join("\n") + "\n"
}

/// Loads a text beside the files that the example refers to; returns what was read and which keys were asked for.
fn read(text: &str) -> (Result<Config, Report>, BTreeSet<String>, Node) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let names = ["example.com".to_owned(), "*.example.com".to_owned()];
    write("fullchain.pem", &rcgen::CertificateParams::new(names).unwrap().self_signed(&pair).unwrap().pem());
    write("privkey.pem", &pair.serialize_pem());
    write("matrix-secret", "a secret");
    write("encryption-secret", &"5a".repeat(32));
    let path = folder.path().join("gatehouse.yaml");
    fs::write(&path, text).unwrap();
    let mut sources = Sources::default();
    let node = sources.read(&path).unwrap_or_else(|fault| panic!("{fault:?}\n{text}"));
    let context = Context::new(sources, UNIX_EPOCH + Duration::from_secs(1_800_000_000), Vec::new());
    let config = read_config(&context, &node);
    let report = context.report();
    let result = config.map(|(config, _)| config).filter(|_| !report.has_errors()).ok_or(report);
    (result, context.known.into_inner(), node)
}

/// The key paths of a tree, indices left out.
fn paths(node: &Node, above: &str, into: &mut BTreeSet<String>) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let path =
                    if above.is_empty() { entry.key.clone() } else { format!("{above}.{}", entry.key) };
                paths(&entry.node, &path, into);
                into.insert(path);
            }
        }
        Value::List(items) => items.iter().for_each(|item| paths(item, above, into)),
        Value::Null | Value::Scalar { .. } => {}
    }
}

#[test]
fn the_example_equals_the_defaults() {
    let required = "
edge:
  listeners: [{name: http, binds: [{address: \"[::]:80\"}]}]
  sites: [{hosts: [_], routes: [{prefix: /, deny: true}]}]
http: {}
";
    let (example, _, _) = read(EXAMPLE);
    let (defaults, _, _) = read(required);
    let example = example.unwrap_or_else(|report| panic!("{report}"));
    let defaults = defaults.unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(format!("{example:#?}"), format!("{defaults:#?}"));
}

#[test]
fn the_example_has_every_key() {
    let text = uncommented().replace("localhost:8008\n  # http://", "example.com\n  # http://");
    let (config, known, node) = read(&text);
    config.unwrap_or_else(|report| panic!("{report}\n{text}"));
    let mut written = BTreeSet::new();
    paths(&node, "", &mut written);
    // Told in comments: another way to say the same, or sections of MAS that are not used.
    let elsewhere = |path: &str| {
        let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
        let twin = ["certificate", "key", "secret", "encryption", "secret_file"].contains(&key);
        let refused = ["password", "password_file"].contains(&key) && section.ends_with("tls");
        let refused = refused || (section == "edge.tls.certificates" && key.starts_with("password"));
        let bind = section.ends_with(".binds");
        let in_words = section == "database" || path == "http.listeners.resources.path";
        twin || refused || bind || in_words || UNUSED.iter().any(|top| path.split('.').next() == Some(top))
    };
    let missing: Vec<&String> =
        known.iter().filter(|path| !written.contains(*path) && !elsewhere(path)).collect();
    assert!(missing.is_empty(), "not in example.yaml: {missing:#?}");
}

#[test]
fn the_readme_names_every_key() {
    let (_, known, _) = read(&uncommented());
    let last = |path: &String| path.rsplit('.').next().unwrap_or("").to_owned();
    let used = known.iter().filter(|path| !UNUSED.iter().any(|top| path.split('.').next() == Some(top)));
    let missing: BTreeSet<String> =
        used.map(last).filter(|key| !README.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "not in README.md: {missing:#?}");
}

/// The limit of uploads, with a Synapse installed on this machine: files below a folder, with their texts.
fn upload_limit(preset: &str, files: &[(&str, &str)]) -> (Option<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let text = format!(
        "edge:
  matrix: {{server_name: example.com{preset}}}
  listeners: [{{name: http, binds: [{{port: 80}}]}}, {{name: federation, binds: [{{port: 81}}]}}]
"
    );
    let path = folder.path().join("gatehouse.yaml");
    fs::write(&path, text).unwrap();
    let installed = ["homeserver.yaml", "conf.d"].map(|name| folder.path().join(name));
    let loaded = load_in(&[path], UNIX_EPOCH, installed.into()).unwrap_or_else(|report| panic!("{report}"));
    let sites = &loaded.config.edge.as_ref().unwrap().sites;
    let routes = &sites.iter().find(|site| site.name == "matrix.example.com").unwrap().routes;
    let upload = routes.iter().find(|route| route.matcher.matches("/_matrix/media/v3/upload")).unwrap();
    let said = loaded.warnings.to_string().replace(&folder.path().display().to_string(), "");
    (upload.max_body_size.map(|size| size.to_string()), said.lines().next().unwrap_or("").to_owned())
}

#[test]
fn an_installed_synapse_says_how_large_uploads_may_be() {
    let check = |preset, files: &[(&str, &str)], expected: Option<&str>| {
        let (limit, said) = upload_limit(preset, files);
        assert_eq!((limit.as_deref(), said.as_str()), (expected, ""), "{files:?}");
    };
    let main = ("homeserver.yaml", "max_upload_size: 20M\nlisteners: [{port: 8008, tls: no}]\n");
    let name = ("conf.d/server_name.yaml", "server_name: example.com\n");
    check("", &[], None);
    check("", &[main, name], Some("20M"));
    check("", &[("homeserver.yaml", "server_name: example.com\n")], Some("50M"));
    check("", &[main, name, ("conf.d/uploads.yaml", "max_upload_size: 1048576\n")], Some("1M"));
    check("", &[main, name, ("conf.d/uploads.yaml.bak", "max_upload_size: 1\n")], Some("20M"));
    // Another server's, a Synapse elsewhere, or one that was told apart.
    check("", &[main, ("conf.d/server_name.yaml", "server_name: example.org\n")], None);
    check("", &[main], None);
    check("", &[name], None);
    check(", synapse: \"http://10.0.0.7:8008\"", &[main, name], None);
    check(", synapse: \"http://127.0.0.1:8008\"", &[main, name], Some("20M"));
    check(", synapse_config: []", &[main, name], None);
}

#[test]
fn an_installed_synapse_that_is_not_understood_is_a_warning() {
    let (limit, said) =
        upload_limit("", &[("homeserver.yaml", "server_name: example.com\nmax_upload_size: much\n")]);
    assert_eq!(limit, None);
    assert!(
        said.contains("edge.matrix.synapse_config: max_upload_size of /homeserver.yaml is not a size"),
        "{said}"
    );
    let (limit, said) = upload_limit("", &[("homeserver.yaml", "server_name: [\n")]);
    assert_eq!(limit, None);
    assert!(said.contains("/homeserver.yaml is not valid YAML"), "{said}");
}

/// Sections of MAS that are taken with a warning.
const UNUSED: [&str; 10] = [
    "clients",
    "email",
    "upstream_oauth2",
    "branding",
    "captcha",
    "telemetry",
    "templates",
    "policy",
    "oauth",
    "guest_invites",
];
