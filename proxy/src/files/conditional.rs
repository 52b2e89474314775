//! Conditional requests (RFC 9110 §13), pure: what the client knows already against what the file is now.

use std::time::SystemTime;

use http::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderValue};

/// What the selected representation is compared by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validators<'a> {
    /// With its quotes; always strong.
    pub(crate) etag: &'a str,
    /// In whole seconds, as `Last-Modified` says it.
    pub(crate) last_modified: Option<SystemTime>,
}

/// What the preconditions of a GET or HEAD lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// 304
    NotModified,
    /// 412
    Failed,
}

/// Evaluates the preconditions of a GET or HEAD in the order of RFC 9110 §13.2.2. Dates that cannot be read are ignored.
pub(crate) fn evaluate(headers: &HeaderMap, validators: Validators<'_>) -> Precondition {
    if headers.contains_key(IF_MATCH) {
        if !any_tag_matches(headers, &IF_MATCH, |tag| !tag.weak && tag.quoted == validators.etag) {
            return Precondition::Failed;
        }
    } else if let (Some(since), Some(modified)) =
        (date(headers, &IF_UNMODIFIED_SINCE), validators.last_modified)
        && modified > since
    {
        return Precondition::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if any_tag_matches(headers, &IF_NONE_MATCH, |tag| tag.quoted == validators.etag) {
            return Precondition::NotModified;
        }
    } else if let (Some(since), Some(modified)) =
        (date(headers, &IF_MODIFIED_SINCE), validators.last_modified)
        && modified <= since
    {
        return Precondition::NotModified;
    }
    Precondition::Proceed
}

/// Whether a `Range` is to be applied: no `If-Range`, or one that names this very representation (RFC 9110 §13.1.5).
/// A date counts only when it is exactly the one we send.
pub(crate) fn range_applies(headers: &HeaderMap, validators: Validators<'_>) -> bool {
    let mut values = headers.get_all(IF_RANGE).iter();
    let Some(value) = values.next() else { return true };
    if values.next().is_some() {
        return false;
    }
    let Ok(text) = value.to_str() else { return false };
    if text.starts_with('"') || text.starts_with("W/") {
        return text == validators.etag;
    }
    validators.last_modified.is_some() && parse_date(value) == validators.last_modified
}

/// The date of a field that stands there once and can be read.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| parse_date(value)).flatten()
}

fn parse_date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// `*` matches: we are only asked about a representation that exists.
fn any_tag_matches(headers: &HeaderMap, name: &HeaderName, matches: impl Fn(EntityTag<'_>) -> bool) -> bool {
    headers.get_all(name).iter().any(|value| {
        let Ok(value) = value.to_str() else { return false };
        value.trim_matches(BLANK) == "*" || EntityTags { rest: value }.any(&matches)
    })
}

/// RFC 9110 §8.8.3.
#[derive(Debug, Clone, Copy)]
struct EntityTag<'a> {
    weak: bool,
    quoted: &'a str,
}

/// The members of a list of entity tags; ends at the first that is malformed. A tag may contain commas.
struct EntityTags<'a> {
    rest: &'a str,
}

impl<'a> Iterator for EntityTags<'a> {
    type Item = EntityTag<'a>;

    fn next(&mut self) -> Option<EntityTag<'a>> {
        let text = self.rest.trim_start_matches([' ', '\t', ',']);
        let (weak, text) = match text.strip_prefix("W/") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let end = text.strip_prefix('"')?.find('"')? + 2;
        let (quoted, rest) = text.split_at_checked(end)?;
        self.rest = rest.trim_start_matches(BLANK);
        if !(self.rest.is_empty() || self.rest.starts_with(',')) {
            self.rest = "";
            return None;
        }
        Some(EntityTag { weak, quoted })
    }
}

