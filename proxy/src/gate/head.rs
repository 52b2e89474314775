//! The raw head of an HTTP/1 request (RFC 9112 §2-§5), read before the engine sees a byte of it: where it ends, whether
//! every line is exactly what the grammar says, and how the body behind it is framed. Pure, over bytes.
//!
//! The engine's parser is lenient on purpose: it escapes spaces in a target, takes a bare line feed for a line end, and
//! drops a length beside a transfer coding. A head that passes here has one reading, so the engine's is the same.

use memchr::memchr;

/// How the body of a request is framed (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// None follows, or, in HTTP/2, its length is not said.
    Unsaid,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadFault {
    /// Not what the grammar says; with the part that is not.
    Malformed(&'static str),
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// A target longer than its limit.
    TargetTooLong,
    /// More fields than their limit.
    TooManyFields,
}

/// How much a head may have in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadLimits {
    /// Bytes of the target.
    pub(crate) target: usize,
    /// Fields.
    pub(crate) fields: usize,
}

impl HeadLimits {
    /// As much as the engine takes.
    pub(crate) const ENGINE: Self = Self { target: 65_534, fields: 256 };
}

/// Looks for the end of a head that comes in pieces. Bytes are looked at once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scan {
    /// Up to here everything was looked at.
    at: usize,
    /// Where the current line begins.
    line: usize,
    has_line: bool,
}

impl Scan {
    /// Where the head ends in `bytes`, which are those of the last call with more behind them; `None` when it does not
    /// yet. Empty lines before the request line are part of the head (RFC 9112 §2.2).
    ///
    /// # Errors
    /// A bare line feed, or a byte that no head has: what is no HTTP is refused at once, not at the deadline.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadFault> {
        let from = self.at;
        while let Some(offset) = bytes.get(self.at..).and_then(|rest| memchr(b'\n', rest)) {
            let feed = self.at + offset;
            if feed == 0 || bytes.get(feed - 1) != Some(&b'\r') {
                return Err(BARE_LINE_FEED);
            }
            let is_empty = feed == self.line + 1;
            (self.at, self.line) = (feed + 1, feed + 1);
            if is_empty && self.has_line {
                return Ok(Some(self.at));
            }
            self.has_line |= !is_empty;
        }
        self.at = bytes.len();
        if has_control(bytes.get(from..).unwrap_or_default()) { Err(CONTROL) } else { Ok(None) }
    }

    /// Whether the request line is complete.
    pub(crate) fn has_request_line(&self) -> bool {
        self.has_line
    }
}

/// Checks a whole head, from its first byte to its empty line, and says what follows it.
///
/// # Errors
/// [`HeadFault`].
pub(crate) fn read(head: &[u8], limits: HeadLimits) -> Result<Body, HeadFault> {
    let mut framing = Framing::default();
    if cfg!(feature = "measure-without-gate") {
        for (name, value) in lines(head).filter_map(|line| split_field(line).ok()) {
            framing.note(name, value)?;
        }
        return framing.body(true);
    }
    if has_control(head) || has_bare_return(head) {
        return Err(CONTROL);
    }
    let mut lines = lines(head);
    let is_http11 = check_request_line(lines.next().unwrap_or_default(), limits.target)?;
    let mut count = 0;
    for line in lines {
        let (name, value) = split_field(line)?;
        framing.note(name, value)?;
        count += 1;
    }
    if count > limits.fields {
        return Err(HeadFault::TooManyFields);
    }
    framing.body(is_http11)
}

/// Method and target of a head that may be malformed or incomplete, for an answer and a log line.
pub(crate) fn request_of(head: &[u8]) -> (&[u8], &[u8]) {
    let mut words = lines(head).next().unwrap_or_default().split(|&byte| byte == b' ');
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

/// RFC 9112 §3: method, one space, target, one space, version. Whether the version is 1.1.
fn check_request_line(line: &[u8], max_target: usize) -> Result<bool, HeadFault> {
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HeadFault::Malformed("request line"));
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(HeadFault::Malformed("method"));
    }
    check_target(target, max_target)?;
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(HeadFault::Malformed("HTTP version")),
    }
}

