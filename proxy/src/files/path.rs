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
    let rest = normal_path.strip_prefix(strip_prefix)?;
    let rest = if strip_prefix.ends_with('/') { rest } else { rest.strip_prefix('/')? };
    let mut name = Vec::with_capacity(rest.len());
    for (index, segment) in rest.split('/').enumerate() {
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
    Some(PathBuf::from(OsString::from_vec(name)))
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
        fn any_text_is_survived(prefix in ".*", path in ".*") {
            let _ = relative(&prefix, &path);
        }
    }
}
