//! `edge.matrix` expanded.

use std::process::Command;

use conf::{Action, Bind, Loaded, Matcher, ProxyVersion, Rewrite, Route, Server, Site};

use crate::folder::Folder;

const TLS: &str = "  tls:\n    certificates: [{certificate_file: cert.pem, key_file: key.pem}]\n";

fn load(preset: &str, rest: &str) -> Loaded {
    Folder::new().load(&format!("edge:\n  matrix:\n{preset}{TLS}{rest}"))
}

fn site<'a>(loaded: &'a Loaded, name: &str) -> &'a Site {
    loaded.config.edge.as_ref().unwrap().sites.iter().find(|site| site.name == name).unwrap()
}

/// A site in one line per route.
fn routes(site: &Site) -> Vec<String> {
    site.routes.iter().map(line).collect()
}

fn line(route: &Route) -> String {
    let matcher = match &route.matcher {
        Matcher::Path(path) => format!("= {path}"),
        Matcher::Prefix(prefix) => prefix.clone(),
        Matcher::Regex(regex) => format!("~ {regex}"),
    };
    let action = match &route.action {
        Action::Upstream(upstream) => upstream.name.clone(),
        Action::Respond(respond) if respond.status == 200 => respond.body.clone(),
        Action::Respond(respond) => respond.status.as_str().to_owned(),
        Action::Deny(status) => status.as_str().to_owned(),
        other => format!("{other:?}"),
    };
    let rewrite = match &route.rewrite {
        Some(Rewrite::StripPrefix(start)) => format!(" without {start}"),
        Some(Rewrite::ReplacePath(path)) => format!(" {path}"),
        None => String::new(),
    };
    let methods: String = route.methods.iter().flatten().map(|method| format!(" {method}")).collect();
    format!("{matcher}{methods} → {action}{rewrite}")
}

#[test]
fn alone_it_is_a_working_deployment() {
    let loaded = load("    server_name: example.com\n", "");
    assert_eq!(loaded.warnings.to_string(), "");
    let edge = loaded.config.edge.as_ref().unwrap();
    let listeners: Vec<String> = edge
        .listeners
        .iter()
        .map(|listener| {
            format!(
                "{} {:?} tls={} redirect={}",
                listener.name, listener.binds, listener.tls, listener.redirect_https
            )
        })
        .collect();
    assert_eq!(
        listeners,
        [
            "https [Address([::]:443)] tls=true redirect=false",
            "http [Address([::]:80)] tls=false redirect=true",
            "federation [Address([::]:8448)] tls=true redirect=false",
        ]
    );
    assert_eq!(
        routes(site(&loaded, "matrix.example.com")),
        [
            "/_synapse/mas → 404",
            "/_synapse/admin → 403",
            "/_synapse/metrics → 403",
            "~ ^//+_synapse(/|$) → 404",
            "/metrics → 404",
            r#"= /.well-known/matrix/client GET HEAD → {"m.homeserver":{"base_url":"https://matrix.example.com"}}"#,
            r#"= /.well-known/matrix/server GET HEAD → {"m.server":"matrix.example.com:443"}"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ OPTIONS → 204"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ → 405"#,
            "= /_matrix/client/v1/auth_metadata GET HEAD OPTIONS → auth /.well-known/openid-configuration",
            "= /_matrix/client/unstable/org.matrix.msc2965/auth_metadata GET HEAD OPTIONS → auth /.well-known/openid-configuration",
            "~ ^/_matrix/client/(api/)?[^/]+/(login|logout|refresh)(/|$) → auth",
            "/_matrix/ → synapse",
            "/_synapse/client/ → synapse",
            "/_synapse/ → 404",
        ]
    );
    assert_eq!(routes(site(&loaded, "auth.example.com")), ["/metrics → 404", "/ → auth"]);
    assert_eq!(
        routes(site(&loaded, "example.com")),
        [
            r#"= /.well-known/matrix/client GET HEAD → {"m.homeserver":{"base_url":"https://matrix.example.com"}}"#,
            r#"= /.well-known/matrix/server GET HEAD → {"m.server":"matrix.example.com:443"}"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ OPTIONS → 204"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ → 405"#,
        ]
    );
    assert_eq!(
        routes(site(&loaded, "federation")),
        ["/_matrix/federation/ → synapse", "/_matrix/key/ → synapse"]
    );
    assert_eq!(
        site(&loaded, "matrix.example.com").listeners,
        Some(vec!["https".to_owned(), "http".to_owned()])
    );
}

