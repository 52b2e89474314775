//! The path of a request as routes see it: the normal form of RFC 3986 §6.2.2, and the other ways in which a server
//! behind us might read the same bytes. It never changes what is forwarded: that stays byte for byte as received.

use std::borrow::Cow;

/// How a path may be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Readings<'a> {
    /// Normal form: upper-case escapes, unreserved characters decoded, dot segments removed, `//` kept.
    pub(crate) normal: Cow<'a, str>,
    /// What a server that keeps dot segments, or decodes `%2F` and `%5C`, would make of it. Empty for nearly every
    /// request; a request whose readings lead to different routes has to be refused.
    pub(crate) others: Vec<String>,
}

/// A path that is not one (RFC 3986 §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// Does not begin with `/`.
    #[error("path does not begin with a slash")]
    Relative,
    /// `%` without two hexadecimal digits.
    #[error("malformed percent-encoding in the path")]
    Escape,
}

/// All readings of `path`, which is the request target up to the first `?`.
///
/// # Errors
/// [`PathError`] for a path without leading slash or with a malformed escape.
pub(crate) fn readings(path: &str) -> Result<Readings<'_>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    if is_plain(path.as_bytes()) {
        return Ok(Readings { normal: Cow::Borrowed(path), others: Vec::new() });
    }
    let literal = decode_unreserved(path)?;
    let normal = remove_dot_segments(&literal);
    let mut others = Vec::new();
    if let Some(separated) = decode_separators(&literal) {
        let resolved = remove_dot_segments(&separated);
        if resolved != separated {
            others.push(resolved);
        }
        others.push(separated);
    }
    if normal != literal {
        others.push(literal);
    }
    Ok(Readings { normal: Cow::Owned(normal), others })
}

/// Whether any reading of a path, also a malformed one, has a segment `.` or `..`.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    if is_plain(path.as_bytes()) {
        return false;
    }
    let Ok(literal) = decode_unreserved(path) else { return true };
    let separated = decode_separators(&literal).unwrap_or(literal);
    separated.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// No escape, no backslash and nothing that could be a dot segment: the path is its own normal form.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'%' | b'\\' => return false,
            b'.' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// RFC 3986 §6.2.2.1 and §6.2.2.2: escapes of unreserved characters decoded, all others in upper case.
fn decode_unreserved(path: &str) -> Result<String, PathError> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        decoded.push_str(before);
        let digits = escape.get(1..3).ok_or(PathError::Escape)?;
        let value = hex_byte(digits.as_bytes()).ok_or(PathError::Escape)?;
        if is_unreserved(value) {
            decoded.push(char::from(value));
        } else {
            decoded.push('%');
            decoded.extend(digits.chars().map(|digit| digit.to_ascii_uppercase()));
        }
        rest = escape.get(3..).unwrap_or_default();
    }
    decoded.push_str(rest);
    Ok(decoded)
}

/// `%2F`, `%5C` and `\` as the separators some servers take them for; `None` when there is none.
fn decode_separators(path: &str) -> Option<String> {
    let has_any = path.contains("%2F") || path.contains("%5C") || path.contains('\\');
    has_any.then(|| path.replace("%2F", "/").replace("%5C", "/").replace('\\', "/"))
}

/// RFC 3986 §5.2.4, for a path that begins with `/`.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in kept {
        resolved.push('/');
        resolved.push_str(segment);
    }
    resolved
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    match digits {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(path: &str, normal: &str, others: &[&str]) {
        let readings = readings(path).unwrap();
        assert_eq!(readings.normal, normal, "{path}");
        assert_eq!(readings.others, others, "{path}");
    }

    #[test]
    fn plain_paths_are_borrowed() {
        for path in ["/", "/_matrix/client/versions", "//a//b/", "/file.tar.gz", "/a~b/c:d@e,f;g=h"] {
            assert!(matches!(readings(path).unwrap().normal, Cow::Borrowed(same) if same == path));
        }
    }

    #[test]
    fn escapes_are_normalised() {
        check("/%7Euser/%5f%2d", "/~user/_-", &[]);
        check("/a%3ab%e4", "/a%3Ab%E4", &[]);
        check("/%41%2561", "/A%2561", &[]);
        check("/%23room%3aexample.com", "/%23room%3Aexample.com", &[]);
    }

    #[test]
    fn dot_segments_are_removed_and_remembered() {
        check("/a/./b/../c", "/a/c", &["/a/./b/../c"]);
        check("/_matrix/%2e%2E/_synapse/admin", "/_synapse/admin", &["/_matrix/../_synapse/admin"]);
        check("/..", "/", &["/.."]);
        check("/a/..", "/", &["/a/.."]);
        check("/a/.", "/a/", &["/a/."]);
        check("/a//../b", "/a/b", &["/a//../b"]);
        check("/.well-known/matrix/client", "/.well-known/matrix/client", &[]);
        check("/...", "/...", &[]);
    }

    #[test]
    fn encoded_separators_are_remembered() {
        check("/room/%23a%2fb", "/room/%23a%2Fb", &["/room/%23a/b"]);
        check("/a/..%2fb", "/a/..%2Fb", &["/b", "/a/../b"]);
        check("/a\\..\\b", "/a\\..\\b", &["/b", "/a/../b"]);
        check("/a%5Cb", "/a%5Cb", &["/a/b"]);
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in ["/%", "/%2", "/%zz", "/a%2"] {
            assert_eq!(readings(path), Err(PathError::Escape), "{path}");
        }
        for path in ["", "a", "*", "?"] {
            assert_eq!(readings(path), Err(PathError::Relative), "{path}");
        }
        // A multi-byte character right after `%` must not be cut in half.
        assert_eq!(readings("/%é"), Err(PathError::Escape));
    }

    proptest! {
        #[test]
        fn normal_form_is_a_fixed_point(path in "/[a-cA-C0-9./%\\\\~]{0,30}") {
            if let Ok(first) = readings(&path) {
                prop_assert!(first.normal.starts_with('/'));
                prop_assert!(!first.normal.split('/').any(|segment| segment == "." || segment == ".."));
                let second = readings(&first.normal).unwrap();
                prop_assert_eq!(&second.normal, &first.normal);
            }
        }

        #[test]
        fn escaping_an_unreserved_character_changes_nothing(
            path in "(/[a-z._~-]{0,5}){1,5}", at in any::<prop::sample::Index>()
        ) {
            let at = at.index(path.len());
            let byte = path.as_bytes()[at];
            prop_assume!(byte != b'/');
            let escaped = format!("{}%{byte:02x}{}", &path[..at], &path[at + 1..]);
            prop_assert_eq!(readings(&escaped).unwrap().normal, readings(&path).unwrap().normal);
        }

        #[test]
        fn never_panics(path in any::<String>()) {
            let _ = readings(&path);
        }
    }
}