const BLANK: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const ETAG: &str = "\"abc\"";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators() -> Validators<'static> {
        Validators { etag: ETAG, last_modified: Some(UNIX_EPOCH + Duration::from_secs(784_111_777)) }
    }

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).expect("a field value"));
        }
        headers
    }

    #[track_caller]
    fn check(fields: &[(HeaderName, &str)], expected: Precondition) {
        assert_eq!(evaluate(&headers(fields), validators()), expected, "{fields:?}");
    }

    #[test]
    fn if_none_match_compares_weakly() {
        check(&[], Precondition::Proceed);
        check(&[(IF_NONE_MATCH, ETAG)], Precondition::NotModified);
        check(&[(IF_NONE_MATCH, "W/\"abc\"")], Precondition::NotModified);
        check(&[(IF_NONE_MATCH, "*")], Precondition::NotModified);
        check(&[(IF_NONE_MATCH, "\"x\", \"a,b\" ,W/\"abc\"")], Precondition::NotModified);
        check(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, ETAG)], Precondition::NotModified);
        check(&[(IF_NONE_MATCH, "\"x\"")], Precondition::Proceed);
        check(&[(IF_NONE_MATCH, "\"ABC\"")], Precondition::Proceed);
        check(&[(IF_NONE_MATCH, "abc")], Precondition::Proceed);
        check(&[(IF_NONE_MATCH, "\"abc")], Precondition::Proceed);
        check(&[(IF_NONE_MATCH, "\"abc\"x")], Precondition::Proceed);
        check(&[(IF_NONE_MATCH, "")], Precondition::Proceed);
    }

    #[test]
    fn if_modified_since_compares_seconds() {
        check(&[(IF_MODIFIED_SINCE, BEFORE)], Precondition::Proceed);
        check(&[(IF_MODIFIED_SINCE, MODIFIED)], Precondition::NotModified);
        check(&[(IF_MODIFIED_SINCE, AFTER)], Precondition::NotModified);
        check(&[(IF_MODIFIED_SINCE, "Sunday, 06-Nov-94 08:49:37 GMT")], Precondition::NotModified);
        check(&[(IF_MODIFIED_SINCE, "yesterday")], Precondition::Proceed);
        check(&[(IF_MODIFIED_SINCE, AFTER), (IF_MODIFIED_SINCE, AFTER)], Precondition::Proceed);
    }

    #[test]
    fn if_none_match_beats_if_modified_since() {
        check(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, AFTER)], Precondition::Proceed);
        check(&[(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, BEFORE)], Precondition::NotModified);
    }

    #[test]
    fn if_match_compares_strongly() {
        check(&[(IF_MATCH, ETAG)], Precondition::Proceed);
        check(&[(IF_MATCH, "*")], Precondition::Proceed);
        check(&[(IF_MATCH, "\"x\", \"abc\"")], Precondition::Proceed);
        check(&[(IF_MATCH, "W/\"abc\"")], Precondition::Failed);
        check(&[(IF_MATCH, "\"x\"")], Precondition::Failed);
        check(&[(IF_MATCH, "")], Precondition::Failed);
    }

    #[test]
    fn if_match_beats_if_unmodified_since() {
        check(&[(IF_UNMODIFIED_SINCE, BEFORE)], Precondition::Failed);
        check(&[(IF_UNMODIFIED_SINCE, MODIFIED)], Precondition::Proceed);
        check(&[(IF_UNMODIFIED_SINCE, "yesterday")], Precondition::Proceed);
        check(&[(IF_MATCH, ETAG), (IF_UNMODIFIED_SINCE, BEFORE)], Precondition::Proceed);
        check(&[(IF_MATCH, "\"x\""), (IF_UNMODIFIED_SINCE, AFTER)], Precondition::Failed);
    }

    #[test]
    fn a_failed_precondition_beats_not_modified() {
        check(&[(IF_MATCH, "\"x\""), (IF_NONE_MATCH, ETAG)], Precondition::Failed);
        check(&[(IF_MATCH, ETAG), (IF_NONE_MATCH, ETAG)], Precondition::NotModified);
        check(&[(IF_UNMODIFIED_SINCE, AFTER), (IF_MODIFIED_SINCE, AFTER)], Precondition::NotModified);
    }

    #[test]
    fn if_range_needs_the_very_same_representation() {
        let applies = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| (IF_RANGE, *value)).collect();
            range_applies(&headers(&fields), validators())
        };
        assert!(applies(&[]));
        assert!(applies(&[ETAG]));
        assert!(applies(&[MODIFIED]));
        for value in ["\"x\"", "W/\"abc\"", BEFORE, AFTER, "abc", "", "*"] {
            assert!(!applies(&[value]), "{value}");
        }
        assert!(!applies(&[ETAG, ETAG]));
        let undated = Validators { last_modified: None, ..validators() };
        assert!(!range_applies(&headers(&[(IF_RANGE, "abc")]), undated));
    }

    proptest! {
        #[test]
        fn any_value_is_survived(value in "[ -~\t]{0,60}") {
            let fields = [(IF_MATCH, &*value), (IF_NONE_MATCH, &*value), (IF_RANGE, &*value)];
            let _ = evaluate(&headers(&fields), validators());
            let _ = range_applies(&headers(&fields), validators());
        }

        #[test]
        fn our_tag_is_found_in_any_list(
            before in proptest::collection::vec("(W/)?\"[!#-~]{0,6}\"", 0..4),
            after in proptest::collection::vec("(W/)?\"[!#-~]{0,6}\"", 0..4),
        ) {
            let list: Vec<&str> = before.iter().map(String::as_str).chain([ETAG]).chain(after.iter().map(String::as_str)).collect();
            let value = list.join(", ");
            prop_assert_eq!(evaluate(&headers(&[(IF_NONE_MATCH, &value)]), validators()), Precondition::NotModified);
            prop_assert_eq!(evaluate(&headers(&[(IF_MATCH, &value)]), validators()), Precondition::Proceed);
        }
    }
}