#[test]
fn the_bundled_service_listens_for_the_edge_and_for_synapse() {
    let loaded = load("    server_name: example.com\n", "data_dir: /srv/gatehouse\n");
    let auth = loaded.config.auth.as_ref().unwrap();
    assert_eq!(auth.http.public_base.as_str(), "https://auth.example.com/");
    assert_eq!(auth.matrix.homeserver, "example.com");
    assert_eq!(auth.matrix.endpoint.as_str(), "http://localhost:8008/");
    assert_eq!(auth.database.uri.expose(), "sqlite:///srv/gatehouse/auth.db");
    let [web, internal] = auth.http.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!(web.binds, [Bind::Socket { path: "/srv/gatehouse/auth.sock".into(), mode: Some(0o600) }]);
    assert!(web.proxy_protocol);
    assert_eq!(internal.binds, [Bind::Address("127.0.0.1:8080".parse().unwrap())]);
    assert!(!internal.proxy_protocol);
    let names: Vec<&str> = internal.resources.iter().map(conf::Resource::name).collect();
    assert_eq!(names, ["discovery", "oauth", "health"]);
    let edge = loaded.config.edge.as_ref().unwrap();
    let upstream = edge.upstreams.iter().find(|upstream| upstream.name == "auth").unwrap();
    assert_eq!(upstream.servers, [Server::Unix("/srv/gatehouse/auth.sock".into())]);
    assert_eq!(upstream.proxy_protocol, Some(ProxyVersion::V2));
}

#[test]
fn everything_on_one_localhost_with_a_port() {
    let loaded = load(
        "    server_name: localhost:8443\n    federation_port: false\n    synapse: unix:/run/synapse.sock\n",
        "  listeners: [{name: https, binds: [{address: \"127.0.0.1:8443\"}], tls: true}]\n",
    );
    assert_eq!(loaded.warnings.to_string(), "");
    let edge = loaded.config.edge.as_ref().unwrap();
    assert_eq!(edge.sites.len(), 1);
    assert_eq!(edge.sites[0].listeners, None);
    assert_eq!(
        routes(&edge.sites[0]),
        [
            "/_synapse/mas → 404",
            "/_synapse/admin → 403",
            "/_synapse/metrics → 403",
            "~ ^//+_synapse(/|$) → 404",
            "/metrics → 404",
            r#"= /.well-known/matrix/client GET HEAD → {"m.homeserver":{"base_url":"https://localhost:8443"}}"#,
            r#"= /.well-known/matrix/server GET HEAD → {"m.server":"localhost:8443"}"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ OPTIONS → 204"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ → 405"#,
            "= /_matrix/client/v1/auth_metadata GET HEAD OPTIONS → auth /.well-known/openid-configuration",
            "= /_matrix/client/unstable/org.matrix.msc2965/auth_metadata GET HEAD OPTIONS → auth /.well-known/openid-configuration",
            "~ ^/_matrix/client/(api/)?[^/]+/(login|logout|refresh)(/|$) → auth",
            "/_matrix/ → synapse",
            "/_synapse/client/ → synapse",
            "/_synapse/ → 404",
            "/ → auth",
        ]
    );
    let auth = loaded.config.auth.as_ref().unwrap();
    assert_eq!(auth.http.public_base.as_str(), "https://localhost:8443/");
    assert_eq!(auth.matrix.homeserver, "localhost:8443");
    assert_eq!(auth.matrix.endpoint.as_str(), "unix:///run/synapse.sock");
}

