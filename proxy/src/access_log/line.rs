//! The two formats of a line. Pure.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use accept::ClientAddress;
use http::Version;

use super::redact;

/// What is known about a request at its end.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) id: u64,
    pub(crate) client: ClientAddress,
    pub(crate) listener: &'a str,
    pub(crate) protocol: Version,
    pub(crate) tls: Option<&'static str>,
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    /// Target as received; secrets in it are left out of the line.
    pub(crate) path: &'a str,
    pub(crate) site: Option<&'a str>,
    pub(crate) route: Option<&'a str>,
    pub(crate) upstream: Option<&'a str>,
    pub(crate) status: u16,
    pub(crate) bytes_in: usize,
    pub(crate) bytes_out: usize,
    pub(crate) duration: Duration,
    /// From choosing the server to the head of its answer.
    pub(crate) upstream_time: Option<Duration>,
    pub(crate) error: Option<&'a str>,
    /// Names the client's connection in the logs of all proxies.
    pub(crate) connection: &'a str,
    /// For the combined format.
    pub(crate) referer: &'a str,
    /// For the combined format.
    pub(crate) user_agent: &'a str,
}

/// One JSON object, fields in a fixed order, `null` for what there is not.
pub(super) fn json(entry: &Entry<'_>, time: SystemTime, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    rfc3339(time, out);
    // Writing to a Vec cannot fail, here and below.
    let _ = write!(out, "\",\"id\":\"{:016x}\",\"client\":\"{}\",\"listener\":", entry.id, entry.client);
    string(out, entry.listener);
    let _ = write!(out, ",\"protocol\":\"{}\",\"tls\":", protocol(entry.protocol));
    optional(out, entry.tls);
    out.extend_from_slice(b",\"method\":");
    string(out, entry.method);
    out.extend_from_slice(b",\"host\":");
    string(out, entry.host);
    out.extend_from_slice(b",\"path\":\"");
    redact::target(entry.path, out, escape_json);
    out.extend_from_slice(b"\",\"site\":");
    optional(out, entry.site);
    out.extend_from_slice(b",\"route\":");
    optional(out, entry.route);
    out.extend_from_slice(b",\"upstream\":");
    optional(out, entry.upstream);
    let _ = write!(
        out,
        ",\"status\":{},\"bytes_in\":{},\"bytes_out\":{},\"duration_ms\":",
        entry.status, entry.bytes_in, entry.bytes_out
    );
    milliseconds(out, entry.duration);
    out.extend_from_slice(b",\"upstream_ms\":");
    match entry.upstream_time {
        Some(time) => milliseconds(out, time),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"error\":");
    optional(out, entry.error);
    out.extend_from_slice(b",\"connection\":");
    string(out, entry.connection);
    out.extend_from_slice(b"}\n");
}

/// The combined format of Apache and nginx.
pub(super) fn combined(entry: &Entry<'_>, time: SystemTime, out: &mut Vec<u8>) {
    let _ = write!(out, "{} - - [", entry.client);
    common_time(time, out);
    out.extend_from_slice(b"] \"");
    escape_quoted(out, entry.method);
    out.push(b' ');
    redact::target(entry.path, out, escape_quoted);
    let _ = write!(out, " {}\" {} {} \"", protocol(entry.protocol), entry.status, entry.bytes_out);
    redact::target(or_dash(entry.referer), out, escape_quoted);
    out.extend_from_slice(b"\" \"");
    escape_quoted(out, or_dash(entry.user_agent));
    out.extend_from_slice(b"\"\n");
}

fn or_dash(value: &str) -> &str {
    if value.is_empty() { "-" } else { value }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/0.9",
    }
}

fn milliseconds(out: &mut Vec<u8>, time: Duration) {
    let _ = write!(out, "{}.{:03}", time.as_millis(), time.subsec_micros() % 1000);
}

fn optional(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => string(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

fn string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    escape_json(out, value);
    out.push(b'"');
}

/// RFC 8259 §7. What needs no escape is copied in one piece.
fn escape_json(out: &mut Vec<u8>, value: &str) {
    let mut rest = value.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7f)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        if let Some((byte, tail)) = special.split_first() {
            let _ = match byte {
                b'"' | b'\\' => out.write_all(&[b'\\', *byte]),
                _ => write!(out, "\\u{byte:04x}"),
            };
            rest = tail;
        }
    }
    out.extend_from_slice(rest);
}

/// As nginx does: nothing can end the quotes or the line.
fn escape_quoted(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            _ => out.push(byte),
        }
    }
}

/// `2026-11-24T13:05:09.123Z` (RFC 3339 §5.6).
fn rfc3339(time: SystemTime, out: &mut Vec<u8>) {
    let t = Civil::from(time);
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        t.year, t.month, t.day, t.hour, t.minute, t.second, t.millisecond
    );
}

/// `24/Nov/2026:13:05:09 +0000`.
fn common_time(time: SystemTime, out: &mut Vec<u8>) {
    let t = Civil::from(time);
    let month = MONTHS.get(usize::try_from(t.month).unwrap_or(0).wrapping_sub(1)).unwrap_or(&"???");
    let _ =
        write!(out, "{:02}/{month}/{:04}:{:02}:{:02}:{:02} +0000", t.day, t.year, t.hour, t.minute, t.second);
}

/// A moment in UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u32,
}

impl From<SystemTime> for Civil {
    /// Days to a date of the Gregorian calendar, counting years from March so that the leap day comes last.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            hour: seconds / 3600,
            minute: seconds % 3600 / 60,
            second: seconds % 60,
            millisecond: since.subsec_millis(),
        }
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
impl Entry<'static> {
    pub(crate) fn example() -> Self {
        Self {
            id: 0x2a,
            client: ClientAddress::UNKNOWN,
            listener: "https",
            protocol: Version::HTTP_2,
            tls: Some("1.3"),
            method: "GET",
            host: "a.example",
            path: "/x?access_token=s\u{7f}",
            site: Some("a.example"),
            route: None,
            upstream: None,
            status: 404,
            bytes_in: 0,
            bytes_out: 12,
            duration: Duration::from_micros(1_234_567),
            upstream_time: None,
            error: Some("no such \"route\""),
            connection: "0-1",
            referer: "",
            user_agent: "a\"b",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7)
    }

    #[test]
    fn fields_have_their_names_and_order() {
        let mut out = Vec::new();
        json(&Entry::example(), at(1_795_525_509), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"time":"2026-11-24T13:05:09.007Z","id":"000000000000002a","client":"unknown","listener":"https","#,
                r#""protocol":"HTTP/2.0","tls":"1.3","method":"GET","host":"a.example","#,
                r#""path":"/x?access_token=<redacted>","site":"a.example","route":null,"upstream":null,"status":404,"#,
                r#""bytes_in":0,"bytes_out":12,"duration_ms":1234.567,"upstream_ms":null,"#,
                r#""error":"no such \"route\"","connection":"0-1"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn combined_is_what_log_analysers_know() {
        let mut out = Vec::new();
        combined(&Entry::example(), at(951_782_400), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "unknown - - [29/Feb/2000:00:00:00 +0000] \"GET /x?access_token=<redacted> HTTP/2.0\" 404 12 \"-\" \"a\\x22b\"\n"
        );
    }

    proptest! {
        #[test]
        fn lines_are_json_whatever_the_client_sends(text in any::<String>()) {
            let entry = Entry { path: &text, method: &text, host: &text, ..Entry::example() };
            let mut out = Vec::new();
            json(&entry, at(0), &mut out);
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(value["host"].as_str(), Some(text.as_str()));
            prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        }
    }
}
