//! A web client in the preset: trees as Element Web's and Cinny's releases have them, over the wire.

use serde_json::json;

use super::harness::{Answer, Folder, Gatehouse, Upstream, gatehouse_command, run_to_end};

const HOST: &str = "chat.example.com";

/// Names as Element Web's webpack gives them: bundles in a folder, assets with seven digits, the rest as it is.
fn element(folder: &Folder) {
    for (name, content) in [
        ("index.html", "<!doctype html><title>Element</title>"),
        ("version", "1.12.3"),
        ("sw.js", "sw"),
        ("config.sample.json", "{}"),
        ("welcome.html", "welcome"),
        ("bundles/4f1c5c1d1f0c9f2b7a55/bundle.js", "plain"),
        ("bundles/4f1c5c1d1f0c9f2b7a55/bundle.js.br", "brotli"),
        ("bundles/4f1c5c1d1f0c9f2b7a55/0a1b2c3d.wasm", "\0asm"),
        ("i18n/languages.json", "{}"),
        ("i18n/de_DE.1a2b3c4.json", "{}"),
        ("fonts/Inter-Regular.c8ba521.woff2", "font"),
        ("media/message.ogg", "ogg"),
        ("usercontent/index.html", "sandbox"),
        ("mobile_guide/index.html", "guide"),
    ] {
        folder.write(&format!("client/{name}"), content);
    }
}

/// Names as Cinny's Vite gives them.
fn cinny(folder: &Folder) {
    for (name, content) in [
        ("index.html", "<!doctype html><title>Cinny</title>"),
        ("config.json", r#"{"defaultHomeserver": 0, "homeserverList": ["matrix.org"]}"#),
        ("manifest.json", "{}"),
        ("sw.js", "sw"),
        ("olm.wasm", "\0asm"),
        ("pdf.worker.min.js", "pdf"),
        ("assets/index-BCfQ_x2d.js", "js"),
        ("assets/matrix_sdk_crypto_wasm_bg-DHkP8-Ia.wasm", "\0asm"),
        ("public/locales/de.json", "{}"),
    ] {
        folder.write(&format!("client/{name}"), content);
    }
}

fn serve(folder: &Folder, synapse: &Upstream, web_client: &str) -> Gatehouse {
    let yaml = format!(
        r#"
data_dir: {data:?}
edge:
  matrix:
    server_name: example.com
    synapse: "{synapse}"
    auth: "{synapse}"
    federation_port: false
    web_client: {web_client}
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}]}}]
"#,
        data = folder.path(),
        synapse = synapse.url(),
    );
    Gatehouse::start(folder, &yaml)
}

fn get(edge: &mut Gatehouse, target: &str, fields: &[&str]) -> Answer {
    let host = format!("Host: {HOST}");
    let fields: Vec<&str> = std::iter::once(host.as_str()).chain(fields.iter().copied()).collect();
    edge.client("http").request(&format!("GET {target}"), &fields, b"")
}

const FOR_GOOD: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";

/// Status, caching and type of a file, with the security headers that everything has, errors and 304 too.
fn check(edge: &mut Gatehouse, target: &str, caching: &str, kind: &str) {
    let answer = get(edge, target, &[]).expect(200);
    assert_eq!(answer.header("cache-control"), Some(caching), "{target}");
    assert_eq!(answer.header("content-type"), Some(kind), "{target}");
    is_secure(&answer, target);
    if let Some(etag) = answer.header("etag") {
        let known = get(edge, target, &[&format!("If-None-Match: {etag}")]).expect(304);
        assert_eq!(known.header("cache-control"), Some(caching), "{target}");
        is_secure(&known, target);
    }
}

