//! `GET /connection-info`: what a connection looked like from here, to find out what the proxies in front do to it.

use std::collections::BTreeMap;

use accept::Connection;
use accept::proxy_protocol::{Ssl, Tlvs};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Serialize;
use serde_json::{Value, json};

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
    tlvs: BTreeMap<&'static str, Value>,
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
            tlvs: told(&header.tlvs),
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

/// What the header says beside the addresses, by the names that HAProxy's documentation uses.
fn told(tlvs: &Tlvs) -> BTreeMap<&'static str, Value> {
    let mut told = BTreeMap::new();
    let mut put = |name, value: Option<Value>| told.extend(value.map(|value| (name, value)));
    put("alpn", tlvs.alpn.as_deref().map(readable));
    put("authority", tlvs.authority.as_deref().map(Value::from));
    put("unique_id", tlvs.unique_id.as_deref().map(readable));
    put("ssl", tlvs.ssl.as_ref().map(ssl));
    put("netns", tlvs.netns.as_deref().map(Value::from));
    put("crc32c", tlvs.crc32c.then(|| "verified".into()));
    let others = tlvs
        .others
        .iter()
        .map(|(kind, value)| json!({"type": format!("0x{kind:02x}"), "value": readable(value)}));
    let others: Vec<Value> = others.collect();
    put("others", (!others.is_empty()).then_some(others.into()));
    told
}

fn ssl(ssl: &Ssl) -> Value {
    let certificate = match (ssl.has_certificate(), ssl.is_verified()) {
        (false, _) => "none",
        (true, false) => "not verified",
        (true, true) => "verified",
    };
    json!({
        "tls": ssl.is_tls(),
        "version": ssl.version,
        "cipher": ssl.cipher,
        "client_certificate": certificate,
        "common_name": ssl.common_name,
        "signature_algorithm": ssl.signature_algorithm,
        "key_algorithm": ssl.key_algorithm,
    })
}

/// Text that can be printed as it is, other bytes in hexadecimal.
fn readable(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.into(),
        Ok(_) | Err(_) => bytes.iter().fold("0x".to_owned(), |hex, byte| hex + &format!("{byte:02x}")).into(),
    }
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
    fn fields_of_the_proxy_header_are_shown_as_far_as_there_are_any() {
        assert!(told(&Tlvs::default()).is_empty());
        let fields =
            b"\x02\0\x09a.example\x05\0\x02\xff\n\x20\0\x0f\x03\0\0\0\x01\x21\0\x07TLSv1.2\xea\0\x01v";
        let length = u8::try_from(12 + fields.len()).unwrap();
        let start = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0".as_slice(), &[length], &[0; 12]].concat();
        let (header, _) =
            accept::proxy_protocol::parse(&[&start, fields.as_slice()].concat()).unwrap().unwrap();
        let expected = json!({
            "authority": "a.example",
            "unique_id": "0xff0a",
            "ssl": {
                "tls": true,
                "version": "TLSv1.2",
                "cipher": null,
                "client_certificate": "not verified",
                "common_name": null,
                "signature_algorithm": null,
                "key_algorithm": null,
            },
            "others": [{"type": "0xea", "value": "v"}],
        });
        assert_eq!(json!(told(&header.tlvs)), expected);
    }

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