/// RFC 3986 has no `#` in what is sent, and no byte outside ASCII. Of the other characters that it lacks, those pass that
/// clients send as they are, and the engine as well; `<`, `>` and, on its side of the `?`, a quote are none of them.
fn check_target(target: &[u8], max_target: usize) -> Result<(), HeadFault> {
    if target.len() > max_target {
        return Err(HeadFault::TargetTooLong);
    }
    let path = memchr(b'?', target).unwrap_or(target.len());
    let is_good = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>');
    let (path, query) = target.split_at(path);
    if target.is_empty()
        || !path.iter().all(|byte| is_good(byte) && *byte != b'`')
        || !query.iter().all(|byte| is_good(byte) && *byte != b'"')
    {
        return Err(HeadFault::Malformed("request target"));
    }
    Ok(())
}

/// RFC 9112 §5: a token, a colon directly behind it, and the value without the white space around it.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), HeadFault> {
    let end = line.iter().position(|&byte| !is_token(byte)).unwrap_or(line.len());
    match line.get(end) {
        Some(b':') if end > 0 => {
            let (name, value) = line.split_at(end);
            Ok((name, trim(value.get(1..).unwrap_or_default())))
        }
        Some(b' ' | b'\t') if end == 0 => Err(HeadFault::Malformed("folded line")),
        Some(b' ' | b'\t') => Err(HeadFault::Malformed("white space before a colon")),
        Some(_) | None => Err(HeadFault::Malformed("field name")),
    }
}

/// The fields that decide where a request ends and whom it is for.
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
    has_host: bool,
}

impl Framing {
    /// Each of them may come once, in one form.
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadFault> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let fault = match name.len() {
            4 if is(b"host") => std::mem::replace(&mut self.has_host, true)
                .then_some(HeadFault::Malformed("more than one Host")),
            14 if is(b"content-length") => self
                .length
                .replace(length_of(value)?)
                .map(|_| HeadFault::Malformed("more than one Content-Length")),
            17 if is(b"transfer-encoding") => {
                let is_second = std::mem::replace(&mut self.is_chunked, true);
                (is_second || !value.eq_ignore_ascii_case(b"chunked")).then_some(HeadFault::TransferCoding)
            }
            _ => None,
        };
        fault.map_or(Ok(()), Err)
    }

    /// RFC 9112 §6.1 and §6.3.
    fn body(&self, is_http11: bool) -> Result<Body, HeadFault> {
        match (self.length, self.is_chunked) {
            (Some(_), true) => Err(HeadFault::Malformed("Content-Length and Transfer-Encoding")),
            (None, true) if !is_http11 => Err(HeadFault::Malformed("Transfer-Encoding in HTTP/1.0")),
            (None, true) => Ok(Body::Chunked),
            (Some(length), false) => Ok(Body::Length(length)),
            (None, false) => Ok(Body::Unsaid),
        }
    }
}

/// Digits only: no list, no sign, no space (RFC 9110 §8.6).
pub(crate) fn length_of(value: &[u8]) -> Result<u64, HeadFault> {
    let fault = HeadFault::Malformed("Content-Length");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(fault);
    }
    str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(fault)
}

/// The lines of a head: the empty ones before the request line are left out, and so is the one at its end.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    std::iter::from_fn(move || {
        let (line, after) = match memchr(b'\n', rest) {
            Some(feed) => rest.split_at(feed + 1),
            None => (rest, &[][..]),
        };
        rest = after;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (!line.is_empty()).then_some(line)
    })
}

/// Optional white space (RFC 9110 §5.6.3).
fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// RFC 9110 §5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether there is a byte that may be in no line of a head. Looks at every byte, which is faster than to stop at the
/// first: the compiler makes it a few instructions for sixteen at a time.
fn has_control(bytes: &[u8]) -> bool {
    let is_control =
        |byte: u8| ((byte < b' ') & (byte != b'\t') & (byte != b'\r') & (byte != b'\n')) | (byte == 0x7f);
    bytes.iter().fold(false, |found, &byte| found | is_control(byte))
}

