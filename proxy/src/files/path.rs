//! From the path of a request to the name of a file below the root: pure, without a look at the disk.
//!
//! What symbolic links do to a name is [`super::disk`]'s concern.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// The file, relative to the root, that `normal_path` (RFC 3986 §6.2.2 normal form, still percent-encoded) stands for
/// after `strip_prefix` is removed. `None`: no file may be served under this path.
///
/// A name is refused, not repaired: an empty segment (so also a directory with its slash, and `//`), a segment that
/// starts with a dot, an encoded slash, a NUL, a `%` that encodes nothing.
pub(crate) fn relative(strip_prefix: &str, normal_path: &str) -> Option<PathBuf> {
    let name = segments(below(strip_prefix, normal_path)?)?;
    Some(PathBuf::from(OsString::from_vec(name)))
}

/// The folder, relative to the root, that a path with a slash at its end stands for; the root itself is the empty name.
pub(crate) fn folder(strip_prefix: &str, normal_path: &str) -> Option<PathBuf> {
    let rest = below(strip_prefix, normal_path)?;
    if rest.is_empty() {
        return Some(PathBuf::new());
    }
    let name = segments(rest.strip_suffix('/')?)?;
    Some(PathBuf::from(OsString::from_vec(name)))
}

/// Whether a path may be one of the pages of a single-page application: such paths hold what users name (`/room/%23a%2Fb`), but no
/// hidden names, and what ends as a part of a page does (`/chunk.js`) is that part, or missing.
pub(crate) fn is_page(strip_prefix: &str, normal_path: &str) -> bool {
    let Some(rest) = below(strip_prefix, normal_path) else { return false };
    let last = rest.rsplit('/').next().unwrap_or_default();
    let is_part =
        last.rsplit_once('.').is_some_and(|(_, end)| PARTS.iter().any(|part| end.eq_ignore_ascii_case(part)));
    let mut decoded = Vec::new();
    let is_plain = |segment: &str| {
        decoded.clear();
        decode_into(segment.as_bytes(), &mut decoded).is_some()
            && !decoded.contains(&0)
            && !decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| part.starts_with(b"."))
    };
    !is_part && rest.split('/').all(is_plain)
}

/// What follows the prefix, without a slash at its start.
fn below<'p>(strip_prefix: &str, normal_path: &'p str) -> Option<&'p str> {
    let rest = normal_path.strip_prefix(strip_prefix)?;
    if strip_prefix.ends_with('/') { Some(rest) } else { rest.strip_prefix('/') }
}

/// Decoded segments with `/` between them.
fn segments(path: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            name.push(b'/');
        }
        let start = name.len();
        decode_into(segment.as_bytes(), &mut name)?;
        match name.get(start..)? {
            [] | [b'.', ..] => return None,
            decoded if decoded.iter().any(|byte| matches!(byte, b'/' | 0)) => return None,
            _ => {}
        }
    }
    Some(name)
}

