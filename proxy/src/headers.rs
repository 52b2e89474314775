//! Header fields on their way through: hop-by-hop fields are removed both ways (RFC 9110 §7.6.1), and the fields that
//! say who asked are set by us, whatever the client sent. Functions over [`Fields`], so that every way of forwarding
//! uses the same ones. `Host`, framing and everything else stay as they are.

use std::fmt::Write;
use std::net::IpAddr;

use accept::{ClientAddress, Remote};
use conf::ForwardedFor;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};

/// A set of header fields that can be changed: a plain map, or one of Pingora's types that remember the names' case.
pub(crate) trait Fields {
    /// All fields.
    fn map(&self) -> &HeaderMap;
    /// Sets a field, replacing all of that name.
    fn set(&mut self, name: &'static str, value: HeaderValue);
    /// Removes all fields of that name.
    fn remove(&mut self, name: &HeaderName);
}

impl Fields for HeaderMap {
    fn map(&self) -> &HeaderMap {
        self
    }

    fn set(&mut self, name: &'static str, value: HeaderValue) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            self.insert(name, value);
        }
    }

    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }
}

impl Fields for pingora_http::RequestHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }

    fn set(&mut self, name: &'static str, value: HeaderValue) {
        // Fails for a name that is none, and ours are.
        let _ = self.insert_header(name, value);
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

impl Fields for pingora_http::ResponseHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }

    fn set(&mut self, name: &'static str, value: HeaderValue) {
        let _ = self.insert_header(name, value);
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

/// What an upstream is told about the request.
#[derive(Debug, Clone)]
pub(crate) struct Origin<'a> {
    /// Who asked.
    pub(crate) client: ClientAddress,
    /// Who opened the connection.
    pub(crate) remote: Remote,
    /// Whether the client spoke TLS, to us or to a proxy whose PROXY header says so.
    pub(crate) is_tls: bool,
    /// Host and port as received; `None` only for what the gate refuses.
    pub(crate) host: Option<&'a HeaderValue>,
    /// How `X-Forwarded-For` is written.
    pub(crate) forwarded_for: ForwardedFor,
}

/// Makes a request's fields ready for an upstream.
pub(crate) fn to_upstream(fields: &mut impl Fields, origin: &Origin<'_>) {
    let forwarded_for = forwarded_for(fields.map(), origin);
    let is_websocket = is_websocket(fields.map());
    remove_nominated(fields);
    remove_where(fields, |name| is_hop_by_hop(name) || is_forgeable(name));
    if is_websocket {
        fields.set("Connection", HeaderValue::from_static("Upgrade"));
        fields.set("Upgrade", HeaderValue::from_static("websocket"));
    }
    if let Some(value) = forwarded_for {
        fields.set("X-Forwarded-For", value);
    }
    let proto = if origin.is_tls { "https" } else { "http" };
    fields.set("X-Forwarded-Proto", HeaderValue::from_static(proto));
    let host = origin.host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    if let Some(value) = origin.host {
        fields.set("X-Forwarded-Host", value.clone());
    }
    if let Ok(value) = HeaderValue::from_str(&forwarded(origin.client, host, proto)) {
        fields.set("Forwarded", value);
    }
}

/// One `Cookie` of the pieces that HTTP/2 may send it in (RFC 9113 §8.2.3): a server behind us may read the first only.
pub(crate) fn join_cookies(fields: &mut impl Fields) {
    let mut pieces = fields.map().get_all(COOKIE).iter();
    if pieces.next().is_none() || pieces.next().is_none() {
        return;
    }
    let pieces: Vec<_> = fields.map().get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        fields.set("Cookie", joined);
    }
}

/// Makes an answer's fields ready for the client. Framing is left alone; the engine writes it anew for the client.
pub(crate) fn from_upstream(fields: &mut impl Fields, status: StatusCode) {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    remove_nominated(fields);
    remove_where(fields, |name| is_hop_by_hop(name) && *name != TRANSFER_ENCODING);
}

