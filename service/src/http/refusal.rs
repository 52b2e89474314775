//! Answers that no endpoint gives: no such path, wrong method, too large, too late; each in the manner of its caller.
//!
//! Matrix clients get a Matrix error, OAuth clients an OAuth one, admin tools the shape of the admin API, people a page.

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;
use url::Url;

use super::assets::Assets;

/// Who is asking, told from the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// `/_matrix`, `/_synapse`
    Matrix,
    /// `/oauth2`, `/.well-known` and other JSON APIs
    Api,
    /// `/api/admin`
    AdminApi,
    /// Everything else: a person with a browser.
    Page,
}

impl Manner {
    /// The manner of whoever asks for `path` (without the listener's prefix).
    pub fn of(path: &str) -> Self {
        let below = |folder: &str| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match path {
            _ if below("/_matrix") || below("/_synapse") => Self::Matrix,
            _ if below("/api") => Self::AdminApi,
            "/.well-known/change-password" => Self::Page,
            "/health" | "/ready" | "/metrics" | "/connection-info" => Self::Api,
            _ if below("/oauth2") || below("/.well-known") || below("/graphql") => Self::Api,
            _ => Self::Page,
        }
    }
}

/// An answer in JSON; for a person too, when nothing is known that a page needs.
pub fn json(manner: Manner, status: StatusCode) -> Response {
    let text = sentence(status);
    let body = match manner {
        Manner::Matrix => json!({"errcode": errcode(status), "error": text}),
        Manner::Api | Manner::Page => json!({"error": oauth_error(status), "error_description": text}),
        Manner::AdminApi => json!({"errors": [{"title": text}]}),
    };
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}

/// What the pages have in common.
#[derive(Debug)]
pub struct Pages {
    homeserver: String,
    style: String,
    icon: String,
}

impl Pages {
    /// Pages of a homeserver, whose links begin with the path of `public_base`.
    pub fn new(homeserver: &str, public_base: &Url, assets: &Assets) -> Self {
        let base = public_base.path().trim_end_matches('/');
        Self {
            homeserver: escape(homeserver),
            style: escape(&format!("{base}/assets/{}", assets.public_name("gatehouse.css"))),
            icon: escape(&format!("{base}/assets/{}", assets.public_name("arch.svg"))),
        }
    }

    /// The answer in the manner of whoever asks.
    pub fn refuse(&self, manner: Manner, status: StatusCode) -> Response {
        match manner {
            Manner::Page => self.page(status),
            Manner::Matrix | Manner::Api | Manner::AdminApi => json(manner, status),
        }
    }

    fn page(&self, status: StatusCode) -> Response {
        let Self { homeserver, style, icon } = self;
        let (title, lead) = words(status);
        let page = format!(
            r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · {homeserver}</title>
<link rel="stylesheet" href="{style}">
<link rel="icon" type="image/svg+xml" href="{icon}">
</head>
<body>
<header><svg viewBox="0 0 28 28" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="M4 25V9l4-2V4M24 25V9l-4-2V4M8 7h12M10 25v-7a4 4 0 0 1 8 0v7M2 25h24"/></svg><strong>{homeserver}</strong></header>
<main>
<div class="card">
<h1>{title}</h1>
<p class="lead">{lead}</p>
</div>
</main>
</body>
</html>
"#
        );
        let headers = PAGE_HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
        (status, headers, Html(page)).into_response()
    }
}

/// Nothing from elsewhere, nothing inline, no frame around it.
const PAGE_HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

fn errcode(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => "M_UNRECOGNIZED",
        StatusCode::PAYLOAD_TOO_LARGE => "M_TOO_LARGE",
        StatusCode::TOO_MANY_REQUESTS => "M_LIMIT_EXCEEDED",
        _ => "M_UNKNOWN",
    }
}

fn oauth_error(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => "temporarily_unavailable",
        _ if status.is_client_error() => "invalid_request",
        _ => "server_error",
    }
}

fn sentence(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "no such endpoint",
        StatusCode::METHOD_NOT_ALLOWED => "this endpoint does not take this method",
        StatusCode::PAYLOAD_TOO_LARGE => "the request body is too large",
        StatusCode::REQUEST_TIMEOUT => "the request body came too slowly",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the request head is too large",
        StatusCode::SERVICE_UNAVAILABLE => "the authentication service could not answer in time",
        _ if status.is_client_error() => "the request cannot be understood",
        _ => "the authentication service failed",
    }
}

/// Title, and what to do.
fn words(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::NOT_FOUND => (
            "There is nothing here",
            "The address may be mistyped, or the page has moved. Check the address, or go back to where you came from.",
        ),
        StatusCode::SERVICE_UNAVAILABLE => (
            "That took too long",
            "Nothing was changed that you cannot try again. Wait a moment, then reload this page.",
        ),
        _ if status.is_client_error() => {
            ("That request cannot be used", "Go back, and try again from the page you came from.")
        }
        _ => ("Something went wrong", "It is not your fault. Wait a moment, then reload this page."),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manner_is_told_from_whole_segments_of_the_path() {
        for (path, expected) in [
            ("/_matrix/client/v3/login", Manner::Matrix),
            ("/_matrix", Manner::Matrix),
            ("/_matrixx", Manner::Page),
            ("/_synapse/mas/query_user", Manner::Matrix),
            ("/oauth2/token", Manner::Api),
            ("/.well-known/openid-configuration", Manner::Api),
            ("/.well-known/change-password", Manner::Page),
            ("/api/admin/v1/users", Manner::AdminApi),
            ("/login", Manner::Page),
            ("/", Manner::Page),
        ] {
            assert_eq!(Manner::of(path), expected, "{path}");
        }
    }

    #[test]
    fn nothing_of_the_configuration_becomes_markup() {
        assert_eq!(escape("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
    }
}