#[test]
fn login_route_is_exact() {
    let loaded = load("    server_name: example.com\n", "");
    let route = site(&loaded, "matrix.example.com").routes.iter().find(|route| route.name.contains("login"));
    let Matcher::Regex(regex) = &route.unwrap().matcher else { panic!("a regular expression") };
    for login in [
        "/_matrix/client/v3/login",
        "/_matrix/client/api/v1/login",
        "/_matrix/client/r0/logout/all",
        "/_matrix/client/v3/refresh",
        "/_matrix/client/v3/login/sso/redirect/oidc",
        "/_matrix/client/v3/login/",
    ] {
        assert!(regex.is_match(login), "{login}");
    }
    for other in [
        "/_matrix/client/v1/media/download/example.com/login.png",
        "/_matrix/client/v3/rooms/!a:b/state/m.key/login",
        "/_matrix/client/v3/logins",
        "/_matrix/client/login",
        "/x/_matrix/client/v3/login",
    ] {
        assert!(!regex.is_match(other), "{other}");
    }
}

#[test]
fn an_auth_service_elsewhere() {
    let loaded =
        load("    server_name: example.com\n    auth: http://mas:8080\n    admin_allow: [10.0.0.0/8]\n", "");
    assert!(loaded.config.auth.is_none());
    let edge = loaded.config.edge.as_ref().unwrap();
    let upstream = edge.upstreams.iter().find(|upstream| upstream.name == "auth").unwrap();
    assert_eq!(upstream.servers, [Server::Tcp { host: "mas".to_owned(), port: 8080, tls: false }]);
    let admin = &site(&loaded, "matrix.example.com").routes[1];
    assert_eq!(line(admin), "/_synapse/admin → synapse");
    assert_eq!(admin.allow.as_ref().unwrap()[0].to_string(), "10.0.0.0/8");
}

