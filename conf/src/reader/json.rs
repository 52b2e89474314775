//! Values that are passed on as JSON, whatever they mean: plain words are what the core schema of YAML 1.2 (§10.3.2) says they are.

use serde_json::{Map, Number, Value as Json};

use super::{Item, Section};
use crate::source::Value;

impl Item<'_> {
    /// The value as JSON; a number that JSON cannot hold is reported.
    pub(crate) fn json(&self) -> Option<Json> {
        match &self.node.value {
            Value::Null => Some(Json::Null),
            Value::Scalar { text, plain: false } => Some(Json::String(text.clone())),
            Value::Scalar { text, plain: true } => {
                if let Some(truth) = self.as_truth() {
                    return Some(Json::Bool(truth));
                }
                match number(text) {
                    Ok(Some(number)) => Some(Json::Number(number)),
                    Ok(None) => Some(Json::String(text.clone())),
                    Err(message) => {
                        self.error(message);
                        None
                    }
                }
            }
            Value::List(_) => {
                let items: Vec<Option<Json>> = self.list()?.iter().map(Item::json).collect();
                items.into_iter().collect::<Option<Vec<Json>>>().map(Json::Array)
            }
            Value::Map(_) => self.section()?.json().map(Json::Object),
        }
    }
}

impl Section<'_> {
    /// Every key with its value as JSON.
    pub(crate) fn json(&self) -> Option<Map<String, Json>> {
        let members: Vec<Option<(String, Json)>> =
            self.entries().map(|(key, item)| Some((key.to_owned(), item.json()?))).collect();
        members.into_iter().collect()
    }
}

/// A plain word as a number; `None` if it is text.
fn number(text: &str) -> Result<Option<Number>, String> {
    let exact = || format!("`{text}` is a number that readers of JSON round, write it in quotes");
    let digits = |text: &str, radix| {
        let integer = (!text.is_empty() && text.chars().all(|c| c.is_digit(radix)))
            .then(|| i64::from_str_radix(text, radix).ok().filter(|value| *value <= LARGEST_EXACT));
        integer.map(|value| value.ok_or_else(exact))
    };
    if let Some(value) = text
        .strip_prefix("0x")
        .and_then(|hex| digits(hex, 16))
        .or_else(|| digits(text.strip_prefix("0o")?, 8))
    {
        return value.map(|value| Some(value.into()));
    }
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(value) = digits(unsigned, 10) {
        return value.map(|value| Some((sign * value).into()));
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(format!("JSON has no number `{text}`"));
    }
    if !is_float(unsigned) {
        return Ok(None);
    }
    let value = text.parse::<f64>().ok().and_then(Number::from_f64);
    value.map(Some).ok_or_else(|| format!("JSON has no number as large as `{text}`"))
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && all_digits(exponent)
    });
    exponent && all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty())
}

/// 2^53 - 1: larger ones are not exact in JavaScript, nor allowed in Matrix (RFC 8259 §6).
const LARGEST_EXACT: i64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let printed = match number(text) {
            Ok(Some(number)) => number.to_string(),
            Ok(None) => "text".to_owned(),
            Err(_) => "refused".to_owned(),
        };
        assert_eq!(printed, expected, "{text}");
    }

    #[test]
    fn numbers_are_those_of_the_core_schema() {
        for (text, expected) in [
            ("0", "0"),
            ("-12", "-12"),
            ("+12", "12"),
            ("010", "10"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("1.50", "1.5"),
            (".5", "0.5"),
            ("2.", "2.0"),
            ("-1e3", "-1000.0"),
            ("1E-2", "0.01"),
            ("9007199254740991", "9007199254740991"),
            ("-9007199254740991", "-9007199254740991"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn other_words_are_text() {
        for text in [
            "", "yes", "no", "on", "1_000", "1:30", "0b1", "0x", "0o8", "-0x1", "1.2.3", ".", "e5", "1e",
            "--1", "½", "inf", "nan", "-.nan",
        ] {
            check(text, "text");
        }
    }

    #[test]
    fn numbers_that_would_arrive_as_others_are_refused() {
        for text in [
            "9007199254740992",
            "-9007199254740992",
            "99999999999999999999999",
            "0xFFFFFFFFFFFFFFFF",
            "1e999",
            ".inf",
            "-.Inf",
            ".NaN",
        ] {
            check(text, "refused");
        }
    }
}
