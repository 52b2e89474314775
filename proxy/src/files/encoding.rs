//! Which representation of a file a client would like: `Accept-Encoding` (RFC 9110 §12.5.3), pure.

use conf::Encoding;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// A representation of a file: as it is, or compressed beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// The file itself.
    Identity,
    /// The file with the suffix of this encoding.
    Compressed(Encoding),
}

impl Coding {
    /// What is appended to the file's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Compressed(Encoding::Brotli) => ".br",
            Self::Compressed(Encoding::Zstd) => ".zst",
            Self::Compressed(Encoding::Gzip) => ".gz",
        }
    }

    /// The value of `Content-Encoding`, if there is one.
    pub(crate) fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Compressed(Encoding::Brotli) => Some("br"),
            Self::Compressed(Encoding::Zstd) => Some("zstd"),
            Self::Compressed(Encoding::Gzip) => Some("gzip"),
        }
    }
}

/// The representations that the client accepts, best first: by its weights, and at equal weight in the order of
/// `available`, the file itself last. Empty when it accepts none of them.
///
/// Without the field only the file itself is offered: a client that says nothing may not be able to decode anything.
pub(crate) fn acceptable(headers: &HeaderMap, available: &[Encoding]) -> Vec<Coding> {
    let accepted = Accepted::parse(headers);
    let mut weighed: Vec<(u16, Coding)> = available
        .iter()
        .filter_map(|encoding| Some((accepted.compressed(*encoding)?, Coding::Compressed(*encoding))))
        .collect();
    if let Some(weight) = accepted.identity() {
        weighed.push((weight, Coding::Identity));
    }
    weighed.retain(|(weight, _)| *weight > 0);
    weighed.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    weighed.into_iter().map(|(_, coding)| coding).collect()
}

/// Weights in thousandths; `None`: not mentioned.
#[derive(Debug, Default)]
struct Accepted {
    brotli: Option<u16>,
    zstd: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Accepted {
    /// Members that are not understood count as not mentioned.
    fn parse(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        for value in headers.get_all(ACCEPT_ENCODING) {
            let Ok(value) = value.to_str() else { continue };
            for member in value.split(',') {
                accepted.note(member);
            }
        }
        accepted
    }

    fn note(&mut self, member: &str) {
        let (name, weight) = match member.split_once(';') {
            Some((name, parameter)) => (name, parse_weight(parameter)),
            None => (member, Some(1000)),
        };
        let Some(weight) = weight else { return };
        let name = name.trim_matches([' ', '\t']);
        let slot = if name.eq_ignore_ascii_case("br") {
            &mut self.brotli
        } else if name.eq_ignore_ascii_case("zstd") {
            &mut self.zstd
        } else if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            &mut self.gzip
        } else if name.eq_ignore_ascii_case("identity") {
            &mut self.identity
        } else if name == "*" {
            &mut self.any
        } else {
            return;
        };
        *slot = Some(weight);
    }

    fn compressed(&self, encoding: Encoding) -> Option<u16> {
        let own = match encoding {
            Encoding::Brotli => self.brotli,
            Encoding::Zstd => self.zstd,
            Encoding::Gzip => self.gzip,
        };
        own.or(self.any)
    }

    /// Acceptable unless excluded; below everything that was asked for unless it was asked for itself.
    fn identity(&self) -> Option<u16> {
        match (self.identity, self.any) {
            (Some(weight), _) => Some(weight),
            (None, Some(0)) => None,
            (None, _) => Some(1),
        }
    }
}