fn is_secure(answer: &Answer, target: &str) {
    for (name, value) in [
        ("x-frame-options", "SAMEORIGIN"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "frame-ancestors 'self'"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
    ] {
        let values: Vec<&str> = answer
            .headers
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect();
        assert_eq!(values, [value], "{target}: {name}");
    }
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";

#[test]
fn element_web_works_at_once() {
    let (folder, synapse) = (Folder::new(), Upstream::start());
    element(&folder);
    let mut edge = serve(&folder, &synapse, &format!("{:?}", folder.join("client")));
    for (target, caching, kind) in [
        ("/", ASK_AGAIN, HTML),
        ("/?loginToken=x", ASK_AGAIN, HTML),
        ("/index.html", ASK_AGAIN, HTML),
        ("/version", ASK_AGAIN, "application/octet-stream"),
        ("/sw.js", ASK_AGAIN, SCRIPT),
        ("/i18n/languages.json", ASK_AGAIN, JSON),
        ("/usercontent/", ASK_AGAIN, HTML),
        ("/media/message.ogg", ASK_AGAIN, "audio/ogg"),
        ("/bundles/4f1c5c1d1f0c9f2b7a55/bundle.js", FOR_GOOD, SCRIPT),
        ("/bundles/4f1c5c1d1f0c9f2b7a55/0a1b2c3d.wasm", FOR_GOOD, "application/wasm"),
        ("/i18n/de_DE.1a2b3c4.json", FOR_GOOD, JSON),
        ("/fonts/Inter-Regular.c8ba521.woff2", FOR_GOOD, "font/woff2"),
    ] {
        check(&mut edge, target, caching, kind);
    }
    let compressed =
        get(&mut edge, "/bundles/4f1c5c1d1f0c9f2b7a55/bundle.js", &["Accept-Encoding: br, gzip"]).expect(200);
    assert_eq!((compressed.text().as_str(), compressed.header("content-encoding")), ("brotli", Some("br")));

    check(&mut edge, "/config.json", ASK_AGAIN, JSON);
    let config = get(&mut edge, "/config.json?cachebuster=1", &[]).expect(200).json();
    let homeserver = json!({"base_url": "https://matrix.example.com", "server_name": "example.com"});
    assert_eq!(config["default_server_config"]["m.homeserver"], homeserver);
    // Element asks for the one of the host first, and takes only 404 for "there is none".
    let missing = get(&mut edge, "/config.chat.example.com.json", &[]).expect(404);
    is_secure(&missing, "a missing file");
    get(&mut edge, "/bundles/0000000000000000dead/bundle.js", &[]).expect(404);
    let moved = get(&mut edge, "/mobile_guide?x", &[]).expect(308);
    assert_eq!(moved.header("location"), Some("/mobile_guide/?x"));
    is_secure(&moved, "a redirect");
    // Who looks for Synapse here learns that it is not.
    assert_eq!(
        get(&mut edge, "/_matrix/client/versions", &[]).expect(404).json()["errcode"],
        "M_UNRECOGNIZED"
    );
    edge.client("http").request("POST /", &[&format!("Host: {HOST}"), "Content-Length: 0"], b"").expect(405);
    assert_eq!(synapse.requests().len(), 0);
}

#[test]
fn cinny_works_at_once() {
    let (folder, synapse) = (Folder::new(), Upstream::start());
    cinny(&folder);
    let client = format!("{{root: {:?}, config: {{allowCustomHomeservers: false}}}}", folder.join("client"));
    let mut edge = serve(&folder, &synapse, &client);
    for (target, caching, kind) in [
        ("/", ASK_AGAIN, HTML),
        ("/home/%21room%3Aexample.com/", ASK_AGAIN, HTML),
        ("/%23alias%2Fwith%2Fslashes%3Aexample.com/%24event", ASK_AGAIN, HTML),
        ("/login/example.com/?loginToken=x", ASK_AGAIN, HTML),
        ("/manifest.json", ASK_AGAIN, JSON),
        ("/pdf.worker.min.js", ASK_AGAIN, SCRIPT),
        ("/public/locales/de.json", ASK_AGAIN, JSON),
        ("/assets/index-BCfQ_x2d.js", FOR_GOOD, SCRIPT),
        ("/assets/matrix_sdk_crypto_wasm_bg-DHkP8-Ia.wasm", FOR_GOOD, "application/wasm"),
    ] {
        check(&mut edge, target, caching, kind);
    }
    let config = get(&mut edge, "/config.json", &[]).expect(200).json();
    assert_eq!(
        (&config["homeserverList"], &config["defaultHomeserver"], &config["allowCustomHomeservers"]),
        (&json!(["example.com"]), &json!(0), &json!(false))
    );
    let moved = get(&mut edge, "/home/olm.wasm", &[]).expect(308);
    assert_eq!(moved.header("location"), Some("/olm.wasm"));
    // A chunk of the last version is missing, not a page.
    get(&mut edge, "/assets/old-AAAAAAAA.js", &[]).expect(404);
    get(&mut edge, "/.env", &[]).expect(404);
}

#[test]
fn the_client_is_there_while_everything_behind_is_not() {
    let (folder, synapse) = (Folder::new(), Upstream::start());
    cinny(&folder);
    let mut edge = serve(&folder, &synapse, &format!("{:?}", folder.join("client")));
    // The folder's own configuration, since none is given.
    assert_eq!(
        get(&mut edge, "/config.json", &[]).expect(200).json()["homeserverList"],
        json!(["matrix.org"])
    );
    folder.write("client/config.json", r#"{"homeserverList": ["example.com"]}"#);
    assert_eq!(
        get(&mut edge, "/config.json", &[]).expect(200).json()["homeserverList"],
        json!(["example.com"])
    );
    let mut command = gatehouse_command();
    command.args(["maintenance", "on", "-c"]).arg(&edge.configuration);
    assert!(run_to_end(&mut command, "").status.success());
    let on = |line: &str| line.contains("maintenance mode is on").then_some(());
    edge.process.wait_for("that maintenance mode is on", on);
    edge.client("http").get("matrix.example.com", "/_matrix/client/versions").expect(503);
    check(&mut edge, "/home/", ASK_AGAIN, HTML);
}
