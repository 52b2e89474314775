//! Where the body of an HTTP/1 request ends (RFC 9112 §6 and §7.1), found in the raw bytes before the engine reads them.
//! Pure: it keeps no bytes and changes none.
//!
//! The engine takes an empty line for a size, and anything behind a `;` for an extension, line feeds included. What
//! passes here is a chunk in everybody's reading. Extensions and trailers are dropped by the engine, which frames the body
//! anew; their form is checked here, and how much of both there is.

use super::head::{Body, is_token};

/// Why a chunked body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// It is none; with the part that is not.
    Malformed(&'static str),
    /// More bytes of extensions and trailers than their limit.
    TooMuchBeside,
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remaining {
    state: State,
    /// Bytes of extensions and trailers that may still come.
    beside: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    /// So many bytes of a body with a length.
    Bytes(u64),
    /// A chunk's size: its value and how many digits it has.
    Size(u64, u8),
    /// An extension of the chunk whose size this is.
    Extension(u64),
    /// The line feed behind the size.
    SizeFeed(u64),
    /// So many bytes of a chunk.
    Data(u64),
    DataReturn,
    DataFeed,
    /// A trailer, and where in its line.
    Trailer(Line),
}

/// A place in a trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Start,
    Name,
    Value,
    Feed,
    /// The line feed that ends the body.
    LastFeed,
}

impl Remaining {
    /// Of a body that begins now, with at most so many bytes of extensions and trailers.
    pub(crate) fn new(body: Body, beside: u32) -> Self {
        let state = match body {
            Body::Unsaid | Body::Length(0) => State::Done,
            Body::Length(length) => State::Bytes(length),
            Body::Chunked => State::Size(0, 0),
        };
        Self { state, beside }
    }

    /// Nothing more.
    pub(crate) fn is_none(self) -> bool {
        self.state == State::Done
    }

    /// How many of these bytes belong to the body; all, unless it ends among them.
    ///
    /// # Errors
    /// Chunks that are not.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, BodyFault> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match &mut self.state {
                State::Done => break,
                State::Bytes(left) | State::Data(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    *left -= u64::try_from(count).unwrap_or(u64::MAX);
                    at += count;
                    match self.state {
                        State::Bytes(0) => self.state = State::Done,
                        State::Data(0) => self.state = State::DataReturn,
                        _ => {}
                    }
                }
                _ => {
                    self.state = next(self.state, byte)?;
                    if self.state.is_beside() {
                        self.beside = self.beside.checked_sub(1).ok_or(BodyFault::TooMuchBeside)?;
                    }
                    at += 1;
                }
            }
        }
        Ok(at)
    }
}

impl State {
    /// Behind a byte that is neither size nor data nor the end of anything: of an extension, or of a trailer.
    fn is_beside(self) -> bool {
        matches!(self, Self::Extension(_) | Self::Trailer(Line::Name | Line::Value | Line::Feed))
    }
}

/// One byte of what frames a chunked body.
fn next(state: State, byte: u8) -> Result<State, BodyFault> {
    match (state, byte) {
        (State::Size(value, digits), _) if byte.is_ascii_hexdigit() => {
            if digits == MAX_DIGITS {
                return Err(SIZE);
            }
            let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
            Ok(State::Size(value << 4 | digit, digits + 1))
        }
        (State::Size(size, 1..), b'\r') | (State::Extension(size), b'\r') => Ok(State::SizeFeed(size)),
        (State::Size(size, 1..), b';') => Ok(State::Extension(size)),
        (State::Size(..), _) => Err(SIZE),
        (State::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Extension(size)),
        (State::Extension(_), _) => Err(EXTENSION),
        (State::SizeFeed(0), b'\n') => Ok(State::Trailer(Line::Start)),
        (State::SizeFeed(size), b'\n') => Ok(State::Data(size)),
        (State::DataReturn, b'\r') => Ok(State::DataFeed),
        (State::DataFeed, b'\n') => Ok(State::Size(0, 0)),
        (State::SizeFeed(_) | State::DataReturn | State::DataFeed, _) => Err(END),
        (State::Trailer(Line::LastFeed), b'\n') => Ok(State::Done),
        (State::Trailer(line), _) => Ok(State::Trailer(next_in_line(line, byte)?)),
        (State::Done | State::Bytes(_) | State::Data(_), _) => Ok(state),
    }
}

/// RFC 9112 §7.1.2: trailers are fields like those of a head.
fn next_in_line(line: Line, byte: u8) -> Result<Line, BodyFault> {
    match (line, byte) {
        (Line::Start, b'\r') => Ok(Line::LastFeed),
        (Line::Start | Line::Name, _) if is_token(byte) => Ok(Line::Name),
        (Line::Name, b':') => Ok(Line::Value),
        (Line::Value, b'\r') => Ok(Line::Feed),
        (Line::Value, b'\t' | b' '..=b'~' | 0x80..) => Ok(Line::Value),
        (Line::Feed, b'\n') => Ok(Line::Start),
        _ => Err(TRAILER),
    }
}