/// RFC 3986 §2.1.
fn decode_into(segment: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = segment;
    while let [byte, tail @ ..] = rest {
        if *byte == b'%' {
            let [high, low, tail @ ..] = tail else { return None };
            out.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
            rest = tail;
        } else {
            out.push(*byte);
            rest = tail;
        }
    }
    Some(())
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Endings of what pages are made of. None of them is the end of a host name, which paths of pages may have too.
const PARTS: [&str; 37] = [
    "js",
    "mjs",
    "cjs",
    "css",
    "map",
    "json",
    "wasm",
    "html",
    "htm",
    "xml",
    "txt",
    "webmanifest",
    "ico",
    "png",
    "jpg",
    "jpeg",
    "gif",
    "svg",
    "webp",
    "avif",
    "bmp",
    "woff",
    "woff2",
    "ttf",
    "otf",
    "eot",
    "mp3",
    "ogg",
    "opus",
    "oga",
    "wav",
    "flac",
    "mp4",
    "webm",
    "br",
    "gz",
    "zst",
];

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(strip_prefix: &str, path: &str, expected: Option<&str>) {
        assert_eq!(
            relative(strip_prefix, path),
            expected.map(PathBuf::from),
            "{path} without {strip_prefix}"
        );
    }

    #[test]
    fn the_prefix_is_replaced_by_the_root() {
        check("/assets/", "/assets/app.js", Some("app.js"));
        check("/assets/", "/assets/img/logo.svg", Some("img/logo.svg"));
        check("/", "/assets/app.js", Some("assets/app.js"));
        check("/assets", "/assets/app.js", Some("app.js"));
        check("/assets", "/assetsapp.js", None);
        check("/assets/", "/other/app.js", None);
        check("/assets/", "/assets", None);
    }

    #[test]
    fn directories_are_not_files() {
        check("/assets/", "/assets/", None);
        check("/assets", "/assets", None);
        check("/assets/", "/assets/img/", None);
        check("/", "/", None);
        check("/assets/", "/assets//app.js", None);
        check("/assets/", "/assets/img//logo.svg", None);
    }

    #[test]
    fn folders_end_with_a_slash() {
        let check = |prefix: &str, path: &str, expected: Option<&str>| {
            assert_eq!(folder(prefix, path), expected.map(PathBuf::from), "{path} without {prefix}");
        };
        check("/", "/", Some(""));
        check("/assets/", "/assets/", Some(""));
        check("/assets", "/assets/", Some(""));
        check("/assets/", "/assets/a/b%20c/", Some("a/b c"));
        for path in
            ["/assets", "/assets/a", "/assets//", "/assets/a//", "/assets/.git/", "/assets/../", "/x/"]
        {
            check("/assets/", path, None);
        }
    }

    #[test]
    fn pages_are_told_from_their_parts() {
        for page in [
            "/",
            "/home/",
            "/room/%23a%2Fb:example.com",
            "/%23room%3Aexample.org/%24event",
            "/login/matrix.org/",
            "/user/@a:xn--9ca.example.dev",
            "/a.b/c",
            "//x",
        ] {
            assert!(is_page("/", page), "{page}");
        }
        for part in [
            "/app.js",
            "/img/logo.SVG",
            "/config.json",
            "/.env",
            "/.git/config",
            "/a/.b/c",
            "/a/%2Eenv",
            "/a%2F.env",
            "/a%5C..%5Cb",
            "/..",
            "/a%00b",
            "/a%zz",
        ] {
            assert!(!is_page("/", part), "{part}");
        }
        assert!(is_page("/app/", "/app/x") && !is_page("/app/", "/other"));
    }

    #[test]
    fn nothing_climbs_out() {
        check("/assets/", "/assets/../secret", None);
        check("/assets/", "/assets/..", None);
        check("/assets/", "/assets/%2E%2E/secret", None);
        check("/assets/", "/assets/%2e./secret", None);
        check("/assets/", "/assets/img/..%2F..%2Fsecret", None);
        check("/assets/", "/assets/%2Fetc%2Fpasswd", None);
        check("/assets/", "/assets/a%2fb", None);
    }

    #[test]
    fn dot_files_are_never_served() {
        check("/assets/", "/assets/.env", None);
        check("/assets/", "/assets/%2Eenv", None);
        check("/assets/", "/assets/.git/config", None);
        check("/", "/.well-known/matrix/client", None);
        check("/assets/", "/assets/a.b/..c", None);
        check("/assets/", "/assets/a..b", Some("a..b"));
    }

    #[test]
    fn escapes_are_decoded_once() {
        check("/", "/a%20b", Some("a b"));
        check("/", "/%C3%A9.txt", Some("é.txt"));
        check("/", "/a%252Fb", Some("a%2Fb"));
        check("/", "/a%00b", None);
        check("/", "/a%", None);
        check("/", "/a%4", None);
        check("/", "/a%zz", None);
        assert_eq!(relative("/", "/%FF"), Some(PathBuf::from(OsString::from_vec(vec![0xff]))));
    }

    proptest! {
        #[test]
        fn every_name_lies_below_the_root(path in "(/|\\.|%2[EeFf]|%00|%5C|[a-c]|%[0-9A-F]{2}){0,24}") {
            let path = format!("/assets/{path}");
            if let Some(name) = relative("/assets/", &path) {
                prop_assert!(!name.as_os_str().is_empty());
                prop_assert!(!name.as_os_str().as_bytes().contains(&0));
                for component in name.components() {
                    let Component::Normal(segment) = component else {
                        return Err(TestCaseError::fail(format!("{component:?} in {name:?}")));
                    };
                    prop_assert!(!segment.as_bytes().starts_with(b"."));
                }
                prop_assert!(Path::new("/root").join(&name).starts_with("/root"));
                prop_assert_eq!(name.components().count(), path.matches('/').count() - 1);
            }
        }

        #[test]
        fn a_folder_is_a_file_with_a_slash(path in "(/|\\.|%2[EeFf]|%00|[a-c]){0,16}") {
            let path = format!("/assets/{path}");
            prop_assume!(path != "/assets/");
            prop_assert_eq!(folder("/assets/", &format!("{path}/")), relative("/assets/", &path));
        }

        #[test]
        fn any_text_is_survived(prefix in ".*", path in ".*") {
            let _ = (relative(&prefix, &path), folder(&prefix, &path), is_page(&prefix, &path));
        }
    }
}
