//! `GET /connection-info`: what a connection looked like from here, to find out what the proxies in front do to it.

use std::collections::BTreeMap;

use accept::Connection;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Serialize;

use super::extract::{Client, Over};

#[derive(Debug, Serialize)]
struct Info {
    /// The socket's other end.
    peer: String,
    /// Who asked, after all trust rules.
    client: String,
    proxy_protocol: Option<ProxyProtocol>,
    tls: Option<Tls>,
    headers: BTreeMap<String, String>,
    listener: String,
    local: Option<String>,
}

#[derive(Debug, Serialize)]
struct ProxyProtocol {
    version: u8,
    command: &'static str,
    source: Option<String>,
    destination: Option<String>,
}

#[derive(Debug, Serialize)]
struct Tls {
    version: &'static str,
    cipher: String,
    server_name: Option<String>,
    alpn: Option<String>,
}

/// Tells what is known of the connection and the headers, without the secrets in them.
pub async fn connection_info(Over(connection): Over, Client(client): Client, headers: HeaderMap) -> Response {
    let Connection { remote, local, proxy_header, tls, listener, .. } = &*connection;
    let info = Info {
        peer: remote.to_string(),
        client: client.to_string(),
        proxy_protocol: proxy_header.as_ref().map(|header| ProxyProtocol {
            version: match header.version {
                conf::ProxyVersion::V1 => 1,
                conf::ProxyVersion::V2 => 2,
            },
            command: match header.command {
                accept::proxy_protocol::Command::Local => "local",
                accept::proxy_protocol::Command::Proxy => "proxy",
            },
            source: header.source.map(|address| address.to_string()),
            destination: header.destination.map(|address| address.to_string()),
        }),
        tls: tls.as_ref().map(|tls| Tls {
            version: tls.version,
            cipher: tls.cipher.clone(),
            server_name: tls.server_name.clone(),
            alpn: tls.alpn.as_deref().map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
        }),
        headers: shown(&headers),
        listener: listener.to_string(),
        local: local.map(|address| address.to_string()),
    };
    ([(header::CACHE_CONTROL, "no-store")], axum::Json(info)).into_response()
}

/// Fields by name, several lines of one joined; the values of those that carry secrets are left out.
fn shown(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = if is_secret(name.as_str()) {
            "<redacted>".into()
        } else {
            String::from_utf8_lossy(value.as_bytes())
        };
        shown
            .entry(name.to_string())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    shown
}

fn is_secret(name: &str) -> bool {
    ["authorization", "cookie", "token", "secret", "password", "key"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn secrets_are_left_out_and_lines_joined() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer abc"),
            ("cookie", "a=b"),
            ("x-api-key", "abc"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let shown = shown(&headers);
        assert!(!shown.values().any(|value| value.contains("abc") || value.contains("a=b")), "{shown:?}");
        assert_eq!(shown["x-forwarded-for"], "192.0.2.1, 192.0.2.2");
    }
}
