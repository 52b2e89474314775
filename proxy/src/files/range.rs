//! Which bytes of a representation are asked for: `Range` (RFC 9110 §14), pure.

/// Bytes `first` to `last` of a representation, both included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    /// Counted from 0.
    pub(crate) first: u64,
    /// At least `first`, less than the size.
    pub(crate) last: u64,
}

impl ByteRange {
    /// In bytes, at least 1.
    pub(crate) fn length(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The whole representation with 200: nothing was asked, or nothing that has to be understood.
    Whole,
    /// These parts with 206, at least one, at most [`MAX_RANGES`], in the order asked for.
    Parts(Vec<ByteRange>),
    /// Nothing of what was asked exists: 416.
    Unsatisfiable,
}

/// Applies the value of a `Range` field to a representation of `size` bytes.
///
/// A malformed value, another unit, more than [`MAX_RANGES`] ranges, and ranges that together are longer than the
/// representation (only overlaps can be) are ignored, as RFC 9110 §14.2 allows: the answer is then the whole.
pub(crate) fn select(value: &str, size: u64) -> Selection {
    let Some((unit, specs)) = value.split_once('=') else { return Selection::Whole };
    if !unit.trim_matches(BLANK).eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let mut asked = 0;
    let mut parts = Vec::new();
    for spec in specs.split(',').map(|spec| spec.trim_matches(BLANK)).filter(|spec| !spec.is_empty()) {
        asked += 1;
        match resolve(spec, size) {
            Some(part) if asked <= MAX_RANGES => parts.extend(part),
            _ => return Selection::Whole,
        }
    }
    let total = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.length()));
    match parts.len() {
        _ if asked == 0 || total > size => Selection::Whole,
        0 => Selection::Unsatisfiable,
        _ => Selection::Parts(parts),
    }
}

/// `None`: malformed. `Some(None)`: outside the representation.
fn resolve(spec: &str, size: u64) -> Option<Option<ByteRange>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = parse_position(last)?;
        if suffix > 0 && size == 0 {
            return None; // satisfiable by RFC 9110 §14.1.2, but no Content-Range could say so
        }
        let suffix = suffix.min(size);
        return Some((suffix > 0).then(|| ByteRange { first: size - suffix, last: size - 1 }));
    }
    let first = parse_position(first)?;
    let last = if last.is_empty() { u64::MAX } else { parse_position(last)? };
    if last < first {
        return None;
    }
    Some((first < size).then(|| ByteRange { first, last: last.min(size - 1) }))
}

/// Digits only; a number too large for us is larger than any file.
fn parse_position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Video players and PDF viewers ask for a handful; more is somebody who wants us to work.
pub(crate) const MAX_RANGES: usize = 16;

const BLANK: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(value: &str, size: u64, expected: &[(u64, u64)]) {
        let parts = expected.iter().map(|(first, last)| ByteRange { first: *first, last: *last }).collect();
        assert_eq!(select(value, size), Selection::Parts(parts), "{value} of {size}");
    }

    #[track_caller]
    fn check_whole(value: &str, size: u64) {
        assert_eq!(select(value, size), Selection::Whole, "{value} of {size}");
    }

    #[track_caller]
    fn check_unsatisfiable(value: &str, size: u64) {
        assert_eq!(select(value, size), Selection::Unsatisfiable, "{value} of {size}");
    }

    #[test]
    fn one_range() {
        check("bytes=0-499", 10_000, &[(0, 499)]);
        check("bytes=500-", 10_000, &[(500, 9_999)]);
        check("bytes=-500", 10_000, &[(9_500, 9_999)]);
        check("bytes=0-0", 1, &[(0, 0)]);
        check("Bytes = 0-1", 10, &[(0, 1)]);
    }

    #[test]
    fn the_end_is_cut() {
        check("bytes=9-100", 10, &[(9, 9)]);
        check("bytes=-100", 10, &[(0, 9)]);
        check("bytes=0-99999999999999999999999999", 10, &[(0, 9)]);
        check("bytes=-99999999999999999999999999", 10, &[(0, 9)]);
    }

    #[test]
    fn several_ranges_keep_their_order() {
        check("bytes=4-5,0-1 , -2", 10, &[(4, 5), (0, 1), (8, 9)]);
        check("bytes=,0-1,,3-4,", 10, &[(0, 1), (3, 4)]);
        check("bytes=0-1,100-200", 10, &[(0, 1)]);
    }

    #[test]
    fn nothing_inside_is_unsatisfiable() {
        check_unsatisfiable("bytes=10-", 10);
        check_unsatisfiable("bytes=10-20,30-40", 10);
        check_unsatisfiable("bytes=-0", 10);
        check_unsatisfiable("bytes=0-", 0);
        check_unsatisfiable("bytes=-0", 0);
        check_unsatisfiable("bytes=99999999999999999999999999-", 10);
    }

    #[test]
    fn the_end_of_nothing_is_the_whole_of_it() {
        check_whole("bytes=-1", 0);
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1-0",
            "bytes=0-1,5-4",
            "bytes=+1-2",
            "bytes=1 - 2",
            "items=0-1",
            "bytes=0-1;2-3",
            "bytes=0x1-2",
            "bytes=--1",
        ] {
            check_whole(value, 10);
        }
    }

    #[test]
    fn greedy_requests_are_ignored() {
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        check(&many(MAX_RANGES), 100, &[(0, 0); MAX_RANGES]);
        check_whole(&many(MAX_RANGES + 1), 100);
        check_whole("bytes=0-,0-", 10);
        check_whole("bytes=0-5,5-9", 10);
        check("bytes=0-4,5-9", 10, &[(0, 4), (5, 9)]);
    }

    proptest! {
        #[test]
        fn parts_lie_inside_the_body(value in "bytes=([0-9]{0,3}-[0-9]{0,3},?){0,20}", size in 0_u64..300) {
            if let Selection::Parts(parts) = select(&value, size) {
                prop_assert!(!parts.is_empty() && parts.len() <= MAX_RANGES);
                let mut total = 0;
                for part in parts {
                    prop_assert!(part.first <= part.last && part.last < size, "{part:?} of {size}");
                    total += part.length();
                }
                prop_assert!(total <= size);
            }
        }

        #[test]
        fn any_value_is_survived(value in ".*", size in any::<u64>()) {
            let _ = select(&value, size);
            let _ = select(&format!("bytes={value}"), size);
        }

        #[test]
        fn printing_and_parsing_agree(first in 0_u64..1000, length in 1_u64..1000, beyond in 0_u64..1000) {
            let part = ByteRange { first, last: first + length - 1 };
            let size = part.last + 1 + beyond;
            let value = format!("bytes={}-{}", part.first, part.last);
            prop_assert_eq!(select(&value, size), Selection::Parts(vec![part]));
        }
    }
}
