//! What an upstream gets: the target byte for byte, the Host as received, our word on who asked, nothing hop-by-hop.

use super::harness::{Answer, Certificates, Client, Folder, Gatehouse, Reply, Upstream};

const HOST: &str = "matrix.example.com";

struct Edge {
    gatehouse: Gatehouse,
    upstream: Upstream,
    certificates: Certificates,
    _folder: Folder,
}

fn edge(upstream: Upstream) -> Edge {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[HOST]);
    let yaml = format!(
        r#"
edge:
  listeners:
    - {{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
    - {{name: http, binds: [{{address: "127.0.0.1:0"}}]}}
  {tls}
  upstreams: {{synapse: {{servers: ["{upstream}"]}}}}
  sites:
    - hosts: [{HOST}]
      routes:
        - {{prefix: /_matrix, upstream: synapse}}
        - {{prefix: /plain, upstream: synapse}}
"#,
        tls = certificates.yaml(),
        upstream = upstream.address,
    );
    Edge { gatehouse: Gatehouse::start(&folder, &yaml), upstream, certificates, _folder: folder }
}

impl Edge {
    fn tls(&mut self) -> Client {
        Client::tls(&self.certificates, HOST, self.gatehouse.tcp("https"))
    }

    fn request(&mut self, line: &str, headers: &[&str]) -> Answer {
        let host = format!("Host: {HOST}");
        let headers: Vec<&str> = std::iter::once(host.as_str()).chain(headers.iter().copied()).collect();
        self.tls().request(line, &headers, b"")
    }
}

/// A signature of the federation API covers every byte of these.
const FEDERATION_TARGETS: &[&str] = &[
    "/_matrix/federation/v1/query/directory?room_alias=%23a%2Fb%3Aexample.com",
    "/_matrix/federation/v1/state_ids/%21room%2fwith%2Fslashes%23and%3Fmore:example.com?event_id=%24x%2by",
    "/_matrix/federation/v1/event/%24%61bc%7E%7e%5Fx?a=%2F%2f&&b==&c&=d&e=f+g%20h;i=j&b=again?yes",
    "/_matrix/federation/v1/make_join/%21a%C3%A9%c3%a9:example.com/@b:example.com?ver=1&ver=2&ver=%31",
    "/_matrix/client/v3/rooms//double//slash",
    "/_matrix/client/v3/directory/room/%23caf%C3%A9?",
];

#[test]
fn a_target_reaches_the_upstream_byte_for_byte_over_http_1() {
    let mut edge = edge(Upstream::start());
    for target in FEDERATION_TARGETS {
        edge.request(&format!("GET {target}"), &[]).expect(200);
        edge.upstream.wait_for(|request| request.target() == *target);
    }
}

#[test]
fn a_target_reaches_the_upstream_byte_for_byte_over_http_2() {
    let mut edge = edge(Upstream::start());
    let ca = edge.certificates.ca.clone();
    let curl = edge.gatehouse.curl("https", &ca);
    for target in FEDERATION_TARGETS {
        let url = format!("https://{HOST}:{{edge}}{target}");
        let said = curl.run(
            &[HOST],
            &["--http2", "--path-as-is", "-g", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", &url],
        );
        assert_eq!(said, "200 2", "{target}");
        edge.upstream.wait_for(|request| request.target() == *target);
    }
}

#[test]
fn the_upstream_hears_from_us_who_asked_and_how() {
    let mut edge = edge(Upstream::start());
    let port = edge.gatehouse.tcp("https").port();
    let host = format!("Host: {HOST}:{port}");
    edge.tls()
        .request(
            "GET /_matrix/client/versions",
            &[
                &host,
                "X-Forwarded-For: 198.51.100.1",
                "X-Forwarded-Proto: gopher",
                "X-Forwarded-Host: evil.example",
                "Forwarded: for=198.51.100.1",
            ],
            b"",
        )
        .expect(200);
    let seen = edge.upstream.only();
    assert_eq!(seen.header("host").unwrap(), format!("{HOST}:{port}"));
    assert_eq!(seen.header("x-forwarded-for").unwrap(), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto").unwrap(), "https");
    assert_eq!(seen.header("x-forwarded-host").unwrap(), format!("{HOST}:{port}"));
    let forwarded = seen.header("forwarded").unwrap();
    assert!(forwarded.contains("for=127.0.0.1") && forwarded.contains("proto=https"), "{forwarded}");
    assert!(!forwarded.contains("198.51.100.1"), "{forwarded}");
}

#[test]
fn hop_by_hop_fields_end_at_the_edge_in_both_directions() {
    let mut edge = edge(Upstream::answering(|_| {
        Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
              Proxy-Authenticate: Basic\r\nX-End-To-End: 1\r\n\r\n{}"
                .to_vec(),
        )
    }));
    let answer = edge.request(
        "GET /_matrix/x",
        &[
            "Connection: X-Mine, Keep-Alive",
            "X-Mine: 1",
            "Keep-Alive: 5",
            "TE: trailers",
            "Proxy-Connection: close",
            "X-Other: 1",
        ],
    );
    let answer = answer.expect(200);
    for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.header(name), None, "{name} came back");
    }
    assert_eq!(answer.header("x-end-to-end"), Some("1"));
    let seen = edge.upstream.only();
    for name in ["x-mine", "keep-alive", "te", "proxy-connection"] {
        assert_eq!(seen.headers(name), Vec::<String>::new(), "{name} went through");
    }
    assert_eq!(seen.header("x-other").unwrap(), "1");
}

#[test]
fn our_own_errors_are_json_for_matrix_and_html_for_people() {
    let mut edge = edge(Upstream::start());
    let answer = edge.tls().get(HOST, "/elsewhere").expect(404);
    assert!(
        answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")),
        "{:?}",
        answer.headers
    );

    let refused = edge.tls().get(HOST, "/_matrix/client/..%2f..%2fx");
    let refused = refused.expect(400);
    assert_eq!(refused.json()["errcode"], "M_UNRECOGNIZED");
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    assert_eq!(edge.upstream.requests().len(), 0);
}

#[test]
fn a_request_that_two_sides_could_read_differently_is_refused() {
    let mut edge = edge(Upstream::start());
    for head in [
        "POST /_matrix/x HTTP/1.1\r\nHost: matrix.example.com\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /_matrix/x HTTP/1.1\r\nHost: matrix.example.com\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "GET /_matrix/x HTTP/1.1\r\nHost: matrix.example.com\r\nHost: other.example\r\n\r\n",
        "GET /_matrix/x HTTP/1.1\r\nHost: matrix.example.com\r\nX-Folded: a\r\n b\r\n\r\n",
        "GET /_matrix/x HTTP/1.1\r\n\r\n",
        "POST /_matrix/x HTTP/1.1\r\nHost: matrix.example.com\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut client = edge.gatehouse.client("http");
        let _ = client.try_send(head);
        let answer = client.try_receive();
        assert!(
            answer.as_ref().is_none_or(|answer| matches!(answer.status, 400 | 501)),
            "{head:?}: {answer:?}"
        );
    }
    assert_eq!(edge.upstream.requests().len(), 0);
}
