//! The target an upstream gets in place of the one received, for routes that say so. Pure; which routes do is decided in `conf`, and
//! what a path means to routes in `path`.

use conf::Rewrite;

use crate::error::Fault;
use crate::path;

/// The target for an upstream; the query stays as received.
///
/// # Errors
/// [`Fault::AmbiguousPath`] when the start that is taken off is there only in another spelling (`/%61pp/` for `/app/`), or when
/// what remains has dot segments: they may have been meant to leave the start again.
pub(crate) fn target(rewrite: &Rewrite, path_and_query: &str) -> Result<String, Fault> {
    let (path, query) = match path_and_query.find('?') {
        Some(at) => path_and_query.split_at(at),
        None => (path_and_query, ""),
    };
    let path = match rewrite {
        Rewrite::ReplacePath(path) => path,
        Rewrite::StripPrefix(start) => {
            let rest = path.strip_prefix(start.as_str()).filter(|rest| rest.starts_with('/'));
            let rest = rest.ok_or(Fault::AmbiguousPath)?;
            if path::has_dot_segments(rest) {
                return Err(Fault::AmbiguousPath);
            }
            rest
        }
    };
    Ok([path, query].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strip(received: &str) -> Result<String, Fault> {
        target(&Rewrite::StripPrefix("/a/b".into()), received)
    }

    #[test]
    fn what_remains_is_sent_byte_for_byte() {
        for (received, sent) in [
            ("/a/b/", "/"),
            ("/a/b/?x=/a/b/", "/?x=/a/b/"),
            ("/a/b/c%2fd%7Ee//f?g%20=h?i", "/c%2fd%7Ee//f?g%20=h?i"),
            ("/a/b//", "//"),
            ("/a/b/a/b/.c/..d/...", "/a/b/.c/..d/..."),
        ] {
            assert_eq!(strip(received).as_deref(), Ok(sent), "{received}");
        }
    }

    #[test]
    fn another_spelling_and_dot_segments_are_ambiguous() {
        for received in [
            "/%61/b/c",
            "/a%2Fb/c",
            "/x/../a/b/c",
            "/./a/b/c",
            "/a/b",
            "/a/bc",
            "/a/b/../b/c",
            "/a/b/./c",
            "/a/b/c/..",
            "/a/b/%2e%2E/b/c",
            "/a/b/c%2f..%2fd",
            "/a/b/..\\c",
            "/a/b/.%5cc",
        ] {
            assert_eq!(strip(received), Err(Fault::AmbiguousPath), "{received}");
        }
        assert_eq!(strip("/a/b/c?../%2e%2e").as_deref(), Ok("/c?../%2e%2e"), "a query has no segments");
    }

    #[test]
    fn a_replaced_path_keeps_the_query() {
        let rewrite = Rewrite::ReplacePath("/x%2fy".into());
        assert_eq!(target(&rewrite, "/whatever").as_deref(), Ok("/x%2fy"));
        assert_eq!(target(&rewrite, "/../%2e?a=%zz&&?").as_deref(), Ok("/x%2fy?a=%zz&&?"));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_the_end_of_what_was_received(rest in "/[a-c.%25ef/\\\\]{0,20}(\\?[ -~]{0,10})?") {
            let received = format!("/a/b{rest}");
            if let Ok(sent) = strip(&received) {
                prop_assert_eq!(sent, rest);
            }
        }
    }
}