/// Whether a carriage return is not followed by a line feed. Every line feed has been found to follow one ([`Scan`]), so
/// they are equally many or one is alone.
fn has_bare_return(head: &[u8]) -> bool {
    let count = |wanted: u8| head.iter().fold(0usize, |sum, &byte| sum + usize::from(byte == wanted));
    count(b'\r') != count(b'\n')
}

const BARE_LINE_FEED: HeadFault = HeadFault::Malformed("bare line feed");
const CONTROL: HeadFault = HeadFault::Malformed("control character");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { target: 100, fields: 20 };

    /// What is said about a head that comes in one piece.
    fn check(head: &str) -> Result<Body, HeadFault> {
        let mut scan = Scan::default();
        match scan.end(head.as_bytes())? {
            Some(end) => read(&head.as_bytes()[..end], LIMITS),
            None => panic!("not complete: {head:?}"),
        }
    }

    fn fields(lines: &str) -> Result<Body, HeadFault> {
        check(&format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n"))
    }

    #[test]
    fn ordinary_heads_pass() {
        assert_eq!(fields("Host: a"), Ok(Body::Unsaid));
        assert_eq!(fields("Host:a\r\nX:\r\ny: \u{e9} \t"), Ok(Body::Unsaid));
        assert_eq!(fields("content-LENGTH: \t 007 "), Ok(Body::Length(7)));
        assert_eq!(fields("Transfer-Encoding: Chunked"), Ok(Body::Chunked));
        assert_eq!(check("\r\n\r\nM-SEARCH * HTTP/1.0\r\n\r\n"), Ok(Body::Unsaid));
        assert_eq!(check("GET /\"\\^{|}[]%zz?\\^`{|}[]? HTTP/1.1\r\n\r\n"), Ok(Body::Unsaid));
    }

    #[test]
    fn request_lines_have_three_words() {
        for (line, what) in [
            ("GET /a b HTTP/1.1", "request line"),
            ("GET  / HTTP/1.1", "request line"),
            ("GET / HTTP/1.1 ", "request line"),
            (" GET / HTTP/1.1", "request line"),
            ("GET /", "request line"),
            ("GET\t/\tHTTP/1.1", "request line"),
            ("G(T / HTTP/1.1", "method"),
            (" / HTTP/1.1", "method"),
            ("GET /a#b HTTP/1.1", "request target"),
            ("GET /\u{e9} HTTP/1.1", "request target"),
            ("GET /\t HTTP/1.1", "request target"),
            ("GET /< HTTP/1.1", "request target"),
            ("GET /` HTTP/1.1", "request target"),
            ("GET /?\" HTTP/1.1", "request target"),
            ("GET / HTTP/1.2", "HTTP version"),
            ("GET / HTTP/01.1", "HTTP version"),
            ("GET / http/1.1", "HTTP version"),
            ("PRI * HTTP/2.0", "HTTP version"),
        ] {
            assert_eq!(check(&format!("{line}\r\n\r\n")), Err(HeadFault::Malformed(what)), "{line:?}");
        }
    }

    #[test]
    fn targets_have_a_length() {
        let target = |length: usize| check(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(length - 1)));
        assert_eq!(target(100), Ok(Body::Unsaid));
        assert_eq!(target(101), Err(HeadFault::TargetTooLong));
    }

    #[test]
    fn lines_end_in_one_way() {
        for head in
            ["GET / HTTP/1.1\n", "\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"]
        {
            assert_eq!(Scan::default().end(head.as_bytes()), Err(BARE_LINE_FEED), "{head:?}");
        }
        for lines in ["A: b\rC: d", "A: b\r\r", "A\r: b", "A: b\0c", "A: \u{7f}", "A: \u{b}b"] {
            assert_eq!(fields(lines), Err(CONTROL), "{lines:?}");
        }
        assert_eq!(Scan::default().end(b"\x16\x03\x01\x02"), Err(CONTROL), "TLS is refused at once");
    }

    #[test]
    fn fields_are_a_name_a_colon_and_a_value() {
        for (lines, what) in [
            ("A: b\r\n c", "folded line"),
            (" A: b", "folded line"),
            ("A : b", "white space before a colon"),
            ("A\t: b", "white space before a colon"),
            (": b", "field name"),
            ("A", "field name"),
            ("A(: b", "field name"),
            ("\u{e9}: b", "field name"),
        ] {
            assert_eq!(fields(lines), Err(HeadFault::Malformed(what)), "{lines:?}");
        }
        assert_eq!(fields(&["A: b"; 20].join("\r\n")), Ok(Body::Unsaid));
        assert_eq!(fields(&["A: b"; 21].join("\r\n")), Err(HeadFault::TooManyFields));
    }

    #[test]
    fn framing_has_one_reading() {
        let two = HeadFault::Malformed("more than one Content-Length");
        let both = HeadFault::Malformed("Content-Length and Transfer-Encoding");
        for (lines, fault) in [
            ("Content-Length: 2\r\nContent-Length: 2", two),
            ("Content-Length: 2\r\nX: y\r\nCONTENT-LENGTH: 3", two),
            ("Content-Length: 2, 2", HeadFault::Malformed("Content-Length")),
            ("Content-Length: +2", HeadFault::Malformed("Content-Length")),
            ("Content-Length: 0x2", HeadFault::Malformed("Content-Length")),
            ("Content-Length: 2 2", HeadFault::Malformed("Content-Length")),
            ("Content-Length:", HeadFault::Malformed("Content-Length")),
            ("Content-Length: 99999999999999999999", HeadFault::Malformed("Content-Length")),
            ("Content-Length: 2\r\nTransfer-Encoding: chunked", both),
            ("Transfer-Encoding: chunked\r\nContent-Length: 2", both),
            ("Transfer-Encoding: chunked, chunked", HeadFault::TransferCoding),
            ("Transfer-Encoding: gzip, chunked", HeadFault::TransferCoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", HeadFault::TransferCoding),
            ("Transfer-Encoding: identity", HeadFault::TransferCoding),
            ("Transfer-Encoding: xchunked", HeadFault::TransferCoding),
            ("Transfer-Encoding: \"chunked\"", HeadFault::TransferCoding),
            ("Transfer-Encoding:", HeadFault::TransferCoding),
            ("Host: a\r\nHost: a", HeadFault::Malformed("more than one Host")),
        ] {
            assert_eq!(fields(lines), Err(fault), "{lines:?}");
        }
        let old = check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old, Err(HeadFault::Malformed("Transfer-Encoding in HTTP/1.0")));
    }

    #[test]
    fn what_is_asked_is_known_of_any_head() {
        assert_eq!(request_of(b"\r\nGET /_matrix/x y HTTP/1.1\r\nHo"), (&b"GET"[..], &b"/_matrix/x"[..]));
        assert_eq!(request_of(b"GET /_mat"), (&b"GET"[..], &b"/_mat"[..]));
        assert_eq!(request_of(b""), (&b""[..], &b""[..]));
    }

    proptest! {
        #[test]
        fn pieces_end_where_the_whole_does(head in "(\r\n)?[A-Z/ \r\n:\t]{0,40}(\r\n\r\n)?.{0,5}", cut in any::<prop::sample::Index>()) {
            let bytes = head.as_bytes();
            let (mut whole, mut parts) = (Scan::default(), Scan::default());
            let at = if bytes.is_empty() { 0 } else { cut.index(bytes.len()) };
            let expected = whole.end(bytes);
            let found = match parts.end(&bytes[..at]) {
                Ok(None) => parts.end(bytes),
                other => other,
            };
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Scan::default().end(&bytes);
            let _ = read(&bytes, LIMITS);
            let _ = request_of(&bytes);
        }
    }
}
