//! Who is let in where: hosts, ports, and the way from HTTP to HTTPS.

use std::net::Ipv4Addr;

use super::deployment::{AUTH, DOMAIN, MATRIX, deploy};
use crate::harness::{Client, PASSWORD, Peer, federation, password_login};

/// "The first server block is the default": an address or a stranger's name then reaches Synapse, and what is open there.
#[test]
fn a_host_that_nobody_configured_is_nobodys() {
    let deployment = deploy();
    for host in [
        "other.example",
        "127.0.0.1",
        "[::1]",
        "localhost",
        "matrix.example.com.other.example",
        "xmatrix.example.com",
        "x.matrix.example.com",
    ] {
        for target in [
            "/",
            "/_matrix/client/versions",
            "/_matrix/client/v3/login",
            "/_matrix/federation/v1/version",
            "/_synapse/client/x",
            "/.well-known/matrix/client",
        ] {
            // The certificate that TLS asked for does not count.
            deployment.client(MATRIX).get(host, target).expect(404);
            let mut federation =
                Client::tls(&deployment.certificates, MATRIX, deployment.address("federation"));
            federation.get(host, target).expect(404);
        }
    }
    assert!(deployment.synapse.requests().is_empty() && deployment.auth.requests().is_empty());
}

/// Exact comparison with `Host` fails as soon as it has a port, which servers always send:
/// <https://github.com/matrix-org/synapse/pull/11128>; and Synapse sends itself elsewhere when it does not see the port:
/// <https://github.com/element-hq/synapse/issues/18359>.
#[test]
fn a_host_with_a_port_is_the_same_host_and_keeps_the_port() {
    let deployment = deploy();
    for host in [
        MATRIX.to_owned(),
        format!("{MATRIX}:443"),
        format!("{MATRIX}:8443"),
        "MATRIX.Example.com".to_owned(),
    ] {
        deployment.client(MATRIX).get(&host, "/_matrix/client/versions").expect(200);
        let seen = deployment.synapse.requests().pop().unwrap();
        assert_eq!(seen.header("host").as_deref(), Some(host.as_str()));
        assert_eq!(seen.header("x-forwarded-host").as_deref(), Some(host.as_str()));
    }
}

/// Found by an SRV record, a server is called by one name in TLS and in `Host` by the same or another; Apache refused the second:
/// <https://github.com/matrix-org/synapse/issues/3843>
#[test]
fn the_name_in_tls_and_the_host_may_differ() {
    let deployment = deploy();
    for (tls, host) in [(DOMAIN, MATRIX), (MATRIX, DOMAIN), (AUTH, MATRIX)] {
        let address = deployment.address("federation");
        let mut client = Client::tls(&deployment.certificates, tls, address);
        client.get(&format!("{host}:8448"), "/_matrix/federation/v1/version").expect(200);
    }
}

/// `location / { proxy_pass … }` on 8448 is a second way to the whole of Synapse:
/// <https://github.com/spantaleev/matrix-docker-ansible-deploy/issues/685>
#[test]
fn the_federation_port_is_no_way_around_the_other_one() {
    let alpha: &Peer = &federation().alpha;
    let host = "matrix.alpha.test";
    let login = "/_matrix/client/v3/login";
    let body = password_login("around", PASSWORD);
    let token = format!("Authorization: Bearer {}", alpha.log_in("around"));
    let whoami = "GET /_matrix/client/v3/account/whoami";
    for host in [host, "alpha.test"] {
        let named = format!("Host: {host}");
        let fields = [named.as_str(), token.as_str()];
        alpha.client("federation", host).request(whoami, &fields, b"").expect(404);
        alpha.client("federation", host).post(host, login, None, &body).expect(404);
        let version =
            alpha.client("federation", host).get(host, "/_matrix/federation/v1/version").expect(200);
        assert_eq!(version.json()["server"]["name"], "Synapse");
        let keys = alpha.client("federation", host).get(host, "/_matrix/key/v2/server").expect(200);
        assert_eq!(keys.json()["server_name"], "alpha.test");
    }
    alpha.client("https", host).request(whoami, &[&format!("Host: {host}"), &token], b"").expect(200);
    let strangers = Ipv4Addr::new(127, 0, 0, 13);
    let admin = "/_synapse/admin/v1/server_version";
    alpha.client_from(strangers, "https", host).get(host, admin).expect(403);
}

/// A redirect that drops the query, decodes the path, or makes a `GET` of a `POST`; and one that certificates cannot be renewed
/// through, because the challenge is not there where it leads to.
#[test]
fn http_leads_to_the_same_place_on_https() {
    let deployment = deploy();
    for (host, target) in [
        (MATRIX, "/_matrix/client/v3/directory/room/%23a%2Fb%3Aexample.com?x=%2F&y"),
        (DOMAIN, "/.well-known/matrix/client"),
        (DOMAIN, "/.well-known/matrix/server"),
        (AUTH, "/login?next=%2Faccount"),
    ] {
        for method in ["GET", "POST"] {
            let fields = [format!("Host: {host}")];
            let fields = fields.each_ref().map(String::as_str);
            let answer =
                deployment.plain("http").request(&format!("{method} {target}"), &fields, b"").expect(308);
            assert_eq!(answer.header("location"), Some(format!("https://{host}{target}").as_str()));
        }
    }
    for name in ["client", "server"] {
        let target = format!("/.well-known/matrix/{name}");
        deployment.client(DOMAIN).get(DOMAIN, &target).expect(200);
    }
    let challenge = "/.well-known/acme-challenge/token";
    let answer = deployment.plain("http").get(DOMAIN, challenge).expect(308);
    assert_eq!(answer.header("location"), Some(format!("https://{DOMAIN}{challenge}").as_str()));
    assert_eq!(deployment.client(DOMAIN).get(DOMAIN, challenge).expect(200).text(), "key authorization");
    assert!(deployment.synapse.requests().is_empty() && deployment.auth.requests().is_empty());
}
