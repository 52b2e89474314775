//! `edge.matrix` expanded.

use conf::{Action, Bind, Loaded, Matcher, ProxyVersion, Route, Server, Site};

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
    let methods: String = route.methods.iter().flatten().map(|method| format!(" {method}")).collect();
    format!("{matcher}{methods} → {action}")
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
            "/metrics → 404",
            r#"= /.well-known/matrix/client GET HEAD → {"m.homeserver":{"base_url":"https://matrix.example.com"}}"#,
            r#"= /.well-known/matrix/server GET HEAD → {"m.server":"matrix.example.com:443"}"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ OPTIONS → 204"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ → 405"#,
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
            "/metrics → 404",
            r#"= /.well-known/matrix/client GET HEAD → {"m.homeserver":{"base_url":"https://localhost:8443"}}"#,
            r#"= /.well-known/matrix/server GET HEAD → {"m.server":"localhost:8443"}"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ OPTIONS → 204"#,
            r#"~ ^/\.well-known/matrix/(client|server)$ → 405"#,
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
        matrix[..4],
        [
            "/_synapse/mas → 404",
            "/_synapse/admin → 403",
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