/// Whether the request asks for a WebSocket (RFC 6455 §4.1), the only upgrade that is forwarded.
pub(crate) fn is_websocket(fields: &HeaderMap) -> bool {
    fields.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && connection_options(fields).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// The value of `X-Forwarded-For`; `None` when nobody knows who asked.
fn forwarded_for(fields: &HeaderMap, origin: &Origin<'_>) -> Option<HeaderValue> {
    let value = match origin.forwarded_for {
        ForwardedFor::Replace => origin.client.ip()?.to_string(),
        ForwardedFor::Append => {
            let mut chain = String::new();
            for value in fields.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()) {
                chain.push_str(value);
                chain.push_str(", ");
            }
            match origin.remote.ip() {
                Some(ip) => {
                    let _ = write!(chain, "{ip}");
                }
                None => chain.truncate(chain.len().saturating_sub(2)),
            }
            chain
        }
    };
    HeaderValue::from_str(&value).ok().filter(|value| !value.is_empty())
}

/// RFC 7239 §4: one element, ours.
fn forwarded(client: ClientAddress, host: &str, proto: &str) -> String {
    let mut element = String::with_capacity(80);
    // Writing to a String cannot fail.
    let _ = match client.ip() {
        Some(IpAddr::V4(ip)) => write!(element, "for={ip}"),
        Some(IpAddr::V6(ip)) => write!(element, "for=\"[{ip}]\""),
        None => write!(element, "for=unknown"),
    };
    let is_token =
        host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let _ = if is_token {
        write!(element, ";host={host};proto={proto}")
    } else {
        write!(element, ";host=\"{host}\";proto={proto}")
    };
    element
}

/// Names in `Connection` (RFC 9110 §7.6.1).
fn connection_options(fields: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = fields.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|option| !option.is_empty())
}

/// Removes the fields that `Connection` names, but those that say what the message is.
fn remove_nominated(fields: &mut impl Fields) {
    if !fields.map().contains_key(CONNECTION) {
        return;
    }
    let names: Vec<HeaderName> = connection_options(fields.map())
        .filter_map(|option| HeaderName::from_bytes(option.as_bytes()).ok())
        .filter(|name| ![CONTENT_LENGTH, TRANSFER_ENCODING, HOST].contains(name))
        .collect();
    for name in &names {
        fields.remove(name);
    }
}

/// Removes the fields whose name is chosen: one look at the names that are there, not one per name that may be.
fn remove_where(fields: &mut impl Fields, is_chosen: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = fields.map().keys().filter(|name| is_chosen(name)).cloned().collect();
    for name in &names {
        fields.remove(name);
    }
}

/// Fields between two neighbours, always removed (RFC 9110 §7.6.1, §11.7; RFC 9113 §8.2.2).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == TE
        || *name == TRAILER
        || *name == UPGRADE
        || *name == PROXY_AUTHORIZATION
        || *name == PROXY_AUTHENTICATE
        || matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "http2-settings" | "proxy-authentication-info"
        )
}