/// `q=0.5` → 500 (RFC 9110 §12.4.2).
fn parse_weight(parameter: &str) -> Option<u16> {
    let parameter = parameter.trim_matches([' ', '\t']);
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut thousandths = 0;
    for digit in fraction.bytes().chain(std::iter::repeat(b'0')).take(3) {
        thousandths = thousandths * 10 + u16::from(digit - b'0');
    }
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const ALL: &[Encoding] = &[Encoding::Brotli, Encoding::Zstd, Encoding::Gzip];

    fn order(values: &[&str], available: &[Encoding]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(value).expect("a field value"));
        }
        let codings = acceptable(&headers, available);
        codings.iter().map(|coding| coding.token().unwrap_or("identity")).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(value: &str, expected: &str) {
        assert_eq!(order(&[value], ALL), expected, "{value}");
    }

    #[test]
    fn at_equal_weight_the_configured_order_decides() {
        check("gzip, deflate, br, zstd", "br zstd gzip identity");
        check("gzip, br", "br gzip identity");
        assert_eq!(order(&["gzip, br"], &[Encoding::Gzip, Encoding::Brotli]), "gzip br identity");
        assert_eq!(order(&["gzip, br"], &[Encoding::Gzip]), "gzip identity");
        assert_eq!(order(&["gzip, br"], &[]), "identity");
    }

    #[test]
    fn weights_decide_first() {
        check("br;q=0.5, gzip;q=0.8", "gzip br identity");
        check("br; q=0.001 , zstd ;q=0.002", "zstd br identity");
        check("gzip;Q=1.000, br;q=0.999", "gzip br identity");
        check("identity, gzip;q=0.5", "identity gzip");
        check("identity;q=0.5, gzip;q=0.5", "gzip identity");
    }

    #[test]
    fn zero_excludes() {
        check("br;q=0, gzip", "gzip identity");
        check("br;q=0.000, *;q=1", "zstd gzip identity");
        check("identity;q=0, br", "br");
        check("identity;q=0", "");
        check("*;q=0", "");
        check("*;q=0, gzip", "gzip");
        check("*;q=0, identity;q=0.1", "identity");
    }

    #[test]
    fn a_star_stands_for_what_is_not_mentioned() {
        check("*", "br zstd gzip identity");
        check("gzip;q=1, *;q=0.5", "gzip br zstd identity");
        check("*;q=0.5, identity;q=0", "br zstd gzip");
    }

    #[test]
    fn nothing_said_means_the_file_itself() {
        assert_eq!(order(&[], ALL), "identity");
        check("", "identity");
        check("deflate, compress", "identity");
    }

    #[test]
    fn names_ignore_case_and_fields_are_joined() {
        check("GZip, X-GZIP;q=0.3", "gzip identity");
        assert_eq!(order(&["gzip", "br;q=0.5"], ALL), "gzip br identity");
    }

    #[test]
    fn malformed_members_are_not_mentioned() {
        for member in [
            "br;q=",
            "br;q=2",
            "br;q=1.1",
            "br;q=0.1234",
            "br;q=-1",
            "br;q=.5",
            "br;level=3",
            "br q=1",
            "b r",
            ";",
            "br;q=1;x",
        ] {
            check(&format!("{member}, gzip"), "gzip identity");
        }
        check("gzip;q=0.", "identity");
    }

    proptest! {
        #[test]
        fn an_excluded_coding_is_never_offered(
            weights in proptest::array::uniform4(0_u16..=1000),
            order in Just(["br", "zstd", "gzip", "identity"]).prop_shuffle(),
        ) {
            let value: Vec<String> = order
                .iter()
                .zip(weights)
                .map(|(name, weight)| format!("{name};q={}.{:03}", weight / 1000, weight % 1000))
                .collect();
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(&value.join(",")).expect("a field value"));
            let weight_of = |coding: &Coding| {
                let name = coding.token().unwrap_or("identity");
                order.iter().zip(weights).find(|(other, _)| **other == name).map_or(0, |(_, weight)| weight)
            };
            let offered = acceptable(&headers, ALL);
            prop_assert_eq!(offered.len(), weights.iter().filter(|weight| **weight > 0).count());
            prop_assert!(offered.iter().map(weight_of).is_sorted_by(|a, b| a >= b));
            prop_assert!(offered.iter().all(|coding| weight_of(coding) > 0));
        }

        #[test]
        fn any_value_is_survived(value in "[ -~\t]{0,80}") {
            let offered = order(&[&value], ALL);
            prop_assert!(offered.len() <= "br zstd gzip identity".len());
        }
    }
}
