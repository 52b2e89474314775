//! `Content-Type` from the name of a file, pure.

use std::path::Path;

use http::HeaderValue;

/// The type of the file of that name (without the suffix of a compressed representation); text is said to be UTF-8.
/// `application/octet-stream` when the name does not tell.
pub(crate) fn content_type(name: &Path) -> HeaderValue {
    let extension = name.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let essence = match extension {
        // Where the crate's table is behind: RFC 9239 §6 for modules, RFC 8081 §4.4 for fonts, RFC 7845 §9 for Opus, and what
        // browsers expect of source maps.
        "mjs" => "text/javascript",
        "map" => "application/json",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "opus" => "audio/ogg",
        _ => mime_guess::from_ext(extension).first_raw().unwrap_or("application/octet-stream"),
    };
    match essence {
        "text/css" => HeaderValue::from_static("text/css; charset=utf-8"),
        "text/html" => HeaderValue::from_static("text/html; charset=utf-8"),
        "text/javascript" => HeaderValue::from_static("text/javascript; charset=utf-8"),
        "text/plain" => HeaderValue::from_static("text/plain; charset=utf-8"),
        text if text.starts_with("text/") => HeaderValue::try_from(format!("{text}; charset=utf-8"))
            .unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8")),
        other => HeaderValue::from_static(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(content_type(Path::new(name)), expected, "{name}");
    }

    #[test]
    fn text_is_utf_8() {
        check("app.js", "text/javascript; charset=utf-8");
        check("app.mjs", "text/javascript; charset=utf-8");
        check("a/b.css", "text/css; charset=utf-8");
        check("INDEX.HTML", "text/html; charset=utf-8");
        check("notes.txt", "text/plain; charset=utf-8");
        check("table.csv", "text/csv; charset=utf-8");
    }

    #[test]
    fn everything_else_speaks_for_itself() {
        check("logo.svg", "image/svg+xml");
        check("a.png", "image/png");
        check("font.woff2", "font/woff2");
        check("data.json", "application/json");
        check("app.js.map", "application/json");
        check("site.webmanifest", "application/manifest+json");
        check("module.wasm", "application/wasm");
        check("font.woff", "font/woff");
        check("font.ttf", "font/ttf");
        check("font.otf", "font/otf");
        check("ring.ogg", "audio/ogg");
        check("ring.opus", "audio/ogg");
        check("ring.mp3", "audio/mpeg");
        check("ring.wav", "audio/wav");
        check("film.webm", "video/webm");
        check("favicon.ico", "image/x-icon");
        check("photo.webp", "image/webp");
        check("photo.avif", "image/avif");
    }

    #[test]
    fn an_unknown_name_is_bytes() {
        check("LICENSE", "application/octet-stream");
        check("archive.unknown", "application/octet-stream");
        check("app.js.br", "application/octet-stream");
    }
}
