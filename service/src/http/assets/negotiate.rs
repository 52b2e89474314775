//! Which form of a file a client gets: `Accept-Encoding` and `If-None-Match`, as pure functions over headers.

use conf::Encoding;
use http::{HeaderMap, HeaderValue, header};

/// The name of a content coding on the wire.
pub(super) fn token(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Brotli => "br",
        Encoding::Zstd => "zstd",
        Encoding::Gzip => "gzip",
    }
}

/// The best of `available` that the client accepts (RFC 9110 §12.5.3): highest q-value, then the order of `available`.
/// `None`: send it as it is. A field that is missing, empty or not understood accepts nothing but that.
pub fn encoding_for(headers: &HeaderMap, available: &[Encoding]) -> Option<Encoding> {
    let mut best: Option<(u16, Encoding)> = None;
    for encoding in available {
        let quality = quality_of(headers, token(*encoding));
        if quality > best.map_or(0, |(quality, _)| quality) {
            best = Some((quality, *encoding));
        }
    }
    best.map(|(_, encoding)| encoding)
}

/// The q-value of a coding in thousandths: its own, else that of `*`, else 0.
fn quality_of(headers: &HeaderMap, coding: &str) -> u16 {
    let mut any = 0;
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let mut parts = item.split(';');
            let name = parts.next().unwrap_or_default().trim();
            let quality = parts.next().map_or(Some(1000), quality);
            if name.eq_ignore_ascii_case(coding) || (coding == "gzip" && name.eq_ignore_ascii_case("x-gzip"))
            {
                return quality.unwrap_or(0);
            }
            if name == "*" {
                any = quality.unwrap_or(0);
            }
        }
    }
    any
}

/// `q=0.5` → 500; RFC 9110 §12.4.2 allows three digits after the point and nothing above 1.
fn quality(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.trim().split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, fraction) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Whether `If-None-Match` (RFC 9110 §13.1.2, weak comparison) names this tag, so that 304 is the answer.
pub(super) fn already_has(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(header::IF_NONE_MATCH).into_iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|item| {
            let item = item.trim_ascii();
            let item = item.strip_prefix(b"W/").unwrap_or(item);
            item == b"*" || item == etag.as_bytes()
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Brotli, Encoding::Zstd, Encoding::Gzip];

    fn check(accept: &[&'static str], expected: Option<Encoding>) {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
        }
        assert_eq!(encoding_for(&headers, &ALL), expected, "{accept:?}");
    }

    #[test]
    fn the_highest_quality_wins_and_our_order_breaks_ties() {
        check(&["gzip, deflate, br, zstd"], Some(Encoding::Brotli));
        check(&["br;q=0.5, gzip;q=0.9"], Some(Encoding::Gzip));
        check(&["gzip"], Some(Encoding::Gzip));
        check(&["x-gzip"], Some(Encoding::Gzip));
        check(&["gzip", "zstd"], Some(Encoding::Zstd));
        check(&["*"], Some(Encoding::Brotli));
        check(&["*, br;q=0"], Some(Encoding::Zstd));
        check(&["BR ; q=0.001"], Some(Encoding::Brotli));
    }

    #[test]
    fn what_is_not_accepted_is_not_sent() {
        check(&[], None);
        check(&[""], None);
        check(&["identity"], None);
        check(&["br;q=0, gzip;q=0, zstd;q=0.000"], None);
        check(&["br;q=2, gzip;q=-1, zstd;q=0.1234"], None);
        check(&["br;q, gzip;level=9"], None);
    }

    #[test]
    fn a_tag_matches_in_a_list_weak_or_as_star() {
        let etag = HeaderValue::from_static("\"a-br\"");
        for (value, expected) in
            [("\"a-br\"", true), ("\"x\", W/\"a-br\"", true), ("*", true), ("\"a\"", false), ("", false)]
        {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))]);
            assert_eq!(already_has(&headers, &etag), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_header_value_panics_and_an_absent_coding_is_never_chosen(value in "\\PC{0,60}") {
            if let Ok(value) = HeaderValue::from_str(&value) {
                let names_none = ["br", "gzip", "zstd", "*"].iter().all(|name| !value.to_str().unwrap_or_default().to_lowercase().contains(name));
                let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]);
                let chosen = encoding_for(&headers, &ALL);
                prop_assert!(!names_none || chosen.is_none());
            }
        }
    }
}