const SIZE: BodyFault = BodyFault::Malformed("size of a chunk");
const EXTENSION: BodyFault = BodyFault::Malformed("extension of a chunk");
const END: BodyFault = BodyFault::Malformed("end of a chunk");
const TRAILER: BodyFault = BodyFault::Malformed("trailer");
/// Of a chunk's size: 2^60 bytes are more than anybody has.
const MAX_DIGITS: u8 = 15;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BESIDE: u32 = 100;

    /// What is left of `bytes` behind the body; an error when the body does not end.
    fn check(body: Body, bytes: &str) -> Result<&str, &'static str> {
        let mut remaining = Remaining::new(body, BESIDE);
        let taken = remaining.take(bytes.as_bytes()).map_err(|fault| match fault {
            BodyFault::Malformed(part) => part,
            BodyFault::TooMuchBeside => "too much",
        })?;
        if remaining.is_none() { Ok(&bytes[taken..]) } else { Err("no end") }
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        assert_eq!(check(Body::Unsaid, "GET"), Ok("GET"));
        assert_eq!(check(Body::Length(0), "GET"), Ok("GET"));
        assert_eq!(check(Body::Length(3), "abcGET"), Ok("GET"));
        assert_eq!(check(Body::Length(3), "ab"), Err("no end"));
        assert_eq!(check(Body::Chunked, "3\r\nabc\r\n00b\r\n0123456789a\r\n0\r\n\r\nGET"), Ok("GET"));
        assert_eq!(check(Body::Chunked, "3;a=\"b c\";d\r\nabc\r\n0;x\r\nA: b\r\nC:\r\n\r\nGET"), Ok("GET"));
        assert_eq!(check(Body::Chunked, "3\r\nabc\r\n0\r\n"), Err("no end"));
    }

    #[test]
    fn chunks_have_one_reading() {
        for (bytes, what) in [
            ("\r\n\r\n", "size of a chunk"),
            (";x\r\na", "size of a chunk"),
            ("x\r\n", "size of a chunk"),
            ("0x3\r\nabc\r\n", "size of a chunk"),
            ("+3\r\nabc\r\n", "size of a chunk"),
            ("-3\r\nabc\r\n", "size of a chunk"),
            (" 3\r\nabc\r\n", "size of a chunk"),
            ("3 \r\nabc\r\n", "size of a chunk"),
            ("3 ;x\r\nabc\r\n", "size of a chunk"),
            ("3\nabc\r\n", "size of a chunk"),
            ("0000000000000003\r\nabc\r\n", "size of a chunk"),
            ("ffffffffffffffff\r\nabc\r\n", "size of a chunk"),
            ("3;\nabc\r\n", "extension of a chunk"),
            ("3;a\0\r\nabc\r\n", "extension of a chunk"),
            ("3\rabc\r\n", "end of a chunk"),
            ("3;x\r\rabc\r\n", "end of a chunk"),
            ("3\r\nabcd\r\n", "end of a chunk"),
            ("3\r\nabc\n0\r\n\r\n", "end of a chunk"),
            ("3\r\nabc\r0\r\n\r\n", "end of a chunk"),
            ("0\r\n\n", "trailer"),
            ("0\r\nA\r\n\r\n", "trailer"),
            ("0\r\n A: b\r\n\r\n", "trailer"),
            ("0\r\nA : b\r\n\r\n", "trailer"),
            ("0\r\nA: b\n\r\n", "trailer"),
            ("0\r\nA: b\rc\r\n\r\n", "trailer"),
            ("0\r\n: b\r\n\r\n", "trailer"),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", "trailer"),
        ] {
            assert_eq!(check(Body::Chunked, bytes), Err(what), "{bytes:?}");
        }
    }

    #[test]
    fn what_stands_beside_the_data_has_a_limit_in_all() {
        let many = |extensions: usize| format!("{}0\r\n\r\n", "1;x\r\na\r\n".repeat(extensions));
        assert_eq!(check(Body::Chunked, &many(50)), Ok(""));
        assert_eq!(check(Body::Chunked, &many(51)), Err("too much"));
        let long = |length: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length));
        assert_eq!(check(Body::Chunked, &long(99)), Ok(""));
        assert_eq!(check(Body::Chunked, &long(100)), Err("too much"));
        let trailer = |length: usize| format!("0\r\nA: {}\r\n\r\n", "x".repeat(length));
        assert_eq!(check(Body::Chunked, &trailer(96)), Ok(""));
        assert_eq!(check(Body::Chunked, &trailer(97)), Err("too much"));
        let endless = format!("0\r\n{}", "A: b\r\n".repeat(100));
        assert_eq!(check(Body::Chunked, &endless), Err("too much"));
        assert_eq!(check(Body::Chunked, &format!("30;{}\r\n", "x".repeat(200))), Err("too much"));
        // A body that has nothing of it needs no room for it.
        let mut none = Remaining::new(Body::Chunked, 0);
        assert_eq!(none.take(b"1\r\na\r\n0\r\n\r\n"), Ok(11));
        assert!(none.is_none());
    }

    proptest! {
        #[test]
        fn pieces_are_read_like_the_whole(body in "[0-9a-f]{0,2}(;x)?\r\n[a-c\r\n0-9:;]{0,30}", at in any::<prop::sample::Index>()) {
            let bytes = body.as_bytes();
            let (mut whole, mut parts) = (Remaining::new(Body::Chunked, 3), Remaining::new(Body::Chunked, 3));
            let (first, second) = bytes.split_at(at.index(bytes.len()));
            let expected = whole.take(bytes);
            let found = parts.take(first).and_then(|taken| {
                if taken < first.len() { Ok(taken) } else { parts.take(second).map(|more| taken + more) }
            });
            prop_assert_eq!(found, expected);
            if expected.is_ok() {
                prop_assert_eq!(parts, whole);
            }
        }
    }
}