#[test]
fn named_upstreams_and_own_routes() {
    let loaded = load(
        "    server_name: example.com\n    synapse: hs\n    auth: mas\n",
        "  upstreams:
    hs: {servers: [\"hs:8008\"]}
    mas: {servers: [\"unix:/run/mas.sock\"], proxy_protocol: v1}
    web: {servers: [\"web:80\"], forwarded_for: append}
  sites:
    - hosts: [matrix.example.com]
      routes: [{prefix: /, upstream: web}, {path: /.well-known/matrix/client, deny: 410}]
    - hosts: [chat.example.com, \"*.example.org\", _]
      routes: [{prefix: /, upstream: web}]
",
    );
    let matrix = routes(site(&loaded, "matrix.example.com"));
    assert_eq!(
        matrix[..6],
        [
            "/_synapse/mas → 404",
            "/_synapse/admin → 403",
            "/_synapse/metrics → 403",
            "~ ^//+_synapse(/|$) → 404",
            "/metrics → 404",
            "= /.well-known/matrix/client → 410"
        ]
    );
    assert_eq!(matrix.last().unwrap(), "/ → web");
    let chat = site(&loaded, "chat.example.com");
    assert_eq!(routes(chat), ["/ → web"]);
    assert_eq!(chat.listeners, Some(vec!["https".to_owned(), "http".to_owned()]));
}

#[test]
fn own_http_listeners_are_found_by_the_edge() {
    let loaded = load(
        "    server_name: example.com\n",
        "http:
  listeners:
    - resources: [{name: health}]
      binds: [{port: 8081}]
    - name: web
      resources: [{name: compat}, {name: discovery}, {name: oauth}]
      binds: [{address: \"[::]:8080\"}]
      proxy_protocol: true
",
    );
    let edge = loaded.config.edge.as_ref().unwrap();
    let upstream = edge.upstreams.iter().find(|upstream| upstream.name == "auth").unwrap();
    assert_eq!(upstream.servers, [Server::Tcp { host: "::1".to_owned(), port: 8080, tls: false }]);
    assert_eq!(upstream.proxy_protocol, Some(ProxyVersion::V2));
    assert_eq!(loaded.config.auth.as_ref().unwrap().http.listeners[0].name, "http[0]");
}

/// Sites of one's own, each with one route.
fn own_sites(routes: &[&str]) -> String {
    let mut text = "  upstreams: {synapse: {servers: [\"localhost:8008\"]}, same: {servers: [\"localhost:8008\", \"b:1\"]}, other_name: {servers: [\"127.0.0.1:8008\"]}, web: {servers: [\"web:80\"]}}\n  sites:\n".to_owned();
    for (number, route) in routes.iter().enumerate() {
        text.push_str(&format!("    - {{hosts: [own{number}.example.com], routes: [{route}]}}\n"));
    }
    text
}

#[test]
fn sites_of_ones_own_don_t_open_what_is_never_public() {
    let preset = "    server_name: example.com\n    synapse: synapse\n    admin_allow: [10.0.0.0/8]\n";
    let loaded = load(
        preset,
        &own_sites(&[
            "{prefix: /, upstream: same}",
            "{prefix: /hs/, upstream: synapse, strip_prefix: /hs}",
            "{prefix: /_matrix/, upstream: synapse}, {prefix: /, upstream: web}",
            "{prefix: /, upstream: web}",
            "{path: /x, upstream: other_name}",
        ]),
    );
    assert_eq!(loaded.warnings.to_string(), "");
    let never = [
        "/_synapse/mas → 404",
        "/_synapse/admin → synapse",
        "/_synapse/metrics → synapse",
        "~ ^//+_synapse(/|$) → 404",
    ];
    let of = |number| routes(site(&loaded, &format!("own{number}.example.com")));
    assert_eq!(of(0), [&never[..], &["/metrics → 404", "/ → same"]].concat());
    let below = [
        "/hs/_synapse/mas → 404",
        "/hs/_synapse/admin → synapse without /hs",
        "/hs/_synapse/metrics → synapse without /hs",
        "~ ^/hs//+_synapse(/|$) → 404",
        "/hs/ → synapse without /hs",
    ];
    assert_eq!(of(1), [&never[..], &below].concat());
    assert_eq!(of(2), [&never[..], &["/_matrix/ → synapse", "/ → web"]].concat());
    assert_eq!(of(3), ["/ → web"]);
    assert_eq!(of(4), [&never[..], &["= /x → other_name"]].concat());
    for site in &loaded.config.edge.as_ref().unwrap().sites {
        for admin in site.routes.iter().filter(|route| route.name.contains("/_synapse/admin")) {
            assert!(admin.allow.is_some(), "{}", site.name);
        }
    }
}

#[test]
fn a_host_that_other_servers_are_told_is_served_on_the_federation_port() {
    let loaded = load(
        "    server_name: example.com\n    well_known: {server: {m.server: \"fed.example.com:8448\"}}\n",
        "",
    );
    let hosts: Vec<String> = site(&loaded, "federation").hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["example.com", "matrix.example.com", "fed.example.com"]);
}

#[test]
fn a_server_name_with_a_port_is_served_there() {
    let loaded = load("    server_name: example.com:8448\n", "");
    assert_eq!(loaded.warnings.to_string(), "");
    let domain = routes(site(&loaded, "example.com"));
    assert!(domain.contains(&"/_matrix/federation/ → synapse".to_owned()), "{domain:?}");
    assert!(domain.contains(&"/_matrix/key/ → synapse".to_owned()), "{domain:?}");
}

#[test]
fn uploads_may_be_as_large_as_synapse_takes_them() {
    let limit = |limits: &str, files: &[(&str, &str)], named: &str| {
        let folder = Folder::new();
        for (name, text) in files {
            folder.write(name, text);
        }
        let text = format!(
            "edge:\n  matrix:\n    server_name: example.com\n    synapse_config: {named}\n{TLS}{limits}"
        );
        let loaded = folder.load(&text);
        let again = folder.load(&loaded.effective);
        assert_eq!(again.effective, loaded.effective);
        let edge = loaded.config.edge.as_ref().unwrap();
        let host = site(&loaded, "matrix.example.com");
        let of = |path: &str| {
            let route = host.routes.iter().find(|route| route.matcher.matches(path)).unwrap();
            route.max_body_size.unwrap_or(edge.limits.max_body_size).to_string()
        };
        for upload in [
            "/_matrix/media/r0/upload",
            "/_matrix/media/v3/upload/example.com/abc",
            "/_matrix/client/v1/media/upload",
        ] {
            assert_eq!(of(upload), of("/_matrix/media/v3/upload"));
        }
        for other in
            ["/_matrix/client/v3/keys/upload", "/_matrix/media/v1/create", "/_matrix/media/v3/uploads"]
        {
            assert_eq!(of(other), edge.limits.max_body_size.to_string(), "{other}");
        }
        (of("/_matrix/media/v3/upload"), loaded.warnings.diagnostics.len())
    };
    let check = |limits, files: &[(&str, &str)], named, upload: &str, warnings| {
        assert_eq!(limit(limits, files, named), (upload.to_owned(), warnings), "{limits} {files:?}");
    };
    let large = ("hs.yaml", "server_name: example.com\nmax_upload_size: 200M\n");
    let small = ("hs.yaml", "server_name: example.com\nmax_upload_size: 1024K\n");
    check("", &[large], "hs.yaml", "200M", 0);
    check("", &[small], "hs.yaml", "1M", 0);
    check("", &[large, ("more.yaml", "max_upload_size: 300M\n")], "[hs.yaml, more.yaml]", "300M", 0);
    check("", &[("hs.yaml", "server_name: example.com\n")], "hs.yaml", "50M", 0);
    check("", &[], "[]", "50M", 0);
    check("  limits: {max_body_size: 100M}\n", &[large], "hs.yaml", "100M", 1);
    check("  limits: {max_body_size: 100M}\n", &[small], "hs.yaml", "1M", 0);
    check("  limits: {max_body_size: 100M}\n", &[], "[]", "100M", 0);
    // A pipe is not waited for.
    let folder = Folder::new();
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    let loaded =
        folder.load(&format!("edge:\n  matrix: {{server_name: example.com, synapse_config: pipe}}\n{TLS}"));
    assert!(loaded.warnings.to_string().contains("pipe cannot be read (it is not a file)"));
    // A file that cannot be used leaves the general limit.
    check("", &[], "hs.yaml", "50M", 1);
    check("", &[("hs.yaml", "max_upload_size: large\n")], "hs.yaml", "50M", 1);
    check("", &[("hs.yaml", "a: [\n")], "hs.yaml", "50M", 1);
}

#[test]
fn calls_go_to_livekit_and_its_token_service() {
    let loaded = load(
        "    server_name: example.com\n    rtc: {livekit: \"http://localhost:7880\", token_service: jwt}\n",
        "  upstreams: {jwt: {servers: [\"localhost:8070\"]}}\n",
    );
    assert_eq!(loaded.warnings.to_string(), "");
    let host = routes(site(&loaded, "matrix.example.com"));
    for expected in
        ["/livekit/sfu/ → livekit without /livekit/sfu", "/livekit/jwt/ → jwt without /livekit/jwt"]
    {
        assert!(host.contains(&expected.to_owned()), "{host:#?}");
    }
    let domain = routes(site(&loaded, "example.com"));
    assert!(!domain.iter().any(|route| route.starts_with("/livekit")), "{domain:#?}");
}