/// Fields with which a client could say who it is, or what it asks for, past us. A name with `_` is dropped because
/// CGI and WSGI servers cannot tell it from the same name with `-`.
fn is_forgeable(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.as_bytes().first() {
        Some(b'x') if name.starts_with("x-forwarded") => true,
        Some(b'x')
            if matches!(name, "x-real-ip" | "x-client-ip" | "x-cluster-client-ip" | "x-remote-addr") =>
        {
            true
        }
        Some(b'x') if matches!(name, "x-original-url" | "x-rewrite-url" | "x-original-forwarded-for") => true,
        Some(b'f') if name == "forwarded" => true,
        Some(b't') if name == "true-client-ip" => true,
        Some(b'c') if matches!(name, "client-ip" | "cf-connecting-ip") => true,
        // Becomes the environment variable HTTP_PROXY of CGI programs.
        Some(b'p') if name == "proxy" => true,
        Some(_) | None => name.contains('_'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        map
    }

    fn text(map: &HeaderMap) -> String {
        let mut lines: Vec<_> =
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines.join("\n")
    }

    fn origin(client: &str, host: &'static str, forwarded_for: ForwardedFor) -> Origin<'static> {
        let host = Some(&*Box::leak(Box::new(HeaderValue::from_static(host))));
        let remote = Remote::from(std::net::SocketAddr::new("192.0.2.9".parse().unwrap(), 4711));
        let client = client.parse::<IpAddr>().map_or(ClientAddress::UNKNOWN, ClientAddress::from);
        Origin { client, remote, is_tls: true, host, forwarded_for }
    }

    fn check(sent: &str, origin: &Origin<'_>, received: &str) {
        let mut map = fields(sent);
        to_upstream(&mut map, origin);
        assert_eq!(text(&map), text(&fields(received)));
    }

    #[test]
    fn client_cannot_say_who_it_is() {
        check(
            "Host: example.com
             X-Forwarded-For: 6.6.6.6
             X-FORWARDED-PROTO: ftp
             X-Forwarded-Port: 1
             Forwarded: for=6.6.6.6
             X-Real-IP: 6.6.6.6
             True-Client-IP: 6.6.6.6
             X_Forwarded_For: 6.6.6.6
             Proxy: evil
             Authorization: Bearer x",
            &origin("203.0.113.7", "example.com", ForwardedFor::Replace),
            "host: example.com
             authorization: Bearer x
             x-forwarded-for: 203.0.113.7
             x-forwarded-proto: https
             x-forwarded-host: example.com
             forwarded: for=203.0.113.7;host=example.com;proto=https",
        );
    }

    #[test]
    fn chain_is_appended_on_demand() {
        check(
            "X-Forwarded-For: 6.6.6.6
             X-Forwarded-For: 7.7.7.7, 8.8.8.8",
            &origin("8.8.8.8", "[::1]:8448", ForwardedFor::Append),
            "x-forwarded-for: 6.6.6.6, 7.7.7.7, 8.8.8.8, 192.0.2.9
             x-forwarded-proto: https
             x-forwarded-host: [::1]:8448
             forwarded: for=8.8.8.8;host=\"[::1]:8448\";proto=https",
        );
    }

    #[test]
    fn an_unknown_client_has_no_address() {
        check(
            "X-Forwarded-For: 6.6.6.6",
            &origin("unknown", "a", ForwardedFor::Replace),
            "x-forwarded-proto: https
             x-forwarded-host: a
             forwarded: for=unknown;host=a;proto=https",
        );
        assert_eq!(
            forwarded("2001:db8::7".parse::<IpAddr>().unwrap().into(), "a", "http"),
            "for=\"[2001:db8::7]\";host=a;proto=http"
        );
    }

    #[test]
    fn hop_by_hop_fields_stop_here() {
        let mut map = fields(
            "Connection: close, X-Secret, Content-Length
             X-Secret: 1
             Keep-Alive: timeout=5
             Proxy-Authorization: Basic x
             TE: trailers
             Trailer: x
             Transfer-Encoding: chunked
             Upgrade: h2c
             HTTP2-Settings: x
             Content-Length: 2",
        );
        to_upstream(&mut map, &origin("unknown", "a", ForwardedFor::Replace));
        assert_eq!(
            text(&map),
            "content-length: 2\nforwarded: for=unknown;host=a;proto=https\nx-forwarded-host: a\nx-forwarded-proto: https"
        );
    }

    #[test]
    fn cookies_are_joined() {
        for (sent, received) in [
            ("Cookie: a=b\nX: y\nCookie: c=d; e=f\nCookie: g=h", "cookie: a=b; c=d; e=f; g=h\nx: y"),
            ("Cookie: a=b", "cookie: a=b"),
            ("X: y", "x: y"),
        ] {
            let mut map = fields(sent);
            join_cookies(&mut map);
            assert_eq!(text(&map), received);
        }
    }

    #[test]
    fn websockets_keep_their_upgrade() {
        let mut map = fields("Connection: keep-alive, Upgrade\nUpgrade: WebSocket\nSec-WebSocket-Key: x");
        assert!(is_websocket(&map));
        to_upstream(&mut map, &origin("unknown", "a", ForwardedFor::Replace));
        assert_eq!(map[CONNECTION], "Upgrade");
        assert_eq!(map[UPGRADE], "websocket");
        assert_eq!(map["sec-websocket-key"], "x");
        assert!(!is_websocket(&fields("Upgrade: websocket")));
    }

    #[test]
    fn answers_lose_their_hop_by_hop_fields() {
        let mut map = fields(
            "Connection: X-Foo, keep-alive
             X-Foo: 1
             Keep-Alive: timeout=5
             Proxy-Authenticate: Basic
             Upgrade: h2c
             Trailer: x
             Transfer-Encoding: chunked
             X_Odd: kept
             Server: Synapse",
        );
        from_upstream(&mut map, StatusCode::OK);
        assert_eq!(text(&map), "server: Synapse\ntransfer-encoding: chunked\nx_odd: kept");
        let mut map = fields("Connection: Upgrade\nUpgrade: websocket");
        from_upstream(&mut map, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(map.len(), 2);
    }
}
